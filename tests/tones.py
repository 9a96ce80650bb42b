"""A TTS engine whose words are tones that survive a codec: every word is 160 ms of a pitch of its own, so that what
comes out at the far end of several tiers can be read back word by word."""

import asyncio
import zlib
from collections.abc import AsyncGenerator, Sequence

import numpy as np

from server.errors import ConfigError, TTSError
from server.pipelines.engines import Speech, Voice, Word
from tests.fake_codec import GRID, tone

WORD_MS = 160


def index(word: str) -> int:
    """Which pitch stands for a word."""
    return 8 + zlib.crc32(word.strip(".,;:!?").lower().encode()) % 100


def pitches(text: str) -> list[int]:
    return [index(word) for word in text.split()]


def heard(pcm: bytes, rate: int = 48_000) -> list[int]:
    """The pitches in `pcm`, one for each whole 160 ms; -1 for silence."""
    step = rate * WORD_MS // 1000
    samples = np.frombuffer(pcm, "<i2")
    frames = samples[: len(samples) // step * step].reshape(-1, step)
    spectrum = np.abs(np.fft.rfft(frames * np.hanning(step), axis=1))
    best = spectrum.argmax(axis=1) * rate / step / GRID
    return [round(p) - 1 if frame.any() else -1 for p, frame in zip(best, frames, strict=True)]


class ToneTTS:
    """`delay` seconds before a chunk sounds. The voice `bell` has a strong octave. EXPLODE fails, SILENCE is mute."""

    streams = 100

    def __init__(self, rate: int = 24_000, delay: float = 0.0) -> None:
        self.rate, self.delay = rate, delay
        self.open_now = self.speaking = 0
        self.said: list[str] = []
        self.voices_opened: list[Voice] = []
        self.started = False

    async def start(self) -> None:
        self.started = True

    async def stop(self) -> None: ...

    def voices(self) -> Sequence[str]:
        return ("flute", "bell")

    def open(self, voice: Voice) -> "ToneSpeaker":
        if voice.name not in ("", "flute", "bell"):
            raise ConfigError(f"no voice {voice.name!r}; there are: flute, bell")
        self.open_now += 1
        self.voices_opened.append(voice)
        return ToneSpeaker(self, voice)


class ToneSpeaker:
    def __init__(self, engine: ToneTTS, voice: Voice) -> None:
        self._engine, self._voice = engine, voice

    async def speak(self, text: str) -> AsyncGenerator[Speech, None]:
        engine = self._engine
        engine.said.append(text)
        engine.speaking += 1
        try:
            await asyncio.sleep(engine.delay)
            place, at = 0, 0.0
            for word in text.split():
                if word == "EXPLODE":
                    raise TTSError("the voice broke")
                place = text.index(word, place)
                timing = Word(place, place + len(word), at, at + WORD_MS)
                place, at = place + len(word), at + WORD_MS
                octave = 0.8 if self._voice.name == "bell" else 0.0
                if word != "SILENCE":
                    yield Speech(tone(GRID * (index(word) + 1), WORD_MS / 1000, engine.rate, octave=octave), (timing,))
                await asyncio.sleep(0)
        finally:
            engine.speaking -= 1

    async def close(self) -> None:
        self._engine.open_now -= 1


WORDS = [
    "amber",
    "basin",
    "candle",
    "drift",
    "ember",
    "forest",
    "glass",
    "harbor",
    "island",
    "jungle",
    "kettle",
    "lantern",
    "meadow",
    "north",
    "ocean",
    "pepper",
]


def prose(length: int) -> str:
    """A text of exactly `length` characters, in sentences and paragraphs."""
    text, number = "", 0
    while len(text) < length:
        sentence = " ".join(WORDS[(number * 7 + n * n) % len(WORDS)] for n in range(5 + number % 9))
        text += sentence.capitalize() + "." + ("\n\n" if number % 6 == 5 else " ")
        number += 1
    cut = text[:length]
    return cut[:-1] + "." if not cut[-1].isalnum() else cut
