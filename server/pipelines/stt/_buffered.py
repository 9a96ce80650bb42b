"""Recognition by engines that take whole recordings: the audio is kept, and transcribed when it is asked for."""

import asyncio
from collections.abc import Awaitable, Callable

import numpy as np

from server.audio import SAMPLE, to_float
from server.pipelines.engines import FRAME, HEARING_RATE, Samples, Transcript

SHORTEST_MS = 100.0  # less than this is nothing anybody could have said
LONGEST_MS = 120_000.0  # of one utterance; beyond, the oldest is dropped and counted
HUSH = 0.1  # what stays 20 dB below the loudest of the utterance is no more speech
ADVANCE = 0.5  # of its interval a partial text may take to make; a slower engine makes none

BYTES_MS = HEARING_RATE * SAMPLE / 1000  # bytes a millisecond

Transcribe = Callable[[bytes], Awaitable[Transcript]]
"""PCM at 16 kHz -> its text. Raises `STTError`. Cancelling it gives up the text."""


def loudness(samples: Samples) -> float:
    """Root mean square of the loudest frame."""
    whole = samples[: len(samples) // FRAME * FRAME].reshape(-1, FRAME)
    frames = whole if len(whole) else samples[None]
    return float(np.sqrt((frames**2).mean(axis=1)).max()) if samples.size else 0.0


class BufferedRecogniser:
    """Speech recognition of one stream, by an engine that `transcribe`s recordings.

    A transcription that was begun early (`peek`, or a partial) is the final text if nothing but silence came after
    it. `partial_ms` is how often the text so far is made while somebody speaks (0: never), as long as the engine is
    `idle` and fast enough."""

    def __init__(
        self, transcribe: Transcribe, *, partial_ms: float = 0.0, idle: Callable[[], bool] = lambda: True
    ) -> None:
        self._transcribe = transcribe
        self._interval = partial_ms * BYTES_MS
        self._idle = idle
        self._task: asyncio.Task[Transcript] | None = None
        self._took_s = 0.0  # the last transcription
        self.dropped_ms = 0.0
        self._forget()

    def _forget(self) -> None:
        self._audio = bytearray()
        self._seen = 0  # bytes that `_task` was given
        self._told = ""

    async def feed(self, pcm: bytes) -> str | None:
        """Take PCM at 16 kHz; a text so far that has become known since, or None."""
        self._audio += pcm
        if (excess := len(self._audio) - int(LONGEST_MS * BYTES_MS)) > 0:
            excess += excess % SAMPLE
            del self._audio[:excess]
            self._seen = max(0, self._seen - excess)
            self.dropped_ms += excess / BYTES_MS
        text = self._partial()
        if text is None or text == self._told:
            return None
        self._told = text
        return text

    def _partial(self) -> str | None:
        """The newest text there is; begins to make another when it is time."""
        task = self._task
        if task and not task.done():
            return None
        quick = self._took_s * 1000 * BYTES_MS < ADVANCE * self._interval
        if 0 < self._interval <= len(self._audio) - self._seen and quick and self._idle():
            self._begin()
        return task.result().text if task and not task.cancelled() and not task.exception() else None

    async def peek(self) -> Transcript:
        """The text of all that was fed. Raises `STTError`."""
        if len(self._audio) < SHORTEST_MS * BYTES_MS:
            return Transcript("")
        if not self._current():
            await self._drop()
            self._begin()
        assert self._task
        return await asyncio.shield(self._task)  # who stops waiting for it does not stop it: `finish` may want it

    async def finish(self) -> Transcript:
        """End the utterance: its text. Raises `STTError`."""
        try:
            return await self.peek()
        finally:
            await self.reset()

    async def reset(self) -> None:
        self._forget()
        await self._drop()

    async def close(self) -> None:
        await self.reset()

    def _begin(self) -> None:
        self._seen = len(self._audio)
        self._task = asyncio.create_task(self._timed(bytes(self._audio)))
        self._task.add_done_callback(lambda task: task.cancelled() or task.exception())  # seen, if nobody asks

    async def _timed(self, pcm: bytes) -> Transcript:
        loop = asyncio.get_running_loop()
        began = loop.time()
        transcript = await self._transcribe(pcm)
        self._took_s = loop.time() - began
        return transcript

    def _current(self) -> bool:
        """Whether the transcription under way or made last is that of all speech."""
        task = self._task
        if task is None or (task.done() and (task.cancelled() or task.exception())):
            return False
        heard, since = to_float(bytes(self._audio[: self._seen])), to_float(bytes(self._audio[self._seen :]))
        return loudness(since) <= HUSH * loudness(heard)

    async def _drop(self) -> None:
        task, self._task = self._task, None
        if task and not task.done():
            task.cancel()
            await asyncio.wait([task])
