"""The middleware: a text and a service's name in, PCM at 48 kHz out.

`POST stream` as it is made, `POST batch` as one WAV, `GET services`, `GET streams/{id}` how one goes.
"""

import logging
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from server.access import client_of
from server.audio import wav_header
from server.errors import ParleyError, ProtocolError
from server.http.tiers.bodies import full, read_json, refusal, request_id
from server.http.tiers.delivery import Delivery
from server.http.tiers.measures import AUDIO, CHUNKS, STREAMS, stage
from server.http.tiers.progress import Ledger, Progress
from server.pipelines.codec._tokens import RATE
from server.pipelines.tiers.relay import Relay, Wanted
from server.pipelines.tiers.requests import text
from server.pipelines.tiers.services import TierRules

log = logging.getLogger("parley.middleware")

DISABLED = {"error": "Streaming is disabled", "message": "Set ENABLE_STREAMING=true to enable", "code": "disabled"}
UNBUFFERED = {
    "Cache-Control": "no-cache, no-transform",
    "Connection": "keep-alive",
    "X-Accel-Buffering": "no",
    "X-Sample-Rate": str(RATE),
}


class Middleware:
    """The endpoints."""

    def __init__(self, relay: Relay, rules: TierRules) -> None:
        self._relay, self._rules, self._ledger = relay, rules, Ledger()

    async def stream(self, request: Request) -> Response:
        id = request_id(request)
        if not self._rules.streaming:
            STREAMS.labels("middleware", "", "disabled").inc()
            told = {"X-Request-Id": id, "Cache-Control": "no-store"}
            return JSONResponse(DISABLED | {"tier": "middleware", "requestId": id}, 503, told)
        try:
            wanted = await self._admitted(request, id, stream=True)
        except ParleyError as error:
            return self._refused(error, id)
        progress = self._ledger.open(id, wanted.service)
        return Delivery(
            self._pcm(wanted, progress),
            "audio/octet-stream",
            {**UNBUFFERED, "X-Request-Id": id},
            lambda error: refusal(error, "middleware", id),
            lambda end, told: _over(progress, id, end, told),
        )

    async def batch(self, request: Request) -> Response:
        """The whole speech as a WAV file."""
        id = request_id(request)
        try:
            wanted = await self._admitted(request, id, stream=False)
        except ParleyError as error:
            return self._refused(error, id)
        progress = self._ledger.open(id, wanted.service)
        return Delivery(
            self._wav(wanted, progress),
            "audio/wav",
            {"X-Request-Id": id, "Cache-Control": "no-store"},
            lambda error: refusal(error, "middleware", id),
            lambda end, told: _over(progress, id, end, told),
        )

    async def services(self, request: Request) -> Response:
        services = [
            {"name": name, "kind": service.kind, "format": service.format}
            for name, service in self._rules.services.items()
        ]
        return JSONResponse(
            {"streaming": self._rules.streaming, "longest": self._rules.longest, "rate": RATE, "services": services}
        )

    async def progress(self, request: Request) -> Response:
        progress = self._ledger.get(request.path_params["id"])
        if progress is None:
            return JSONResponse({"error": "no such stream", "code": "unknown"}, 404)
        return JSONResponse(progress.told(), headers={"Cache-Control": "no-store"})

    async def _admitted(self, request: Request, id: str, stream: bool) -> Wanted:
        body = await read_json(request)
        if not isinstance(body, Mapping):
            raise ProtocolError('a JSON object is needed: {"text", "voice", "service"}')
        said = text(body, self._rules.longest)
        voice, service = _named(body, "voice"), _named(body, "service")
        wanted = Wanted(said, voice, service, stream, id=id, client=client_of(request))
        self._relay.check(wanted.service)
        if self._ledger.running() >= self._rules.streams:
            raise full(self._rules.streams)
        return wanted

    async def _pcm(self, wanted: Wanted, progress: Progress) -> AsyncGenerator[bytes, None]:
        def observe(name: str, seconds: float) -> None:
            stage(name, seconds)
            if name in ("first_chunk", "chunk"):
                CHUNKS.labels("middleware").inc()
                progress.chunks += 1

        async with aclosing(self._relay.pcm(wanted, observe)) as pieces:
            async for pcm in pieces:
                first = progress.first_ms is None
                progress.sent(pcm)
                if first and progress.first_ms is not None:
                    stage("first_byte", progress.first_ms / 1000)
                AUDIO.labels(wanted.service).inc(len(pcm))
                yield pcm

    async def _wav(self, wanted: Wanted, progress: Progress) -> AsyncGenerator[bytes, None]:
        async with aclosing(self._pcm(wanted, progress)) as pieces:
            held = [pcm async for pcm in pieces]  # all of it first: what fails on the way has a status of its own
        yield wav_header(sum(map(len, held)), RATE)
        for pcm in held:
            yield pcm

    def _refused(self, error: ParleyError, id: str) -> Response:
        STREAMS.labels("middleware", "", error.code).inc()
        return refusal(error, "middleware", id)


def _named(body: Mapping[str, Any], name: str) -> str:
    value = body.get(name)
    if not isinstance(value, str) or not value.strip() or len(value) > 200:
        raise ProtocolError(f"{name}: required, a string of at most 200 characters")
    return value


def _over(progress: Progress, id: str, end: str, told: str) -> None:
    progress.end, progress.message = end, told
    STREAMS.labels("middleware", progress.service, end).inc()
    fields = {"request": id} | {k: v for k, v in progress.told().items() if k != "status"}
    (log.info if end in ("ok", "left") else log.warning)("stream", extra={"fields": fields})
