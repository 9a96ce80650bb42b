"""Engines of known delay whose "speech" can be read back: every word is 200 ms of its own sample value.

So a fake recogniser hears exactly which words were in the audio it was given, and a test sees which words were sent.
"""

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any

import numpy as np

from server.audio import to_pcm
from server.errors import LLMError, STTError, TTSError
from server.pipelines.engines import LLMSettings, Message, Speech, Transcript, Voice, Word
from server.rack import Rack

WORD_MS = 200
RATE = 16_000
FRAME = np.full(1, 0)
_known: dict[str, int] = {}


def code(word: str) -> int:
    """The sample value that stands for `word`."""
    return 2_000 + 7 * _known.setdefault(word, len(_known))


def voice(text: str, rate: int = RATE) -> bytes:
    """`text` as fake speech."""
    length = rate * WORD_MS // 1000
    return b"".join(np.full(length, code(word), "<i2").tobytes() for word in text.split())


def silence(ms: float, rate: int = RATE) -> bytes:
    return bytes(int(ms * rate / 1000) * 2)


def words(pcm: bytes, least: int = 160) -> list[str]:
    """The words in fake speech, in order; runs shorter than `least` samples don't count."""
    names = {value: word for word, value in ((w, code(w)) for w in list(_known))}
    samples = np.frombuffer(pcm, "<i2", len(pcm) // 2)
    if not len(samples):
        return []
    edges = np.flatnonzero(np.diff(samples)) + 1
    runs = np.split(samples, edges)
    return [names[int(run[0])] for run in runs if len(run) >= least and int(run[0]) in names]


class FakeVAD:
    async def start(self) -> None: ...
    async def stop(self) -> None: ...

    def open(self) -> "FakeVAD":
        return self

    async def push(self, frame: Any) -> float:
        return float(np.abs(frame).max() > 0.02)

    def reset(self) -> None: ...


class FakeSTT:
    """Hears fake speech; `delay` seconds for a final text. `misheard`: texts that are others in a lull."""

    def __init__(self, delay: float = 0.0, partials: bool = True, misheard: Mapping[str, str] | None = None) -> None:
        self.delay, self.partials, self.open_now, self.fails = delay, partials, 0, False
        self.misheard = misheard or {}

    async def start(self) -> None: ...
    async def stop(self) -> None: ...

    def open(self, language: str) -> "FakeRecogniser":
        self.open_now += 1
        return FakeRecogniser(self)


class FakeRecogniser:
    def __init__(self, engine: FakeSTT) -> None:
        self._engine, self._pcm, self._told = engine, b"", ""

    async def feed(self, pcm: bytes) -> str | None:
        self._pcm += pcm
        text = " ".join(words(self._pcm, 2_400))
        if text == self._told or not self._engine.partials:
            return None
        self._told = text
        return text

    async def peek(self) -> Transcript:
        heard = (await self._heard()).text
        return Transcript(self._engine.misheard.get(heard, heard))

    async def finish(self) -> Transcript:
        try:
            return await self._heard()
        finally:
            await self.reset()

    async def _heard(self) -> Transcript:
        await asyncio.sleep(self._engine.delay)
        if self._engine.fails:
            raise STTError("the recogniser broke")
        return Transcript(" ".join(words(self._pcm, 1_600)))

    async def reset(self) -> None:
        self._pcm, self._told = b"", ""

    async def close(self) -> None:
        self._engine.open_now -= 1


class FakeLLM:
    """Says its replies in turn, a word every `delay` seconds; an exception among them is raised in its place."""

    notice = ""
    name = "fake"

    def __init__(self, *replies: str | Exception, delay: float = 0.01, first: float = 0.05) -> None:
        self.replies = list(replies) or ["Well then."]
        self.seen: list[list[Message]] = []
        self.open_now, self.closed, self.produced = 0, 0, 0
        self.delay, self.first = delay, first
        self._next = 0

    async def start(self) -> None: ...
    async def stop(self) -> None: ...

    async def stream(self, messages: Sequence[Message], settings: LLMSettings) -> AsyncGenerator[str, None]:
        self.seen.append(list(messages))
        reply = self.replies[min(self._next, len(self.replies) - 1)]
        self._next += 1
        self.open_now += 1
        try:
            await asyncio.sleep(self.first)
            if isinstance(reply, Exception):
                raise reply
            for word in reply.split(" "):
                if word == "BOOM":
                    raise LLMError("died in mid-sentence")
                self.produced += 1
                yield word + " "
                await asyncio.sleep(self.delay)
        finally:
            self.open_now -= 1
            self.closed += 1


class FakeTTS:
    """Fake speech with word timings, in pieces of 40 ms made `speed` times faster than real time."""

    name = "fake"
    streams = 100

    def __init__(self, rate: int = RATE, delay: float = 0.02, speed: float = 20.0, timings: bool = True) -> None:
        self.rate, self.delay, self.speed, self.timings = rate, delay, speed, timings
        self.open_now, self.speaking, self.said = 0, 0, list[str]()

    async def start(self) -> None: ...
    async def stop(self) -> None: ...

    def voices(self) -> Sequence[str]:
        return ()

    def open(self, voice: Voice) -> "FakeSpeaker":
        self.open_now += 1
        return FakeSpeaker(self, voice)


class FakeSpeaker:
    def __init__(self, engine: FakeTTS, voice: Voice) -> None:
        self._engine, self.voice = engine, voice

    async def speak(self, text: str) -> AsyncGenerator[Speech, None]:
        engine = self._engine
        if "EXPLODE" in text:
            raise TTSError("the voice broke")
        engine.said.append(text)
        engine.speaking += 1
        try:
            await asyncio.sleep(engine.delay)
            place, at = 0, 0.0
            for word in text.split():
                place = text.index(word, place)
                timing = Word(place, place + len(word), at, at + WORD_MS)
                place, at = place + len(word), at + WORD_MS
                pcm = voice(word.strip(".,!?").lower(), engine.rate)
                for i in range(0, len(pcm), engine.rate * 2 * 40 // 1000):
                    piece = pcm[i : i + engine.rate * 2 * 40 // 1000]
                    yield Speech(piece, (timing,) if i == 0 and engine.timings else ())
                    await asyncio.sleep(len(piece) / 2 / engine.rate / engine.speed)
        finally:
            engine.speaking -= 1

    async def close(self) -> None:
        self._engine.open_now -= 1


def rack(llm: FakeLLM | None = None, tts: FakeTTS | None = None, stt: FakeSTT | None = None, **more: Any) -> Rack:
    """A rack of fakes, ready."""
    made = Rack(more.pop("vad", None) or FakeVAD(), stt or FakeSTT(), llm or FakeLLM(), tts or FakeTTS(), **more)  # type: ignore[arg-type]
    made.ready = True
    return made


def hum(ms: float, level: float = 0.1) -> bytes:
    """A sound without words: loud enough for the VAD, in no vocabulary."""
    return to_pcm(np.full(int(ms * 16), level, np.float32))
