"""A stream of `/ws/tts/stream`: the texts a client wants said one after the other, and their way to its socket."""

import asyncio
import uuid
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from server.audio import milliseconds
from server.errors import LimitError
from server.pipelines.engines import Voice
from server.pipelines.narrator import PRESETS, Chunks, Narrator, described
from server.pipelines.pacer import Pacer
from server.pipelines.studio import Booth, Studio

CHUNK = 4_096  # bytes of a frame in batch mode
WAITING = 100_000  # characters that one stream may have waiting

Frame = dict[str, Any] | bytes
Put = Callable[[Frame], Awaitable[None]]


class Init(BaseModel):
    """How the next streams sound, and what is told of them."""

    voice: str | None = None
    model: str | None = None
    language: str | None = None
    default_mode: str = "batch"
    speed: Annotated[float, Field(ge=0.25, le=4)] | None = None
    sample_rate: Annotated[int, Field(ge=8_000, le=48_000)] | None = None
    lead_ms: Annotated[float, Field(ge=60, le=60_000)] | None = None  # pace: no further ahead of the listener
    events: tuple[Literal["words", "cancelled"], ...] = ()


class Text(BaseModel):
    """Something to say. `mode`: anything but `stream` is `batch`; a preset that is not known is `conservative`."""

    text: str
    mode: str | None = None
    preset: str = "conservative"


@dataclass(eq=False)
class Spoken:
    """One stream. `touched` tells when the client last gave a sign of life, in seconds on the loop's clock."""

    init: Init
    booth: Booth
    voice: Voice
    idle_s: float
    touched: Callable[[], float]
    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    closed: bool = False
    task: asyncio.Task[None] | None = None
    _texts: deque[Text] = field(default_factory=deque)
    _waiting: int = 0  # characters in them
    _news: asyncio.Event = field(default_factory=asyncio.Event)

    def add(self, text: Text) -> None:
        """Raises `LimitError` where too much waits."""
        if self._waiting + len(text.text) > WAITING:
            raise LimitError(f"more than {WAITING} characters are waiting to be said", code="too_long")
        self._texts.append(text)
        self._waiting += len(text.text)
        self._news.set()

    def close(self) -> None:
        """No more texts; those that wait are still said."""
        self.closed = True
        self._news.set()

    async def say(self, studio: Studio, put: Put, client: str) -> None:
        """Everything, until it is closed or left alone for too long. Raises `EngineError`, `ConfigError`."""
        put, segments = self._paced(put), 0
        narrator = studio.narrator(self.booth, self.voice, client=client, rate=self.init.sample_rate or 0)
        async with narrator as reader:
            await put({"type": "stream_created", "stream_id": self.id, "sample_rate": reader.rate})
            while text := await self._next(reader):
                segments, before = segments + 1, reader.made_ms
                async with aclosing(self._frames(reader, text, segments)) as frames:
                    async for frame in frames:
                        await put(frame)
                await put({"type": "segment_complete", "segment": segments, "audio_ms": reader.made_ms - before})
            if last := reader.finish().pcm:
                await put(last)
            await put({"type": "done", "total_audio_ms": reader.made_ms, "segments_generated": segments})

    async def _next(self, reader: Narrator) -> Text | None:
        while not self._texts:
            if self.closed:
                return None
            self._news.clear()
            try:
                async with asyncio.timeout_at(self._deadline(reader)):
                    await self._news.wait()
            except TimeoutError:
                self.closed = asyncio.get_running_loop().time() >= self._deadline(reader)
        text = self._texts.popleft()
        self._waiting -= len(text.text)
        return text

    def _deadline(self, reader: Narrator) -> float:
        return max(self.touched(), reader.heard_at) + self.idle_s

    async def _frames(self, reader: Narrator, text: Text, segment: int) -> AsyncGenerator[Frame, None]:
        """One text's audio in frames of the sizes asked for, and its words where they are wanted."""
        stream = (text.mode or self.init.default_mode) == "stream"
        preset = PRESETS.get(text.preset, PRESETS["conservative"])
        chunks = Chunks.of(preset, reader.rate) if stream else Chunks(CHUNK, CHUNK)
        async with aclosing(reader.say(text.text, eager=stream and preset.eager)) as pieces:
            async for piece in pieces:
                if piece.words and "words" in self.init.events:
                    yield {"type": "words", "segment": segment, "words": described(piece.words, text.text)}
                for chunk in chunks.push(piece.pcm):
                    yield chunk
        for chunk in chunks.flush():
            yield chunk

    def _paced(self, put: Put) -> Put:
        if not self.init.lead_ms:
            return put
        pacer = Pacer(self.init.lead_ms, asyncio.get_running_loop().time)
        rate = self.init.sample_rate or self.booth.engine.rate

        async def send(frame: Frame) -> None:
            if isinstance(frame, bytes):
                await pacer.wait(milliseconds(frame, rate))
            await put(frame)

        return send
