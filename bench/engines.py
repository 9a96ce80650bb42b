"""Engines of known delay that cost next to nothing, so that what is measured is the server around them.

Every word lasts `WORD_MS` and has a timing; speech is a tone, and whatever is loud is speech.
"""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass

import numpy as np

from server.pipelines.engines import LLMSettings, Message, Samples, Speech, Transcript, Voice, Word
from server.rack import Rack

WORD_MS = 200.0
RATE = 24_000  # Hz
SAID = "tell me about the sea"
REPLY = (
    "The sea is wide and old. It has carried more stories than ships and more ships than anybody has counted. "
    "Ask it a question and it answers with a wave."
)
LOUD = 0.02
TONE = (3_000 * np.sin(np.arange(int(RATE * WORD_MS / 1000)) / 20)).astype("<i2").tobytes()


@dataclass(frozen=True)
class Delays:
    """Seconds each engine takes: the final text, the first token, the first audio."""

    stt: float = 0.02
    llm: float = 0.1
    tts: float = 0.05

    @property
    def total(self) -> float:
        return self.stt + self.llm + self.tts


class _Engine:
    name = "bench"
    notice = ""

    def __init__(self, delay: float = 0.0) -> None:
        self.delay = delay

    async def start(self) -> None:
        return None

    async def stop(self) -> None:
        return None


class Loudness(_Engine):
    """Voice activity: the middle sample, and a few more, tell whether a frame is loud."""

    def open(self) -> "Loudness":
        return self

    async def push(self, frame: Samples) -> float:
        return float(np.abs(frame[::16]).max() > LOUD)

    def reset(self) -> None:
        return None


class Listener(_Engine):
    """Hears `SAID`, whatever is said; its first words after 300 ms of it."""

    def open(self, language: str) -> "Listening":
        return Listening(self.delay)


class Listening:
    def __init__(self, delay: float) -> None:
        self._delay, self._bytes, self._told = delay, 0, False

    async def feed(self, pcm: bytes) -> str | None:
        self._bytes += len(pcm)
        if self._told or self._bytes < 16_000 * 2 * 0.6:  # with what preceded it
            return None
        self._told = True
        return SAID

    async def peek(self) -> Transcript:
        await asyncio.sleep(self._delay)
        return Transcript(SAID)

    async def finish(self) -> Transcript:
        text = await self.peek()
        await self.reset()
        return text

    async def reset(self) -> None:
        self._bytes, self._told = 0, False

    async def close(self) -> None:
        return None


class Talker(_Engine):
    """Says `REPLY`: its first sentence at once when the first token is there, then a hundred words a second."""

    async def stream(self, messages: Sequence[Message], settings: LLMSettings) -> AsyncGenerator[str, None]:
        await asyncio.sleep(self.delay)
        for number, word in enumerate(REPLY.split(" ")):
            yield word + " "
            if number > 6:
                await asyncio.sleep(0.01)


class Singer(_Engine):
    """A tone for every word, ten times faster than it sounds."""

    rate = RATE
    streams = 1_000

    def voices(self) -> Sequence[str]:
        return ()

    def open(self, voice: Voice) -> "Singing":
        return Singing(self.delay)


class Singing:
    def __init__(self, delay: float) -> None:
        self._delay = delay

    async def speak(self, text: str) -> AsyncGenerator[Speech, None]:
        await asyncio.sleep(self._delay)
        place = 0
        for number, word in enumerate(text.split()):
            place = text.index(word, place)
            at = number * WORD_MS
            yield Speech(TONE, (Word(place, place + len(word), at, at + WORD_MS),))
            place += len(word)
            await asyncio.sleep(WORD_MS / 10_000)

    async def close(self) -> None:
        return None


def rack(delays: Delays) -> Rack:
    return Rack(vad=Loudness(), stt=Listener(delays.stt), llm=Talker(delays.llm), tts=Singer(delays.tts))
