"""`POST /api/tts/synthesize`: the back end. Speech for another server, chunk by chunk, a JSON object a line."""

import json
import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from server.access import client_of
from server.errors import ParleyError
from server.http.tiers.bodies import full, read_json, refusal, request_id
from server.http.tiers.delivery import Delivery
from server.http.tiers.measures import CHUNKS, STREAMS
from server.pipelines.tiers import requests
from server.pipelines.tiers.backend import Backend

log = logging.getLogger("parley.backend")


class Synthesize:
    """The endpoint. `longest`: characters of a text; `streams`: how many at once."""

    def __init__(self, backend: Backend, longest: int, streams: int) -> None:
        self._backend, self._longest, self._streams = backend, longest, streams
        self._running = 0

    async def __call__(self, request: Request) -> Response:
        id = request_id(request)
        try:
            asked = replace(requests.request(await read_json(request), self._longest), client=client_of(request))
            self._backend.check(asked)
            self._begin()
        except ParleyError as error:
            _over("refused", error.code, id, str(error))
            return refusal(error, "backend", id)
        return Delivery(
            self._lines(asked) if asked.stream else self._whole(asked),
            "application/x-ndjson" if asked.stream else "application/json",
            {"X-Request-Id": id, "Cache-Control": "no-cache, no-transform", "X-Accel-Buffering": "no"},
            lambda error: refusal(error, "backend", id),
            lambda end, told: self._end(asked.format, end, id, told),
        )

    def _begin(self) -> None:
        if self._running >= self._streams:
            raise full(self._streams)
        self._running += 1

    def _end(self, what: str, end: str, id: str, told: str) -> None:
        self._running -= 1
        _over(what, end, id, told)

    async def _whole(self, asked: requests.Request) -> AsyncGenerator[bytes, None]:
        yield _line(await self._backend.batch(asked))

    async def _lines(self, asked: requests.Request) -> AsyncGenerator[bytes, None]:
        begun = False
        try:
            async with aclosing(self._backend.stream(asked)) as messages:
                async for message in messages:
                    begun = True
                    CHUNKS.labels("backend").inc()
                    yield _line(message)
        except ParleyError as error:
            if not begun:
                raise
            yield _line({"status": "error", "error": str(error), "code": error.code})


def _line(message: dict[str, Any]) -> bytes:
    return json.dumps(message, separators=(",", ":")).encode() + b"\n"


def _over(what: str, end: str, id: str, told: str) -> None:
    STREAMS.labels("backend", what, end).inc()
    log.info("synthesized", extra={"fields": {"request": id, "format": what, "end": end, "why": told}})
