"""`/ws/tts/stream`: text in as it comes, audio out, at once and interruptible.

A connection has at most one stream that takes text. One that was closed is said to its end before the next begins; one
that is cancelled, or replaced by `init`, is silent at once.
"""

import asyncio
from collections.abc import Callable
from contextlib import aclosing
from functools import partial
from typing import Any

from starlette.requests import HTTPConnection
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket

from server.access import accepted, client_of
from server.errors import EngineBusy, LimitError, ParleyError, ProtocolError
from server.incoming import given
from server.pipelines.narrator import plain
from server.pipelines.quoting import quoted
from server.pipelines.studio import Studio
from server.telemetry import ERRORS, log
from server.ws.spoken import Init, Spoken, Text
from server.ws.wire import Wire, told

IDLE_S = 30.0  # a stream that nobody touches for so long ends
WAITING = 64  # streams that were closed and are not yet said, of one connection

Allowed = Callable[[HTTPConnection], bool]


def routes(
    studio: Studio, *, sockets: int = 256, idle_s: float = IDLE_S, allowed: Allowed = lambda connection: True
) -> list[WebSocketRoute]:
    """The endpoint. `sockets`: how many at once; `idle_s`: how long a stream waits for text."""
    open_now: set[WebSocket] = set()

    def check(socket: WebSocket) -> None:
        if not allowed(socket):
            raise LimitError("a token is needed: ?token=..., or Authorization: Bearer ...", code="unauthorized")
        if len(open_now) >= sockets:
            raise LimitError(
                f"{sockets} clients are connected; try again later", code="full", close=1013, retry_after=5
            )

    async def speech(socket: WebSocket) -> None:
        await socket.accept(accepted(socket.scope.get("subprotocols", [])))
        async with Wire(socket) as wire:
            try:
                check(socket)
            except LimitError as error:
                return await wire.refuse(error)
            open_now.add(socket)
            try:
                await Connection(studio, wire, idle_s).run()
            finally:
                open_now.discard(socket)
        return None

    return [WebSocketRoute("/ws/tts/stream", speech)]


class Connection:
    """One client: what it says, and the streams that are said to it one after the other."""

    def __init__(self, studio: Studio, wire: Wire, idle_s: float) -> None:
        self._studio, self._wire, self._idle_s = studio, wire, idle_s
        self._clock = asyncio.get_running_loop().time
        self._touched = self._clock()
        self._init: Init | ParleyError = Init()
        self._streams: list[Spoken] = []  # the last one may still take text
        self._broken: asyncio.Future[ParleyError] = asyncio.get_running_loop().create_future()

    async def run(self) -> None:
        """Until the client leaves, or cannot be served."""
        reading = asyncio.create_task(self._read())
        ends: list[asyncio.Future[Any]] = [reading, self._broken]
        try:
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            if self._broken.done() and not reading.done():
                await self._wire.refuse(self._broken.result())
        finally:
            reading.cancel()
            await asyncio.wait([reading])
            await self._stop(self._streams)
        if not reading.cancelled():
            reading.result()

    async def _read(self) -> None:
        async with aclosing(self._wire.messages()) as messages:
            async for message in messages:
                self._touched = self._clock()
                try:
                    if isinstance(message, ProtocolError):
                        raise message
                    await self._obey(message)
                except LimitError as error:
                    if error.code == "not_reading":
                        return self._give_up(error)
                    self._tell(error)
                except ParleyError as error:
                    self._tell(error)
        return None

    async def _obey(self, message: dict[str, Any]) -> None:
        match message.get("type"):
            case "init":
                await self._begin(message)
            case "text":
                self._say(given(Text, message))
            case "close":
                if stream := self._live():
                    stream.close()
            case "cancel":
                await self._cancel()
            case "ping":
                self._wire.tell({"type": "pong"})
            case other:
                raise ProtocolError(f"unknown type {quoted(other)}; there are: init, text, close, cancel, ping")

    async def _begin(self, message: dict[str, Any]) -> None:
        """A new stream in place of the one that takes text. Those that were closed are still said."""
        init = given(Init, message)
        if stream := self._live():
            await self._stop([stream])
            self._wire.drop(stream)
        self._init = init
        try:
            self._open(init)
        except LimitError:
            raise
        except ParleyError as error:
            self._init = error
            self._tell(error, fatal=True)

    def _say(self, text: Text) -> None:
        if not plain(text.text).strip():  # emoji alone are nothing to say, either
            return None
        if isinstance(self._init, ParleyError):  # not in a voice that was never asked for
            return self._tell(self._init, fatal=True)
        (self._live() or self._open(self._init)).add(text)
        return None

    def _live(self) -> Spoken | None:
        """The stream that takes text, if there is one."""
        last = self._streams[-1] if self._streams else None
        return last if last and not last.closed else None

    def _open(self, init: Init) -> Spoken:
        """Raises `ConfigError` for a voice or language that does not exist, `LimitError` where too many wait."""
        if len(self._streams) >= WAITING:
            raise LimitError(f"{WAITING} streams are waiting to be said", code="too_many")
        booth, voice = self._studio.find(
            init.voice or "", model=init.model or "", language=init.language or "", speed=init.speed
        )
        stream = Spoken(init, booth, voice, self._idle_s, lambda: self._touched)
        before = [s.task for s in self._streams if s.task]
        self._streams.append(stream)
        stream.task = asyncio.create_task(self._speak(stream, before))
        return stream

    async def _cancel(self) -> None:
        streams, wanted = list(self._streams), isinstance(self._init, Init) and "cancelled" in self._init.events
        await self._stop(streams)
        self._wire.drop()
        if wanted:
            for stream in streams:
                self._wire.tell({"type": "cancelled", "stream_id": stream.id})

    async def _stop(self, streams: list[Spoken]) -> None:
        tasks = [stream.task for stream in streams if stream.task]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        self._streams = [stream for stream in self._streams if stream not in streams]

    async def _speak(self, stream: Spoken, before: list[asyncio.Task[None]]) -> None:
        """Say everything of `stream`, after the streams before it."""
        try:
            if before:
                await asyncio.wait(before)
            await stream.say(self._studio, partial(self._wire.put, stream), client_of(self._wire.socket))
        except EngineBusy as error:
            self._give_up(error)
        except ParleyError as error:
            ERRORS.labels(error.code).inc()
            await self._wire.put(stream, told(error, fatal=True))
        except Exception as error:
            log.exception("a voice stream failed")
            await self._wire.put(stream, told(ParleyError(f"internal error: {type(error).__name__}"), fatal=True))
        finally:
            stream.closed = True
            if stream in self._streams:
                self._streams.remove(stream)

    def _tell(self, error: ParleyError, *, fatal: bool = False) -> None:
        ERRORS.labels(error.code).inc()
        self._wire.tell(told(error, fatal=fatal))

    def _give_up(self, error: ParleyError) -> None:
        if not self._broken.done():
            self._broken.set_result(error)
