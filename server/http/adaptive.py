"""`/v1/tts/stream*`: text posted as it comes, its audio read from another request, in segments that grow."""

import uuid
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Annotated, Any

from pydantic import BaseModel, Field
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from server.access import client_of
from server.errors import ProtocolError
from server.http.asked import Allowed, body, guarded
from server.http.running import Piece, Running, Shelf, now, spoken
from server.http.streams import Stream, refusal
from server.http.utterance import NDJSON, SSE, delta, done, lines, words_told
from server.pipelines.adaptive import Adaptive, State
from server.pipelines.quoting import brief, quoted
from server.pipelines.studio import Studio


class Asked(BaseModel):
    voice: str | None = None
    model: str | None = None
    language: str | None = None
    speed: Annotated[float, Field(ge=0.25, le=4)] | None = None
    sample_rate: Annotated[int, Field(ge=8_000, le=48_000)] | None = None


class Text(BaseModel):
    text: str


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
        stream = Running(str(uuid.uuid4()), booth, voice, asked.sample_rate or booth.engine.rate, Adaptive(now()))
        self._shelf.add(stream, now())
        url = f"/v1/tts/stream/{stream.id}/audio"
        return JSONResponse({"stream_id": stream.id, "audio_url": url, "sample_rate": stream.rate})

    async def append(self, request: Request) -> Response:
        text = (await body(request, Text)).text
        if isinstance(stream := self._find(request), Response):
            return stream
        try:
            stream.adaptive.append(text, now())
        except ProtocolError as error:
            raise ProtocolError(f"Stream {stream.id} {error}") from None
        stream.news.set()
        return JSONResponse({"status": "accepted"}, 202)

    async def close(self, request: Request) -> Response:
        if isinstance(stream := self._find(request), Response):
            return stream
        stream.adaptive.close(now())
        stream.news.set()
        return JSONResponse({"status": "closed"})

    async def cancel(self, request: Request) -> Response:
        if isinstance(stream := self._find(request), Response):
            return stream
        stream.adaptive.end(State.CANCELLED, now())
        stream.news.set()
        self._shelf.remove(stream)
        return JSONResponse({"status": "cancelled"})

    async def status(self, request: Request) -> Response:
        stream = self._find(request)
        return stream if isinstance(stream, Response) else JSONResponse(stream.status(now()))

    async def audio(self, request: Request) -> Response:
        if request.method == "HEAD":  # it can be had once, and is made only then
            return Response(status_code=405, headers={"Allow": "GET"})
        form = request.query_params.get("stream_format", "audio")
        if form not in ("audio", "sse", "ndjson"):
            raise ProtocolError(f"unknown stream_format {quoted(form)}; there are: audio, sse, ndjson")
        if isinstance(stream := self._find(request), Response):
            return stream
        if stream.read:
            return refusal(f"the audio of stream {stream.id} is read already", 409, "read_already")
        stream.read, stream.adaptive.touched = True, now()
        audio = spoken(self._studio, stream, client_of(request), self._shelf.idle_s)
        match form:
            case "sse":
                made, media = lines(_events(stream, audio), SSE), "text/event-stream"
            case "ndjson":
                made, media = lines(_events(stream, audio), NDJSON), "application/x-ndjson"
            case _:
                made, media = _audio(audio), "audio/pcm"
        return Stream(made, lambda length: _head(stream, media), eager=not stream.adaptive.pending)

    def _find(self, request: Request) -> Running | Response:
        id = request.path_params["id"]
        try:
            return self._shelf.find(id, now())
        except LookupError:
            return refusal(f"Stream {brief(id)} not found", 404, "not_found")


async def _audio(spoken: AsyncGenerator[Piece, None]) -> AsyncGenerator[bytes, None]:
    async with aclosing(spoken) as pieces:
        async for piece in pieces:
            if piece.pcm:
                yield piece.pcm


async def _events(stream: Running, spoken: AsyncGenerator[Piece, None]) -> AsyncGenerator[dict[str, Any], None]:
    async with aclosing(spoken) as pieces:
        async for piece in pieces:
            if piece.words:
                yield words_told(piece.words)
            if piece.pcm:
                yield delta(piece.pcm)
    yield done(stream.adaptive.listener.sent_ms)


def _head(stream: Running, media: str) -> dict[str, str]:
    return {
        "Content-Type": media,
        "X-Sample-Rate": str(stream.rate),
        "X-Channels": "1",
        "X-Encoding": "pcm_s16le",
        "X-Engine": stream.booth.name,
        "Cache-Control": "no-store",
    }
