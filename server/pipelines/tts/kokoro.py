"""Kokoro, 82 million parameters on onnxruntime: natural voices without a GPU.

Library: kokoro-onnx 0.6 (its phonemes come from espeak-ng). It makes a piece of text at a time, not a stream; models
exported with durations also tell when each word sounds.
"""

import asyncio
import importlib
import importlib.util
import itertools
from collections.abc import AsyncGenerator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from server.audio import SAMPLE, Resampler, to_pcm
from server.errors import EngineUnavailable, TTSError
from server.pipelines.engines import Count, Speech, Voice
from server.pipelines.threads import pull
from server.pipelines.timing import later
from server.pipelines.tts._options import number, one_of
from server.pipelines.tts._pieces import pieces, speakable
from server.pipelines.tts._words import matched

RATE = 24_000  # Hz
PIECE = 160  # letters made in one go: ten seconds of speech, and the wait for its first sound
_CODES = "a=en-us b=en-gb e=es f=fr-fr h=hi i=it j=ja p=pt-br z=cmn"
_LANGUAGES = dict(code.split("=") for code in _CODES.split())  # by the first letter of a voice's name
_WHERE = "the files kokoro-v1.0.onnx and voices-v1.0.bin are in the kokoro-onnx project's release 'model-files-v1.0'"


def create(
    model: str = "", voices: str = "", voice: str = "af_heart", threads: int = 0, streams: Count = 1
) -> "Kokoro":
    """`model`, `voices`: the files' paths; `voice`: where a character names none; `threads` of onnxruntime, 0: its own
    choice; `streams`: how many utterances this machine carries in real time. Raises `EngineUnavailable`."""
    if not importlib.util.find_spec("kokoro_onnx"):
        raise EngineUnavailable("engine 'kokoro' is not installed: pip install -e '.[kokoro]'")
    return Kokoro(_file("model", model), _file("voices", voices), voice, threads, streams)


class Kokoro:
    rate = RATE

    def __init__(self, model: Path, voices: Path, voice: str, threads: int, streams: int) -> None:
        self.streams = streams
        self._model_file, self._voices_file = model, voices
        self._threads = threads
        self._names = _names(voices)
        self._voice = one_of("kokoro", "voice", voice, self._names)
        self._worker: ThreadPoolExecutor | None = None
        self._model: Any = None
        self._styles: dict[str, Any] = {}

    async def start(self) -> None:
        self._worker = ThreadPoolExecutor(1, "kokoro")
        run = asyncio.get_running_loop().run_in_executor
        try:
            await run(self._worker, self._load)
            await run(self._worker, lambda: list(self.make("Hello.", self._voice, 1.0, "en-us")))
        except BaseException:
            await self.stop()
            raise

    def _load(self) -> None:
        library = importlib.import_module("kokoro_onnx")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self._threads
        try:
            providers = importlib.import_module("kokoro_onnx.session").resolve_providers()
            session = onnxruntime.InferenceSession(str(self._model_file), options, providers=providers)
            self._model = library.Kokoro.from_session(session, str(self._voices_file))
            self._styles = {name: self._model.get_voice_style(name) for name in self._names}
        except Exception as error:
            raise EngineUnavailable(f"engine 'kokoro' cannot read {self._model_file} ({error}); {_WHERE}") from error

    async def stop(self) -> None:
        worker, self._worker = self._worker, None
        if worker:
            worker.shutdown(wait=False, cancel_futures=True)
        self._model, self._styles = None, {}

    @property
    def worker(self) -> ThreadPoolExecutor:
        """Raises `TTSError` where the engine is not running."""
        if self._worker:
            return self._worker
        raise TTSError("engine 'kokoro' is not started")

    def voices(self) -> Sequence[str]:
        return self._names

    def open(self, voice: Voice) -> "KokoroSpeaker":
        """`voice.options` may hold `language` (`en-gb`), else the voice's name tells it. Raises `ConfigError`."""
        name = one_of("kokoro", "voice", voice.name or self._voice, self._names)
        speed = number("kokoro", {"speed": voice.speed}, "speed", 1.0, 0.5, 2.0)
        return KokoroSpeaker(self, name, speed, str(voice.options.get("language") or _LANGUAGES.get(name[0], "en-us")))

    def make(self, text: str, voice: str, speed: float, language: str) -> Iterator[Speech]:
        """In the worker's thread: a piece of speech per piece of text."""
        spoken = 0  # bytes
        for offset, piece in pieces(text, PIECE):
            if not speakable(piece) or not (phonemes := self._model.tokenizer.phonemize(piece, language)):
                continue
            samples, rate, timings = self._model.create_timed(phonemes, self._styles[voice], speed, is_phonemes=True)
            pcm = Resampler(rate, RATE).push(to_pcm(samples), last=True)
            before = spoken / SAMPLE / RATE * 1000
            spoken += len(pcm)
            yield later(Speech(pcm, matched(piece, _words(timings))), offset, before)


class KokoroSpeaker:
    def __init__(self, engine: Kokoro, voice: str, speed: float, language: str) -> None:
        self._engine = engine
        self._how = voice, speed, language

    async def speak(self, text: str) -> AsyncGenerator[Speech, None]:
        """A piece is made when it is asked for, so a listener who pauses keeps no worker."""
        try:
            async with aclosing(pull(partial(self._engine.make, text, *self._how), self._engine.worker)) as made:
                async for speech in made:
                    yield speech
        except TTSError:
            raise
        except Exception as error:
            raise TTSError(f"kokoro failed: {error}") from error

    async def close(self) -> None:
        return None


def _words(timings: Sequence[Any]) -> list[tuple[float, float]]:
    """When each group of phonemes between spaces sounds, in ms."""
    groups = [list(group) for space, group in itertools.groupby(timings, lambda t: t.phoneme.isspace()) if not space]
    spoken = [sounds for group in groups if (sounds := [t for t in group if t.phoneme.isalpha()])]
    return [(sounds[0].start * 1000, sounds[-1].end * 1000) for sounds in spoken]


def _file(option: str, path: str) -> Path:
    if path and Path(path).is_file():
        return Path(path)
    what = f"there is no file {path}" if path else "it is not set"
    raise EngineUnavailable(f"engine 'kokoro' needs [tts] {option}, but {what}; {_WHERE}")


def _names(voices: Path) -> tuple[str, ...]:
    try:
        with np.load(voices) as styles:
            return tuple(sorted(styles.files))
    except (OSError, ValueError, AttributeError) as error:
        raise EngineUnavailable(f"engine 'kokoro' cannot read [tts] voices {voices} ({error}); {_WHERE}") from None
