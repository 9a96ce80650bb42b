"""`/ws`: the conversation on a WebSocket. Frames to commands, events to frames; limits and the way out."""

import asyncio
import secrets
from collections.abc import AsyncGenerator
from contextlib import suppress
from dataclasses import dataclass

from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from server import events as e
from server.access import origin_fits, token_fits
from server.audio import milliseconds
from server.cast import Cast
from server.characters import Character, chosen
from server.errors import LimitError, ParleyError, ProtocolError
from server.limits import FRAME_MS, MESSAGE_MS, Meter
from server.lobby import Lobby
from server.packing import Tokens
from server.pipelines.engines import Codec
from server.rack import Rack
from server.session import Received, Session
from server.settings import Settings
from server.telemetry import ERRORS, REFUSED, log, session_id
from server.ws.protocol import JSON, MSGPACK, decode, encode

TOKENS = Tokens.format
LAST_WORD_S = 3.0  # for a client that does not read


@dataclass(frozen=True)
class Conversation:
    """The endpoint: each socket is one session."""

    rack: Rack
    lobby: Lobby
    characters: dict[str, Character]
    settings: Settings

    async def __call__(self, socket: WebSocket) -> None:
        subprotocol = await self._accept(socket)
        wire = _Wire(socket, subprotocol or JSON, self.settings)
        try:
            self._check(socket)
            await self._converse(wire)
        except ParleyError as error:
            await wire.refuse(error)

    async def _accept(self, socket: WebSocket) -> str | None:
        """Accept first: only an open socket can be told why it is closed."""
        offered = socket.scope.get("subprotocols", [])
        subprotocol = next((name for name in offered if name in (JSON, MSGPACK)), None)
        await socket.accept(subprotocol)
        return subprotocol

    def _check(self, socket: WebSocket) -> None:
        if not origin_fits(socket, self.settings.server):
            REFUSED.labels("origin").inc()
            raise LimitError("this page may not connect; add its origin to server.origins", code="forbidden_origin")
        if not token_fits(socket, self.settings.server, socket.scope.get("subprotocols", [])):
            REFUSED.labels("token").inc()
            raise LimitError("a token is needed: ?token=..., or Authorization: Bearer ...", code="unauthorized")
        if not self.rack.ready:
            raise LimitError("the engines are still starting", code="starting", close=1013, retry_after=2)
        self.lobby.admit(socket.query_params.get("session", ""))

    async def _converse(self, wire: "_Wire") -> None:
        clock = asyncio.get_running_loop().time
        session = self._session(wire, clock())
        carried = session_id.set(session.id[:8])
        log.info("connected")
        try:
            with self.lobby.present(session):
                await session.run(wire.received(session), wire.write)
        except LimitError as error:
            await wire.refuse(error)
        except Exception:
            log.exception("a conversation broke")
            await wire.refuse(LimitError("internal error; the server's log tells more", code="internal", close=1011))
        finally:
            self.lobby.keep(session, clock())
            log.info("disconnected")
            session_id.reset(carried)

    def _session(self, wire: "_Wire", now: float) -> Session:
        query = wire.socket.query_params
        asked, tokens = query.getlist("character"), wire.tokens(self.rack.codec)
        chosen(self.characters, asked)  # whoever asks for what there is not has not come back
        lost = self.lobby.take_up(query.get("session", ""), now)
        active = asked or (lost.characters if lost else self.settings.characters.active)
        return Session(
            query["session"] if lost else secrets.token_urlsafe(16),
            self.rack,
            Cast(self.rack, self.characters, active),
            self.settings,
            asyncio.get_running_loop().time,
            history=lost.history if lost else None,
            greet=query.get("greet") == "1",
            tokens=tokens,
        )


class _Wire:
    """One socket: what is read from it, and the frames written to it."""

    def __init__(self, socket: WebSocket, subprotocol: str, settings: Settings) -> None:
        self.socket = socket
        self._subprotocol = subprotocol
        self._audio = socket.query_params.get("audio") != "off"
        self._limit = settings.server.message_bytes
        self._clock = asyncio.get_running_loop().time
        self._meter = Meter(settings.server.flood, self._clock())

    def tokens(self, codec: Codec | None) -> Codec | None:
        """The codec for a client that wants its audio as tokens. Raises `LimitError` where it cannot have them."""
        if self.socket.query_params.get("audio") != TOKENS:
            return None
        if self._subprotocol != MSGPACK:
            raise LimitError(f"audio={TOKENS} is for the subprotocol {MSGPACK}", code="unsupported")
        if codec is None:
            raise LimitError(f"audio={TOKENS}: this server has no codec ([codec] engine)", code="unsupported")
        return codec

    async def received(self, session: Session) -> AsyncGenerator[Received, None]:
        """What the client sends, until it leaves. A frame that means nothing comes as the error it is."""
        while True:
            message = await self.socket.receive()
            if message["type"] == "websocket.disconnect":
                return
            frame = message.get("bytes")
            yield (command := self._decoded(message["text"] if frame is None else frame, session.input_rate))
            audio_ms = milliseconds(command, session.input_rate) if isinstance(command, bytes) else MESSAGE_MS
            if wait := self._meter.take(max(FRAME_MS, audio_ms), self._clock()):
                await asyncio.sleep(min(wait, 1.0))

    def _decoded(self, frame: str | bytes, rate: int) -> Received:
        size = len(frame) if isinstance(frame, bytes) else len(frame.encode())
        if size > self._limit:
            text = f"a message of {size} bytes; {self._limit} are allowed (server.message_bytes)"
            raise LimitError(text, code="too_big", close=1009)
        try:
            command = decode(frame, self._subprotocol)
        except ProtocolError as error:
            return error
        return _checked_audio(command, rate) if isinstance(command, bytes) else command

    async def write(self, event: e.Event) -> None:
        if isinstance(event, e.Audio | e.AudioTokens) and not self._audio:
            return
        frame = encode(event, self._subprotocol)
        try:
            await (self.socket.send_bytes(frame) if isinstance(frame, bytes) else self.socket.send_text(frame))
        except (WebSocketDisconnect, RuntimeError):  # gone; the reader learns of it in its own time
            await asyncio.sleep(0)

    async def refuse(self, error: ParleyError) -> None:
        """Say why, then close. A client that does not read is not waited for."""
        ERRORS.labels(error.code).inc()
        code = error.close if isinstance(error, LimitError) else 1008
        with suppress(TimeoutError):
            async with asyncio.timeout(LAST_WORD_S):
                await self.write(e.Error.of(error, fatal=True))
                await self._close(code, str(error))

    async def _close(self, code: int, reason: str) -> None:
        if self.socket.application_state is WebSocketState.CONNECTED:
            with suppress(WebSocketDisconnect, RuntimeError):
                await self.socket.close(code, reason.encode()[:120].decode(errors="ignore"))


def _checked_audio(pcm: bytes, rate: int) -> bytes | ProtocolError:
    if len(pcm) % 2:
        return ProtocolError("audio: an odd number of bytes is not 16-bit PCM")
    if milliseconds(pcm, rate) > 1_000:
        return ProtocolError("audio: more than a second in one frame; cut it into smaller ones")
    return pcm
