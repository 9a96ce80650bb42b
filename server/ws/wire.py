"""One WebSocket of a service: what is read from it as JSON, and the frames on their way to it, with one writer.

Two lanes. Replies that need no order go first; what belongs in order with audio waits for room, in bytes.
"""

import asyncio
import json
from collections import deque
from collections.abc import AsyncGenerator, Mapping
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from server.errors import EngineBusy, LimitError, ParleyError, ProtocolError
from server.incoming import decoded

ROOM = 262_144  # bytes in the ordered lane: some seconds of audio; beyond, whoever makes more waits
PATIENCE_S = 5.0  # for a last word
REPLIES = 1_000  # in the other lane; a client that lets so many wait does not read

Frame = Mapping[str, Any] | bytes


class Wire:
    """Use as a block: `async with Wire(socket) as wire`. Whatever is still waiting at its end is not sent."""

    def __init__(self, socket: WebSocket, room: int = ROOM) -> None:
        self.socket = socket
        self._replies: deque[Frame] = deque()
        self._ordered: deque[tuple[object, Frame]] = deque()
        self._room, self._held = room, 0
        self._filled, self._drained, self._idle = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._writer: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._writer = asyncio.create_task(self._write())
        return self

    async def __aexit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        assert self._writer is not None
        self._writer.cancel()
        await asyncio.wait([self._writer])

    async def messages(self) -> AsyncGenerator[dict[str, Any] | ProtocolError, None]:
        """What the client sends, until it leaves; what is no JSON object comes as the error it is."""
        while True:
            message = await self.socket.receive()
            if message["type"] == "websocket.disconnect":
                return
            yield _object(message)

    def tell(self, message: Frame) -> None:
        """Send `message` as soon as possible. Raises `LimitError` for a client that does not read."""
        if len(self._replies) >= REPLIES:
            raise LimitError("client does not read", code="not_reading")
        self._replies.append(message)
        self._filled.set()

    async def put(self, owner: object, frame: Frame) -> None:
        """Send `frame` in its order, once there is room."""
        while self._held >= self._room:
            self._drained.clear()
            await self._drained.wait()
        self._ordered.append((owner, frame))
        self._held += _size(frame)
        self._filled.set()

    def drop(self, owner: object = None) -> None:
        """Forget the ordered frames of `owner` (None: of all) that have not left."""
        self._ordered = deque(item for item in self._ordered if owner is not None and item[0] is not owner)
        self._held = sum(_size(frame) for _, frame in self._ordered)
        self._drained.set()

    async def sent(self) -> None:
        """Wait until everything has been written."""
        self._idle.clear()
        self._filled.set()
        await self._idle.wait()

    async def refuse(self, error: ParleyError) -> None:
        """Say what is wrong, then close. A client that does not read is not waited for."""
        self.drop()
        self._replies.append(told(error, fatal=True))
        with suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE_S):
                await self.sent()
        await self.close(closing(error), str(error))

    async def close(self, code: int, reason: str = "") -> None:
        if self.socket.application_state is WebSocketState.CONNECTED:
            try:
                await self.socket.close(code, reason.encode()[:120].decode(errors="ignore"))
            except (WebSocketDisconnect, RuntimeError):
                return

    async def _write(self) -> None:
        while True:
            while not (self._replies or self._ordered):
                self._filled.clear()
                self._idle.set()
                await self._filled.wait()
            await self._send(self._replies.popleft() if self._replies else self._next())
            self._drained.set()

    def _next(self) -> Frame:
        _, frame = self._ordered.popleft()
        self._held -= _size(frame)
        return frame

    async def _send(self, frame: Frame) -> None:
        try:
            if isinstance(frame, bytes):
                await self.socket.send_bytes(frame)
            else:
                await self.socket.send_text(_text(frame))
        except (WebSocketDisconnect, RuntimeError):  # gone; the reader learns of it in its own time
            await asyncio.sleep(0)


def told(error: ParleyError, *, fatal: bool = False, **more: Any) -> dict[str, Any]:
    """`error` as a message."""
    wait = error.retry_after
    later = {"retry_after": round(wait, 1)} if wait else {}
    return {"type": "error", "message": str(error), "code": error.code, "fatal": fatal, **later, **more}


def closing(error: ParleyError) -> int:
    """The code a socket is closed with after `error`."""
    if isinstance(error, EngineBusy):
        return 1013
    return error.close if isinstance(error, LimitError) else 1008


def _text(frame: Mapping[str, Any]) -> str:
    """`frame` as JSON. A model may give half a character, which no text can hold: it goes as a question mark."""
    return json.dumps(frame, ensure_ascii=False, separators=(",", ":")).encode(errors="replace").decode()


def _size(frame: Frame) -> int:
    return len(frame) if isinstance(frame, bytes) else 256


def _object(message: Mapping[str, Any]) -> dict[str, Any] | ProtocolError:
    if (text := message.get("text")) is None:
        return ProtocolError("a binary frame: only JSON is understood here")
    try:
        value = decoded(text)
    except ProtocolError as error:
        return error
    return value if isinstance(value, dict) else ProtocolError("not a JSON object")
