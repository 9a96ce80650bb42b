"""Speech recognition by pocketsphinx, in processes of its own. Its wheel carries a model of US English.

Source: pocketsphinx (BSD)."""

import importlib.util
from collections.abc import Callable

from server.errors import ConfigError, EngineUnavailable, STTError
from server.pipelines.engines import Transcript
from server.pipelines.stt._pool import Pool, default_workers
from server.pipelines.stt._process import Job
from server.pipelines.stt._utterance import SECOND, Utterance, VoiceMean


def create(
    workers: int = 0,
    streams: int = 3,
    maxhmmpf: int = 10_000,
    maxwpf: int = 20,
    hmm: str = "",
    lm: str = "",
    dictionary: str = "",
) -> "PocketSphinx":
    """`workers`: processes (0: one for each core but one, 4 at most). `streams`: decoders in each, 90 MB apiece; who
    speaks while all are taken is heard a little later. `maxhmmpf`, `maxwpf`: how far a frame is searched; 3000 and 10
    save a third of the time and cost two words in a hundred. `hmm`, `lm`, `dictionary`: paths of another model."""
    if workers < 0 or streams < 1:
        raise ConfigError("[stt] workers must be 0 or more and streams 1 or more")
    if importlib.util.find_spec("pocketsphinx") is None:
        raise EngineUnavailable("[stt] engine = 'pocketsphinx' needs a package; run: pip install pocketsphinx")
    paths = {"hmm": hmm, "lm": lm, "dict": dictionary}
    options = {"fwdflat": False, "maxhmmpf": maxhmmpf, "maxwpf": maxwpf, **{k: v for k, v in paths.items() if v}}
    return PocketSphinx(Pool(workers or default_workers(), streams, options), english=not hmm)


class PocketSphinx:
    """The engine: a pool of worker processes. `dropped_ms` counts audio that waited too long for a decoder."""

    def __init__(self, pool: Pool, english: bool) -> None:
        self.pool = pool
        self._english = english
        self.dropped_ms = 0.0

    async def start(self) -> None:
        await self.pool.start()

    async def stop(self) -> None:
        await self.pool.stop()

    def open(self, language: str) -> "PocketSphinxRecogniser":
        """Raises `ConfigError` for a language the model does not know."""
        if self._english and language.lower() not in ("", "auto") and language.lower().split("-")[0] != "en":
            raise ConfigError(f"[stt] pocketsphinx hears English only, not {language!r}; take another engine")
        return PocketSphinxRecogniser(self)


class PocketSphinxRecogniser:
    """Speech recognition of one speaker. Confidence is None: what pocketsphinx gives out does not tell right from
    wrong.

    `feed` never waits. Who feeds faster than real time (a whole file) awaits `peek` every minute, which does."""

    def __init__(self, engine: PocketSphinx) -> None:
        self._engine = engine
        self._mean = VoiceMean()
        self._begin()

    def _begin(self) -> None:
        self._job = Job(Utterance(self._mean))
        self._told = ""

    async def feed(self, pcm: bytes) -> str | None:
        """Take PCM at 16 kHz; what is known of the text so far, or None if that has not changed. Raises `STTError`."""
        utterance = self._job.utterance
        dropped = utterance.dropped
        utterance.push(pcm)
        self._engine.dropped_ms += (utterance.dropped - dropped) / SECOND * 1000
        self._engine.pool.pump(self._job)
        self._check(self._job)
        if utterance.text == self._told:
            return None
        self._told = utterance.text
        return utterance.text

    async def peek(self) -> Transcript:
        """The text of all that was fed. Raises `STTError`."""
        utterance = self._job.utterance
        await self._until(lambda: utterance.settled)
        return Transcript(utterance.text)

    async def finish(self) -> Transcript:
        """End the utterance: its final text. Raises `STTError`."""
        utterance = self._job.utterance
        try:
            utterance.end()
            await self._until(lambda: utterance.result is not None)
            return Transcript(utterance.result or "")
        finally:
            await self.reset()  # cancelled or failed, it is over as well

    async def reset(self) -> None:
        self._job.error = "the utterance was dropped"
        self._engine.pool.release(self._job)
        self._job.changed.set()
        self._begin()

    async def close(self) -> None:
        await self.reset()

    async def _until(self, done: Callable[[], bool]) -> None:
        job = self._job
        while True:
            self._engine.pool.pump(job)
            self._check(job)
            if done():
                return
            job.changed.clear()
            await job.changed.wait()

    def _check(self, job: Job) -> None:
        if job.error:
            if job is self._job:
                self._begin()
            raise STTError(job.error)
