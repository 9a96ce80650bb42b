"""`/v1/audio/*`: text to speech over HTTP, in OpenAI's words and in those of the streaming TTS servers before us."""

from collections.abc import Callable, Sequence
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from server.access import client_of
from server.http.asked import Allowed, body, guarded
from server.http.streams import Stream, refusal
from server.http.utterance import NDJSON, SSE, Streamed, Take, Utterance, lines
from server.pipelines.encoders import FORMATS
from server.pipelines.narrator import PRESETS
from server.pipelines.quoting import quoted
from server.pipelines.studio import Studio

QUICK_S = 0.1  # what an engine makes whole in about this time is sent whole, so that its length can be told


def routes(
    studio: Studio, *, models: Callable[[], Sequence[str]] = tuple, allowed: Allowed = lambda connection: True
) -> list[Route]:
    """The endpoints. `models`: what else `/v1/models` lists; `allowed`: whether a client may use them."""

    async def speech(request: Request) -> Response:
        asked = await body(request, Utterance)
        return await _answer(Take(studio, asked, client_of(request)), asked)

    async def stream(request: Request) -> Response:
        asked = (await body(request, Streamed)).model_copy(update={"response_format": "pcm"})
        take = Take(studio, asked, client_of(request), asked.sizes)
        return _told(take, asked.stream_format) or Stream(take.audio(), take.head())

    async def voices(request: Request) -> Response:
        return JSONResponse({"voices": studio.catalogue()})

    async def config(request: Request) -> Response:
        return JSONResponse(_config(studio))

    async def listed(request: Request) -> Response:
        return JSONResponse({"object": "list", "data": [_model(name) for name in (*studio.booths, *models())]})

    async def model(request: Request) -> Response:
        name = request.path_params["name"]
        if name not in (*studio.booths, *models()):
            return refusal(f"The model {quoted(name)} does not exist", 404, "model_not_found")
        return JSONResponse(_model(name))

    guard = guarded(allowed)
    return [
        Route("/v1/audio/speech", guard(speech), methods=["POST"]),
        Route("/v1/audio/speech/stream", guard(stream), methods=["POST"]),
        Route("/v1/audio/voices", guard(voices)),
        Route("/v1/audio/config", guard(config)),
        Route("/v1/models", guard(listed)),
        Route("/v1/models/{name:path}", guard(model)),
    ]


async def _answer(take: Take, asked: Utterance) -> Response:
    if events := _told(take, asked.stream_format):
        return events
    if asked.stream_format == "audio":
        return Stream(take.audio(), take.head(), whole=not take.format.streams)
    quick = len(asked.input.split()) * 0.4 / take.booth.engine.streams <= QUICK_S
    return Stream(take.audio(), take.head(), whole=quick or not take.format.streams or asked.response_format is None)


def _told(take: Take, form: str | None) -> Response | None:
    """Its events, where they are asked for."""
    match form:
        case "sse":
            return Stream(lines(take.events(), SSE), take.head("text/event-stream"))
        case "ndjson":
            return Stream(lines(take.events(), NDJSON), take.head("application/x-ndjson"))
    return None


def _model(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "parley"}


def _config(studio: Studio) -> dict[str, Any]:
    return {
        "sample_rate": studio.default.engine.rate,
        "channels": 1,
        "encoding": "pcm_s16le",
        "voices": studio.named(),
        "languages": studio.languages(),
        "formats": list(FORMATS),
        "presets": {name: [p.first, p.later, p.overlap] for name, p in PRESETS.items()},
        "engines": {
            b.name: {"sample_rate": b.engine.rate, "streams": b.engine.streams} for b in studio.booths.values()
        },
    }
