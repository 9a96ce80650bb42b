"""The back end: text in; chunk by chunk speech of any engine, as codec tokens or PCM at 48 kHz, as soon as it is ready.

While one chunk is encoded and sent, the next is already spoken. All chunks of a voice carry one embedding, taken from
the first that is long enough: the voice stays the same and is computed once.
"""

import asyncio
import base64
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from server.audio import SAMPLE, milliseconds, resample
from server.errors import EngineUnavailable, TTSError
from server.pipelines.admission import Admission
from server.pipelines.codec._tokens import RATE, length, to_wire
from server.pipelines.engines import TTS, Codec, Coded, Samples, Speaker, Voice
from server.pipelines.queued import Queued
from server.pipelines.tiers.ahead import ahead
from server.pipelines.tiers.chunks import Audio
from server.pipelines.tiers.requests import Request
from server.pipelines.tiers.split import split

Pick = Callable[[str, str, Mapping[str, Any]], tuple[TTS, Voice]]
"""(voice, engine, voice options) -> the engine and the voice. Raises `ConfigError` for one that does not exist."""
Queue = Callable[[Voice], Admission]
"""The queue before the engine of a voice."""
Observe = Callable[[str, float], None]
"""(stage, seconds)"""


def unobserved(stage: str, seconds: float) -> None:
    """Nobody counts."""


NO_CODEC = "no codec is configured here: set [codec] engine, or ask for output_format pcm_16"
LONG_ENOUGH_MS = 1_000  # of speech, to take a voice's embedding from
VOICES = 64  # whose embeddings are kept; one that has long not spoken is computed anew


@dataclass(frozen=True)
class Spoken:
    """One chunk of the text, as the engine spoke it."""

    pcm: bytes
    rate: int
    seconds: float  # that it took


@dataclass(frozen=True, eq=False)
class Made:
    """One chunk, encoded: what is sent of it, and what it took."""

    spoken: Spoken
    coded: Coded | None
    encode_ms: float


class Backend:
    """Makes speech for others. `codec` None: PCM only, brought to 48 kHz by resampling. `queue` None: nobody else wants
    the engines."""

    def __init__(
        self,
        pick: Pick,
        codec: Codec | None,
        *,
        max_chars: int = 500,
        first_chars: int = 120,
        observe: Observe = unobserved,
        queue: Queue | None = None,
    ) -> None:
        self._pick, self._codec, self._observe, self._queue = pick, codec, observe, queue
        self._max_chars, self._first_chars = max_chars, first_chars
        self._voices: dict[str, Samples] = {}

    def check(self, request: Request) -> None:
        """Raises what can be known before the first sound: `ConfigError`, `EngineUnavailable`."""
        if request.format == "linacodec_tokens" and self._codec is None:
            raise EngineUnavailable(NO_CODEC)
        self._pick(request.voice, request.engine, request.voice_options)

    async def stream(self, request: Request) -> AsyncGenerator[dict[str, Any], None]:
        """The messages of the plan: one for each chunk, then one that everything is there. Read it within `aclosing`.

        Raises `TTSError`, `CodecError`, and what `check` raises."""
        self.check(request)
        begin, number, tokens, samples = time.monotonic(), 0, 0, 0
        async with aclosing(ahead(self._encoded(request))) as chunks:
            async for made in chunks:
                number += 1
                message = await self._message(request, made)
                tokens += message.get("num_tokens", 0)
                samples += message["num_samples"]
                yield {"status": "streaming", "chunk": number} | message
        yield {
            "status": "complete",
            "format": request.format,
            "message": "All chunks streamed",
            "total_chunks": number,
            "total_tokens": tokens,
            "total_samples": samples,
            "elapsed_time_seconds": round(time.monotonic() - begin, 3),
        }

    async def batch(self, request: Request) -> dict[str, Any]:
        """All of it in one message."""
        self.check(request)
        spoken = [chunk async for chunk in self._spoken(request)]
        rate = spoken[0].rate
        if request.format == "pcm_16":
            pcm = b"".join([await self._pcm(chunk, request) for chunk in spoken])
            sound: dict[str, Any] = {"audio": base64.b64encode(pcm).decode()}
            samples = len(pcm) // SAMPLE
        else:
            sound = to_wire(await self._joined(spoken, request))
            samples = sound["num_samples"]
        return {
            "status": "complete",
            "format": request.format,
            **sound,
            "num_samples": samples,
            "sample_rate": RATE,
            "original_sample_rate": rate,
            "duration": round(samples / RATE, 3),
            "total_chunks": 1,
        }

    async def audio(self, request: Request) -> AsyncGenerator[Audio, None]:
        """The same speech for a listener in this process: PCM as the engine gives it. Read it within `aclosing`."""
        async with aclosing(ahead(self._spoken(request))) as chunks:
            async for chunk in chunks:
                yield Audio(chunk.pcm, chunk.rate)

    async def _spoken(self, request: Request) -> AsyncGenerator[Spoken, None]:
        tts, voice = self._pick(request.voice, request.engine, request.voice_options)
        empty = True
        async with self._speaker(tts, voice, request.client) as speaker:
            most, language = request.max_chars or self._max_chars, voice.language or "en"
            for chunk in split(request.text, most, self._first_chars, language):
                begin, pieces = time.monotonic(), []
                async with aclosing(speaker.speak(chunk)) as speech:
                    async for piece in speech:
                        pieces.append(piece.pcm)
                seconds = time.monotonic() - begin
                self._observe("synthesis", seconds)
                if pcm := b"".join(pieces):
                    empty = False
                    yield Spoken(pcm, tts.rate, seconds)
        if empty:
            raise TTSError("the voice made no sound of this text")

    @asynccontextmanager
    async def _speaker(self, tts: TTS, voice: Voice, client: str) -> AsyncIterator[Speaker]:
        speaker = tts.open(voice)
        async with AsyncExitStack() as stack:
            stack.push_async_callback(speaker.close)
            if self._queue:
                stream = await stack.enter_async_context(self._queue(voice).stream(client))
                speaker = Queued(speaker, tts.rate, stream)
            yield speaker

    async def _encoded(self, request: Request) -> AsyncGenerator[Made, None]:
        async with aclosing(ahead(self._spoken(request))) as chunks:
            async for spoken in chunks:
                begin = time.monotonic()
                coded = await self._encode(spoken, request) if self._codec else None
                yield Made(spoken, coded, (time.monotonic() - begin) * 1000)

    async def _message(self, request: Request, made: Made) -> dict[str, Any]:
        common = {"format": request.format, "sample_rate": RATE, "original_sample_rate": made.spoken.rate}
        if request.format == "linacodec_tokens":
            assert made.coded is not None
            return common | to_wire(made.coded) | {"encode_time_ms": round(made.encode_ms, 2)}
        begin = time.monotonic()
        pcm = await self._decoded(made)
        took = made.encode_ms + (time.monotonic() - begin) * 1000
        sound = await asyncio.to_thread(base64.b64encode, pcm)
        return common | {
            "audio_chunk": sound.decode(),
            "num_samples": len(pcm) // SAMPLE,
            "process_time_ms": round(took, 2),
        }

    async def _decoded(self, made: Made) -> bytes:
        if made.coded is None or self._codec is None:
            return await asyncio.to_thread(resample, made.spoken.pcm, made.spoken.rate, RATE)
        begin = time.monotonic()
        pcm = await self._codec.decode(made.coded)
        self._observe("decode", time.monotonic() - begin)
        return pcm

    async def _pcm(self, chunk: Spoken, request: Request) -> bytes:
        return await self._decoded(Made(chunk, await self._encode(chunk, request) if self._codec else None, 0))

    async def _encode(self, chunk: Spoken, request: Request, gain: float | None = None) -> Coded:
        assert self._codec is not None
        voice = f"{request.engine}\n{request.voice}\n{sorted(request.voice_options.items(), key=str)}"
        begin = time.monotonic()
        coded = await self._codec.encode(chunk.pcm, chunk.rate, self._voices.get(voice), gain)
        self._observe("encode", time.monotonic() - begin)
        if milliseconds(chunk.pcm, chunk.rate) >= LONG_ENOUGH_MS:
            self._voices[voice] = self._voices.pop(voice, coded.embedding)  # used last, forgotten last
            while len(self._voices) > VOICES:
                del self._voices[next(iter(self._voices))]
        return coded

    async def _joined(self, spoken: Sequence[Spoken], request: Request) -> Coded:
        """All chunks as one piece: one level, one voice; each fills up its last pair of tokens with silence."""
        peak = max(float(np.abs(np.frombuffer(c.pcm, "<i2").astype(np.int32)).max()) for c in spoken) / 32768
        first = await self._encode(spoken[0], request, peak)
        coded = [first]
        for chunk in spoken[1:]:
            made = await self._encode(chunk, request, peak)
            coded.append(replace(made, embedding=first.embedding))
        tokens = np.concatenate([c.tokens for c in coded])
        last = length(len(coded[-1].tokens)) - (coded[-1].samples or 0)
        return Coded(tokens, first.embedding, length(len(tokens)) - last, first.gain)
