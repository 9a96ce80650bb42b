"""Pocket TTS, Kyutai's 100 million parameters for one core of a CPU: streaming, and any voice from a recording.

Library: pocket-tts 4 on torch. Weights and voices come from a model hub at the first start and are kept, or from local
files. It tells no word timings.
"""

import asyncio
import functools
import importlib
import importlib.util
import threading
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any

from server.audio import Resampler, to_pcm
from server.errors import ConfigError, EngineUnavailable, TTSError
from server.pipelines.crew import Worker
from server.pipelines.engines import Count, Speech, Voice
from server.pipelines.quoting import brief
from server.pipelines.threads import pour
from server.pipelines.tts._options import one_of
from server.pipelines.tts._pieces import pieces, speakable

RATE = 24_000  # Hz
PIECE = 300  # letters in one call of the library: about 20 s of speech, 1 MB
STATES = 32  # voices kept ready, some MB each; then the one used least recently is dropped
_MEND = "run `pocket-tts generate` once with a connection, or set [tts] config to a local model's YAML file"


def create(
    language: str = "english",
    config: str = "",
    voice: str = "alba",
    temperature: float | None = None,
    quantize: bool = False,
    streams: Count = 2,
) -> "PocketTTS":
    """`language`: a released model (`english`, `french_24l`), or `config`: the YAML file of another; `voice`: where a
    character names none, by name or the path of a recording; `temperature`: the model's own by default; `quantize`: in
    8 bits; `streams`: how many utterances this machine carries in real time. Raises `EngineUnavailable`."""
    if not importlib.util.find_spec("pocket_tts"):
        raise EngineUnavailable("engine 'pocket_tts' is not installed: pip install -e '.[pocket]'")
    model = {"config": config} if config else {"language": language}
    return PocketTTS(model | {"temp": temperature, "quantize": quantize}, voice, streams)


class PocketTTS:
    rate = RATE

    def __init__(self, model: dict[str, Any], voice: str, streams: int) -> None:
        self.streams = streams
        self._settings = model
        self._voice = voice
        self._worker: Worker | None = None
        self._model: Any = None
        self._names: tuple[str, ...] = ()
        self._state = functools.lru_cache(STATES)(self._condition)

    async def start(self) -> None:
        """Raises `EngineUnavailable` where model or voice cannot be had."""
        self._worker = Worker("pocket-tts")
        try:
            await asyncio.get_running_loop().run_in_executor(self._worker, self._load)
        except BaseException:
            await self.stop()
            raise

    def _load(self) -> None:
        try:
            self._model = importlib.import_module("pocket_tts").TTSModel.load_model(**self._settings)
            if "config" not in self._settings:  # the released voices fit the released models only
                utils = importlib.import_module("pocket_tts.utils.utils")
                self._names = tuple(sorted(utils._ORIGINS_OF_PREDEFINED_VOICES))
            self.make("Hello.", self._source(Voice()), lambda speech: True)
        except ConfigError:
            raise
        except Exception as error:
            reason = str(error).partition("\n")[0] or type(error).__name__
            raise EngineUnavailable(f"engine 'pocket_tts' cannot be loaded ({reason}); {_MEND}") from error

    async def stop(self) -> None:
        worker, self._worker = self._worker, None
        if worker:
            worker.shutdown(wait=False, cancel_futures=True)
        self._state.cache_clear()
        self._model = None

    @property
    def worker(self) -> Worker:
        """Raises `TTSError` where the engine is not running."""
        if self._worker:
            return self._worker
        raise TTSError("engine 'pocket_tts' is not started")

    def voices(self) -> Sequence[str]:
        """Known once the engine has started: they belong to the model."""
        return self._names or (self._voice,)

    def open(self, voice: Voice) -> "PocketSpeaker":
        """`voice.name` is a released voice or the path of a recording; a voice to clone has a `reference`.

        Raises `ConfigError`."""
        return PocketSpeaker(self, self._source(voice))

    def _source(self, voice: Voice) -> str | Path:
        name = voice.reference or voice.name or self._voice
        if Path(name).is_file():
            return Path(name)
        if voice.reference or Path(name).suffix:
            raise ConfigError(f"pocket_tts: there is no recording {brief(str(name))}")
        return one_of("pocket_tts", "voice", str(name), self._names) if self._model else str(name)

    def _condition(self, source: str | Path) -> Any:
        """The model's state after hearing the voice: slow, so it is kept."""
        return self._model.get_state_for_audio_prompt(source, truncate=True)

    def make(self, text: str, source: str | Path, give: Callable[[Speech], bool]) -> None:
        """In the worker's thread. The library's own threads run on to the end of their frame when `give` wants no more;
        they are waited for, because two utterances at once in one model disturb each other."""
        stop = threading.Event()
        resampler = Resampler(self._model.sample_rate, RATE)
        for samples in self._model.generate_audio_stream(self._state(source), text, stop=stop):
            if not stop.is_set() and not give(Speech(resampler.push(to_pcm(samples.numpy())))):
                stop.set()
        if not stop.is_set() and (rest := resampler.push(b"", last=True)):
            give(Speech(rest))


class PocketSpeaker:
    def __init__(self, engine: PocketTTS, source: str | Path) -> None:
        self._engine = engine
        self._source = source

    async def speak(self, text: str) -> AsyncGenerator[Speech, None]:
        """Long texts are made a piece at a time, the next one only when the listener has taken it. So a listener who
        pauses keeps no worker, and at most one piece in memory."""
        try:
            for _, piece in pieces(text, PIECE):
                if speakable(piece):
                    job = functools.partial(self._engine.make, piece, self._source)
                    async with aclosing(pour(job, self._engine.worker)) as made:
                        async for speech in made:
                            yield speech
        except TTSError:
            raise
        except Exception as error:
            raise TTSError(f"pocket-tts failed: {error}") from error

    async def close(self) -> None:
        return None
