"""`/v1/tts/stream*`: text posted as it comes, its audio read from another request, in segments that grow."""

import asyncio
import uuid
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Annotated, Any

from pydantic import BaseModel, Field
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from server.access import client_of
from server.audio import milliseconds
from server.errors import EngineBusy, ParleyError, ProtocolError
from server.http.asked import Allowed, body, guarded
from server.http.streams import Stream
from server.pipelines.adaptive import Adaptive, State
from server.pipelines.engines import Voice
from server.pipelines.narrator import PRESETS, Chunks, Narrator
from server.pipelines.studio import Booth, Studio

IDLE_S = 30.0  # without a sign of life of either side
STREAMS = 256  # at once
CHUNK = 4_096  # bytes, of a segment made in one go


class Asked(BaseModel):
    voice: str | None = None
    model: str | None = None
    language: str | None = None
    speed: Annotated[float, Field(ge=0.25, le=4)] | None = None
    sample_rate: Annotated[int, Field(ge=8_000, le=48_000)] | None = None


class Text(BaseModel):
    text: str


@dataclass(eq=False)
class Running:
    """A stream between its requests. `news` wakes whoever reads its audio."""

    id: str
    booth: Booth
    voice: Voice
    rate: int
    adaptive: Adaptive
    news: asyncio.Event = field(default_factory=asyncio.Event)
    read: bool = False  # somebody reads its audio, or has

    def status(self, now: float) -> dict[str, Any]:
        state = self.adaptive
        return {
            "stream_id": self.id,
            "state": state.state.value,
            "buffer_ms": round(state.listener.ahead_ms(now)),
            "audio_ms": round(state.listener.sent_ms),
            "segments": state.segments,
            "pending_chars": state.pending,
            "idle_s": round(max(0.0, now - max(state.touched, state.listener.dry_at)), 1),
            **({"error": state.error} if state.error else {}),
        }


class Shelf:
    """The streams there are. The idle ones are cleared away whenever somebody comes, so none is ever found expired."""

    def __init__(self, idle_s: float = IDLE_S, limit: int = STREAMS) -> None:
        self.idle_s, self.limit = idle_s, limit
        self._streams: dict[str, Running] = {}

    def __len__(self) -> int:
        return len(self._streams)

    def add(self, stream: Running, now: float) -> None:
        """Raises `EngineBusy` when there are too many."""
        self.sweep(now)
        if len(self._streams) >= self.limit:
            raise EngineBusy(f"{self.limit} streams are open; close some", retry_after=self.idle_s)
        self._streams[stream.id] = stream

    def find(self, id: str, now: float) -> Running:
        """Raises `LookupError` for a stream that does not exist (any more)."""
        self.sweep(now)
        return self._streams[id]

    def remove(self, stream: Running) -> None:
        self._streams.pop(stream.id, None)

    def sweep(self, now: float) -> None:
        for stream in [s for s in self._streams.values() if s.adaptive.expired(now, self.idle_s)]:
            stream.adaptive.end(State.CANCELLED, now, "idle")
            stream.news.set()
            self.remove(stream)


def routes(studio: Studio, shelf: Shelf | None = None, *, allowed: Allowed = lambda connection: True) -> list[Route]:
    """The endpoints; `shelf` holds their streams."""
    service, guard = _Adaptive(studio, Shelf() if shelf is None else shelf), guarded(allowed)
    at = "/v1/tts/stream/{id}"
    return [
        Route("/v1/tts/stream", guard(service.create), methods=["POST"]),
        Route(f"{at}/append", guard(service.append), methods=["POST"]),
        Route(f"{at}/close", guard(service.close), methods=["POST"]),
        Route(f"{at}/audio", guard(service.audio), methods=["GET"]),
        Route(at, guard(service.cancel), methods=["DELETE"]),
        Route(at, guard(service.status), methods=["GET"]),
    ]


class _Adaptive:
    def __init__(self, studio: Studio, shelf: Shelf) -> None:
        self._studio, self._shelf = studio, shelf

    async def create(self, request: Request) -> Response:
        asked = await body(request, Asked)
        booth, voice = self._studio.find(
            asked.voice or "", model=asked.model or "", language=asked.language or "", speed=asked.speed
        )
        stream = Running(str(uuid.uuid4()), booth, voice, asked.sample_rate or booth.engine.rate, Adaptive(_now()))
        self._shelf.add(stream, _now())
        url = f"/v1/tts/stream/{stream.id}/audio"
        return JSONResponse({"stream_id": stream.id, "audio_url": url, "sample_rate": stream.rate})

    async def append(self, request: Request) -> Response:
        text = (await body(request, Text)).text
        if isinstance(stream := self._find(request), Response):
            return stream
        try:
            stream.adaptive.append(text, _now())
        except ProtocolError as error:
            raise ProtocolError(f"Stream {stream.id} {error}") from None
        stream.news.set()
        return JSONResponse({"status": "accepted"}, 202)

    async def close(self, request: Request) -> Response:
        if isinstance(stream := self._find(request), Response):
            return stream
        stream.adaptive.close(_now())
        stream.news.set()
        return JSONResponse({"status": "closed"})

    async def cancel(self, request: Request) -> Response:
        if isinstance(stream := self._find(request), Response):
            return stream
        stream.adaptive.end(State.CANCELLED, _now())
        stream.news.set()
        self._shelf.remove(stream)
        return JSONResponse({"status": "cancelled"})

    async def status(self, request: Request) -> Response:
        stream = self._find(request)
        return stream if isinstance(stream, Response) else JSONResponse(stream.status(_now()))

    async def audio(self, request: Request) -> Response:
        if isinstance(stream := self._find(request), Response):
            return stream
        if stream.read:
            return JSONResponse({"detail": f"the audio of stream {stream.id} is read already"}, 409)
        stream.read = True
        spoken = _spoken(self._studio, stream, client_of(request), self._shelf.idle_s)
        return Stream(spoken, lambda length: _head(stream), eager=not stream.adaptive.pending)

    def _find(self, request: Request) -> Running | Response:
        id = request.path_params["id"]
        try:
            return self._shelf.find(id, _now())
        except LookupError:
            return JSONResponse({"detail": f"Stream {id} not found"}, 404)


async def _spoken(studio: Studio, stream: Running, client: str, idle_s: float) -> AsyncGenerator[bytes, None]:
    """The stream's audio, until it is closed and said, cancelled, or its reader has gone."""
    state = stream.adaptive
    try:
        async with studio.narrator(stream.booth, stream.voice, client=client, rate=stream.rate) as reader:
            async with aclosing(_segments(stream, reader, idle_s)) as audio:
                async for pcm in audio:
                    state.played(milliseconds(pcm, stream.rate), _now())
                    yield pcm
            if state.state is not State.CANCELLED and (last := reader.finish().pcm):
                yield last
        state.end(State.COMPLETED, _now())
    except ParleyError as error:
        state.end(State.ERROR, _now(), str(error))
        raise
    finally:
        state.end(State.CANCELLED, _now())  # where it has ended otherwise, that stands


async def _segments(stream: Running, reader: Narrator, idle_s: float) -> AsyncGenerator[bytes, None]:
    state = stream.adaptive
    while not state.state.over:
        stream.news.clear()
        segment = state.take(_now())
        if segment is None and state.finished:
            return
        if segment is None:
            await _look_again(stream, idle_s)
            continue
        sizes = PRESETS["aggressive"] if state.segments == 1 else PRESETS["balanced"]
        chunks = Chunks.of(sizes, stream.rate) if segment.mode == "stream" else Chunks(CHUNK, CHUNK)
        async with aclosing(reader.say(segment.text)) as pieces:
            async for piece in pieces:
                for chunk in chunks.push(piece.pcm):
                    yield chunk
                if state.state.over:
                    return
        for chunk in chunks.flush():
            yield chunk


async def _look_again(stream: Running, idle_s: float) -> None:
    """Wait until there is more text, or it is time to say what is there, or nobody will come any more."""
    state = stream.adaptive
    give_up = max(state.touched, state.listener.dry_at) + idle_s
    look = state.next_look(_now())
    try:
        async with asyncio.timeout_at(give_up if look is None else look):
            await stream.news.wait()
    except TimeoutError:
        if state.expired(_now(), idle_s):
            state.end(State.CANCELLED, _now(), "idle")


def _head(stream: Running) -> dict[str, str]:
    return {
        "Content-Type": "audio/pcm",
        "X-Sample-Rate": str(stream.rate),
        "X-Channels": "1",
        "X-Encoding": "pcm_s16le",
        "X-Engine": stream.booth.name,
        "Cache-Control": "no-store",
    }


def _now() -> float:
    return asyncio.get_running_loop().time()
