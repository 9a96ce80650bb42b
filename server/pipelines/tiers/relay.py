"""A service's speech as PCM at 48 kHz: asked for, waited for within limits, decoded here or forwarded.

While one chunk is decoded and heard, the next is already fetched.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

import httpx

from server.audio import SAMPLE, Resampler
from server.errors import ConfigError, EngineUnavailable, UpstreamError
from server.pipelines.codec._tokens import RATE
from server.pipelines.engines import Codec, Coded
from server.pipelines.quoting import quoted
from server.pipelines.tiers.ahead import ahead
from server.pipelines.tiers.backend import Backend, Observe, unobserved
from server.pipelines.tiers.chunks import Audio, Complete, Part
from server.pipelines.tiers.clients import parts
from server.pipelines.tiers.requests import Request
from server.pipelines.tiers.runpod import Endpoint
from server.pipelines.tiers.services import Service, TierRules

DEPTH = 2  # chunks fetched ahead


@dataclass(frozen=True)
class Wanted:
    """What a listener asks for."""

    text: str
    voice: str
    service: str
    stream: bool = True
    voice_options: Mapping[str, Any] = field(default_factory=dict)
    id: str = ""  # of the request, for the logs of all tiers
    client: str = ""  # whom to be fair to


class Relay:
    """Speech of every configured service. `backend` is what the service `local` speaks with."""

    def __init__(
        self, rules: TierRules, http: httpx.AsyncClient, codec: Codec | None = None, backend: Backend | None = None
    ) -> None:
        self._rules, self._http, self._backend = rules, http, backend
        self.codec = codec

    def check(self, name: str) -> Service:
        """The service called `name`. Raises `ConfigError` for one there is not, `EngineUnavailable` for one that
        cannot be understood here."""
        service = self._rules.services.get(name)
        if service is None:
            there = ", ".join(self._rules.services) or "none"
            raise ConfigError(f"service: no {quoted(name)}; there are: {there}")
        if service.kind != "local" and service.format == "linacodec_tokens" and self.codec is None:
            raise EngineUnavailable(f"service {name!r} sends tokens and no codec is configured: set [codec] engine")
        if service.kind == "local" and self._backend is None:
            raise EngineUnavailable(f"service {name!r}: this server has no voice of its own")
        return service

    async def pcm(self, wanted: Wanted, observe: Observe = unobserved) -> AsyncGenerator[bytes, None]:
        """16-bit PCM at 48 kHz, as soon as it can be heard. Read it within `aclosing`: closing it stops the service.

        Raises `UpstreamError` (late, dead, garbled, refused, mute), and what `check` raises."""
        mute = True
        async with aclosing(self._pieces(self.check(wanted.service), wanted, observe)) as pieces:
            async for pcm in pieces:
                if pcm:
                    mute = False
                    yield pcm
        if mute:
            raise UpstreamError("the service sent no speech", code="upstream_garbled")

    async def _pieces(self, service: Service, wanted: Wanted, observe: Observe) -> AsyncGenerator[bytes, None]:
        """A piece may be empty."""
        patience, forward = _Patience(service, self._rules, wanted.stream), _Forward()
        async with aclosing(ahead(self._parts(service, wanted), DEPTH)) as source:
            while not isinstance(part := await patience.next(source, observe), Complete):
                patience.begun = True
                if isinstance(part, Audio):
                    async with aclosing(forward.push(part)) as forwarded:
                        async for pcm in forwarded:
                            yield pcm
                    continue
                yield forward.finish()
                async with aclosing(self._decoded(part, observe)) as decoded:
                    while (pcm := await patience.within(anext(decoded, None))) is not None:
                        yield pcm
            yield forward.finish()

    def _parts(self, service: Service, wanted: Wanted) -> AsyncGenerator[Part, None]:
        if service.kind == "local":
            return self._local(service, wanted)
        body = _body(service, wanted)
        if service.kind != "runpod":
            return parts(self._http, service, body, wanted.id)
        endpoint = Endpoint(self._http, service)
        return endpoint.parts(body) if wanted.stream else endpoint.batch(body)

    async def _local(self, service: Service, wanted: Wanted) -> AsyncGenerator[Part, None]:
        assert self._backend is not None
        asked = Request(
            wanted.text, wanted.voice, service.engine, True, "pcm_16", wanted.voice_options, client=wanted.client
        )
        async with aclosing(self._backend.audio(asked)) as audio:
            async for piece in audio:
                yield piece
        yield Complete()

    async def _decoded(self, coded: Coded, observe: Observe) -> AsyncGenerator[bytes, None]:
        assert self.codec is not None
        begin = time.monotonic()
        async with aclosing(self.codec.pieces(coded)) as pieces:
            async for pcm in pieces:
                observe("decode", time.monotonic() - begin)
                yield pcm
                begin = time.monotonic()


class _Forward:
    """Audio of any rate at 48 kHz, without a seam where it was cut into pieces."""

    def __init__(self) -> None:
        self._rate = 0
        self._resampler: Resampler | None = None

    async def push(self, audio: Audio) -> AsyncGenerator[bytes, None]:
        """In pieces that take no time to resample, so that others of this process are served in between."""
        if audio.rate == RATE:
            yield self.finish() + audio.pcm
            return
        if audio.rate != self._rate:
            yield self.finish()
        if self._resampler is None:
            self._rate, self._resampler = audio.rate, Resampler(audio.rate, RATE)
        for at in range(0, len(audio.pcm), audio.rate * SAMPLE):
            second = audio.pcm[at : at + audio.rate * SAMPLE]
            yield await asyncio.to_thread(self._resampler.push, second)

    def finish(self) -> bytes:
        resampler, self._resampler = self._resampler, None
        return resampler.push(b"", last=True) if resampler else b""


class _Patience:
    """How long may still be waited, for the next chunk and for all of it. A listener who reads slowly costs nothing."""

    def __init__(self, service: Service, rules: TierRules, stream: bool) -> None:
        self._left = service.total_timeout_s or rules.total_timeout_s
        self._chunk = (service.chunk_timeout_s or rules.chunk_timeout_s) if stream else self._left
        self._first = service.first_timeout_s or self._chunk
        self.begun = False

    async def next(self, source: AsyncGenerator[Part, None], observe: Observe) -> Part:
        begin = time.monotonic()
        part: Part = await self.within(anext(source))
        if not isinstance(part, Complete):
            observe("chunk" if self.begun else "first_chunk", time.monotonic() - begin)
        return part

    async def within(self, step: Any) -> Any:
        """`step`, or `UpstreamError` when it takes too long."""
        limit = min(self._left, self._chunk if self.begun else self._first)
        loop = asyncio.get_running_loop()
        begin = loop.time()
        try:
            async with asyncio.timeout(limit):
                return await step
        except TimeoutError:
            all_of_it = limit == self._left
            what = "the speech is not complete" if all_of_it else "no chunk came"
            raise UpstreamError(f"{what} after {limit:g} s", code="upstream_timeout", status=504) from None
        finally:
            self._left = max(0.001, self._left - (loop.time() - begin))


def _body(service: Service, wanted: Wanted) -> dict[str, Any]:
    body = {
        "text": wanted.text,
        "voice": wanted.voice,
        "stream": wanted.stream,
        "output_format": service.format,
        "sample_rate": RATE,
    }
    if service.kind != "parley":
        return body | {"service": wanted.service}
    body["stream"] = True  # also for a batch, which is put together here: no message grows with the text
    options = {"voice_options": dict(wanted.voice_options)} if wanted.voice_options else {}
    return body | ({"engine": service.engine} if service.engine else {}) | options
