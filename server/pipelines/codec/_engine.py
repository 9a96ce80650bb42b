"""The codec around a network: levels, rates and lengths, windows, and the embeddings of voices.

Nothing is lost on the way: what is encoded is filled up with silence to whole tokens and cut to length again when it
is decoded; its level is taken out (a codec hears everything at full level) and put back.
"""

import asyncio
from collections import OrderedDict
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from pathlib import Path

import numpy as np

from server.audio import SAMPLE, read_wav, resample, to_float, to_pcm
from server.errors import CodecError, ConfigError
from server.pipelines.codec._tokens import (
    RATE,
    SOURCE_RATE,
    SOURCE_SPAN,
    Tokens,
    check,
    check_embedding,
    length,
    padded,
)
from server.pipelines.codec._windows import Seams, Shape, Windows, plan
from server.pipelines.codec._worker import Network, Worker
from server.pipelines.engines import Coded, Samples

SILENCE = 1e-4  # a peak below which nothing is said; to bring that to full level would make noise of it
PIECE = 360 * SOURCE_SPAN  # samples encoded in one pass, 28.8 s: attention costs the square of the length
VOICES = 64  # embeddings kept
WINDOWS = Shape()


class BatchedCodec:
    """A `Codec` on any `Network`: shared by all sessions, one thread, requests of equal length joined.

    `whole`: up to so many tokens are decoded in one pass; longer ones in windows, so that nobody waits for minutes
    of somebody else's speech."""

    rate = RATE

    def __init__(
        self, network: Network, *, shape: Shape = WINDOWS, whole: int = 256, batch: int = 16, name: str = "codec"
    ) -> None:
        self.name = name
        self._shape, self._whole = shape, whole
        self.worker = Worker(network, batch)
        self._voices: OrderedDict[tuple[str, int, int], Samples] = OrderedDict()

    async def start(self) -> None:
        await self.worker.load()

    def files(self) -> list[str]:
        """Where the model lies, file by file, with its size; for `doctor`."""
        return list(getattr(self.worker.network, "files", list)())

    async def stop(self) -> None:
        await self.worker.close()

    async def encode(self, pcm: bytes, rate: int, embedding: Samples | None = None, gain: float | None = None) -> Coded:
        if len(pcm) < SAMPLE:
            raise CodecError("nothing to encode")
        samples, peak = await asyncio.to_thread(_prepare, pcm, rate, gain)
        tokens: list[Tokens] = []
        for begin in range(0, len(samples), PIECE):
            found, own = await self.worker.encode(samples[begin : begin + PIECE])
            tokens.append(found)
            embedding = own if embedding is None else embedding
        assert embedding is not None
        together = np.concatenate(tokens)
        return Coded(together, embedding, min(_at(len(pcm) // SAMPLE, rate), length(len(together))), peak)

    async def decode(self, coded: Coded) -> bytes:
        tokens, embedding = check(coded.tokens), check_embedding(coded.embedding)
        if len(tokens) <= self._whole:
            audio = await self.worker.decode(tokens, embedding)
        else:
            seams = Seams(self._shape.fade)
            pieces = [
                seams.join(window, await self.worker.decode(window.tokens, embedding))
                for window in plan(tokens, self._shape)
            ]
            audio = np.concatenate(pieces)
        return await asyncio.to_thread(_level, audio[: coded.samples], coded.gain)

    async def pieces(self, coded: Coded) -> AsyncGenerator[bytes, None]:
        """As `decode`, but what is longer than a pass comes window by window."""
        if len(coded.tokens) <= self._whole:
            yield await self.decode(coded)
            return
        left = coded.samples if coded.samples is not None else length(len(coded.tokens))
        async with aclosing(self.stream(_once(check(coded.tokens)), coded.embedding, coded.gain)) as stream:
            async for pcm in stream:
                yield pcm[: left * SAMPLE]
                left = max(0, left - len(pcm) // SAMPLE)

    async def stream(
        self, tokens: AsyncIterator[Sequence[int]], embedding: Samples, gain: float = 1.0
    ) -> AsyncGenerator[bytes, None]:
        embedding = check_embedding(embedding)
        windows, seams = Windows(self._shape), Seams(self._shape.fade)
        async for some in tokens:
            for window in windows.push(check(some)):
                yield _level(seams.join(window, await self.worker.decode(window.tokens, embedding)), gain)
        for window in windows.finish():
            yield _level(seams.join(window, await self.worker.decode(window.tokens, embedding)), gain)

    async def embedding(self, reference: Path) -> Samples:
        try:
            key = await asyncio.to_thread(_version, reference)
            if key not in self._voices:
                pcm, rate = read_wav(await asyncio.to_thread(reference.read_bytes))
                if not pcm:
                    raise ValueError("no sound in it")
                self._keep(key, (await self.encode(pcm[: PIECE * SAMPLE], rate)).embedding)
        except (OSError, ValueError) as error:
            raise ConfigError(f"voice reference {reference}: {error}") from None
        self._voices.move_to_end(key)
        return self._voices[key]

    async def convert(self, pcm: bytes, rate: int, embedding: Samples | None = None) -> bytes:
        return await self.decode(await self.encode(pcm, rate, embedding))

    def _keep(self, key: tuple[str, int, int], embedding: Samples) -> None:
        self._voices[key] = embedding
        while len(self._voices) > VOICES:
            self._voices.popitem(last=False)


def _version(file: Path) -> tuple[str, int, int]:
    """Where a file is and which state of it."""
    stat = file.stat()
    return str(file.resolve()), stat.st_mtime_ns, stat.st_size


def _at(samples: int, rate: int) -> int:
    """`samples` at `rate` Hz in samples at 48 kHz."""
    return round(samples * RATE / rate)


def _prepare(pcm: bytes, rate: int, gain: float | None) -> tuple[Samples, float]:
    """float32 at 24 kHz, at full level, filled up to whole tokens; and what its peak was."""
    samples = to_float(resample(pcm, rate, SOURCE_RATE))
    peak = gain if gain is not None else float(np.abs(samples).max(initial=0.0))
    if peak < SILENCE:
        peak = 1.0
    full = np.zeros(padded(len(samples)), np.float32)
    full[: len(samples)] = np.clip(samples / peak, -1, 1)
    return full, peak


def _level(audio: Samples, gain: float) -> bytes:
    return to_pcm(audio * np.float32(gain))


async def _once(tokens: Tokens) -> AsyncGenerator[Sequence[int], None]:
    yield tokens  # type: ignore[misc]
