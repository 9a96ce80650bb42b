"""Flite, Carnegie Mellon's small synthesiser, in process: American voices, natural enough for a recogniser.

Library: libflite 2.2 (Debian's `libflite1`). It streams, knows when each word sounds, and runs on several threads.
"""

import asyncio
import functools
import unicodedata
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass

from server.audio import SAMPLE, Resampler
from server.errors import TTSError
from server.pipelines.crew import CORES, Crew, Worker
from server.pipelines.engines import Count, Speech, Voice, Word
from server.pipelines.threads import pour
from server.pipelines.timing import later
from server.pipelines.tts import _libflite
from server.pipelines.tts._options import number, one_of
from server.pipelines.tts._pieces import pieces, speakable

RATE = 16_000  # Hz
PIECE = 160  # letters in one call of the library: about 12 s of speech, 0.4 MB
NAMES = ("slt", "rms", "awb", "kal", "kal16")
_LOOKS_LIKE = {
    "‘": "'",
    "’": "'",
    "“": '"',
    "”": '"',
    "–": "-",
    "—": ",",
    "…": ".",
    "×": "x",
    "æ": "e",
    "ø": "o",
    "ß": "s",
}


def create(voice: str = "slt", workers: Count = 20) -> "Flite":
    """`voice`: who speaks where a character names no voice; `workers`: how many utterances may be under way at once.

    Raises `ConfigError` for an unknown voice, `EngineUnavailable` without the library."""
    return Flite(voice, workers)


@dataclass(frozen=True)
class Manner:
    """How to say it: the voice, and factors of its speed and its pitch."""

    voice: str = "slt"
    speed: float = 1.0
    pitch: float = 1.0


class Flite:
    rate = RATE
    streams = 20

    def __init__(self, voice: str, workers: int) -> None:
        self._voice = one_of("flite", "voice", voice, NAMES)
        self._size = workers
        self._crew = Crew[None]()
        _libflite.library()

    async def start(self) -> None:
        for _ in range(self._size):
            self._crew.add(None, Worker("flite", CORES))
        warm = asyncio.get_running_loop().run_in_executor
        await warm(self.worker(), say, "Hello.", Manner(self._voice), lambda speech: True)

    async def stop(self) -> None:
        for _, worker in self._crew.leave():
            worker.shutdown(wait=False, cancel_futures=True)

    def worker(self) -> Worker:
        """Raises `TTSError` where the engine is not running."""
        if member := self._crew.next():
            return member[1]
        raise TTSError("engine 'flite' is not started")

    def voices(self) -> Sequence[str]:
        return NAMES

    def open(self, voice: Voice) -> "FliteSpeaker":
        """`voice.options` may hold `pitch`, a factor. Raises `ConfigError`."""
        name = one_of("flite", "voice", voice.name or self._voice, NAMES)
        pitch = number("flite", voice.options, "pitch", 1, 0.25, 4)
        return FliteSpeaker(self, Manner(name, voice.speed, pitch))


class FliteSpeaker:
    def __init__(self, engine: Flite, manner: Manner) -> None:
        self._engine = engine
        self._manner = manner

    async def speak(self, text: str) -> AsyncGenerator[Speech, None]:
        """Long texts are made a piece at a time, the next one only when the listener has taken it. So a listener who
        pauses keeps no worker, and at most one piece in memory."""
        spoken = 0  # bytes
        for offset, piece in pieces(text, PIECE):
            before = spoken / SAMPLE / RATE * 1000
            async with aclosing(pour(functools.partial(say, piece, self._manner), self._engine.worker())) as made:
                async for speech in made:
                    spoken += len(speech.pcm)
                    yield later(speech, offset, before)

    async def close(self) -> None:
        return None


def say(text: str, manner: Manner, give: Callable[[Speech], bool]) -> None:
    """Speak a short text in this thread; `give` takes the pieces and returns False to stop.

    Raises `EngineUnavailable`."""
    plain = ascii_like(text)
    if not speakable(plain):
        return
    resampler: list[Resampler] = []

    def give_on(pcm: bytes, rate: int, words: tuple[Word, ...], last: bool) -> bool:
        if not resampler:
            resampler.append(Resampler(rate, RATE))
        return give(Speech(resampler[0].push(pcm, last), words))

    _libflite.utter(plain, f"cmu_us_{manner.voice}", manner.speed, manner.pitch, give_on)


def ascii_like(text: str) -> str:
    """`text` in the ASCII that flite can read, character for character, so that positions stay what they are."""
    return "".join(c if " " <= c <= "~" else _ascii(c) for c in text)


def _ascii(char: str) -> str:
    like = _LOOKS_LIKE.get(char.lower()) or unicodedata.normalize("NFKD", char)[:1]
    return like if " " <= like <= "~" else " "
