"""The adaptive streams that are open, and how one is said: segment after segment, while its text comes in."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

from server.audio import milliseconds
from server.errors import EngineBusy, ParleyError
from server.pipelines.adaptive import Adaptive, Segment, State
from server.pipelines.engines import Voice
from server.pipelines.narrator import PRESETS, Chunks, Narrator, described
from server.pipelines.studio import Booth, Studio

IDLE_S = 30.0  # without a sign of life of either side
STREAMS = 256  # at once
CHUNK = 4_096  # bytes, of a segment made in one go


@dataclass(eq=False)
class Running:
    """A stream between its requests. `news` wakes whoever reads its audio."""

    id: str
    booth: Booth
    voice: Voice
    rate: int
    adaptive: Adaptive
    news: asyncio.Event = field(default_factory=asyncio.Event)
    read: bool = False  # somebody reads its audio, or has

    def status(self, now: float) -> dict[str, Any]:
        state = self.adaptive
        return {
            "stream_id": self.id,
            "state": state.state.value,
            "buffer_ms": round(state.listener.ahead_ms(now)),
            "audio_ms": round(state.listener.sent_ms),
            "segments": state.segments,
            "pending_chars": state.pending,
            "idle_s": round(max(0.0, now - max(state.touched, state.listener.dry_at)), 1),
            **({"error": state.error} if state.error else {}),
        }


@dataclass(frozen=True)
class Piece:
    """Audio, and the words that became known with it, as a client is told."""

    pcm: bytes
    words: list[dict[str, Any]] = field(default_factory=list)


class Shelf:
    """The streams there are. The idle ones are cleared away whenever somebody comes, so none is ever found expired."""

    def __init__(self, idle_s: float = IDLE_S, limit: int = STREAMS) -> None:
        self.idle_s, self.limit = idle_s, limit
        self._streams: dict[str, Running] = {}

    def __len__(self) -> int:
        return len(self._streams)

    def add(self, stream: Running, now: float) -> None:
        """Raises `EngineBusy` when there are too many. Those that have ended make room."""
        self.sweep(now)
        if len(self._streams) >= self.limit and (over := self._over()):
            self.remove(over)
        if len(self._streams) >= self.limit:
            raise EngineBusy(f"{self.limit} streams are open; close some", retry_after=self.idle_s)
        self._streams[stream.id] = stream

    def find(self, id: str, now: float) -> Running:
        """Raises `LookupError` for a stream that does not exist (any more)."""
        self.sweep(now)
        return self._streams[id]

    def _over(self) -> Running | None:
        """The oldest that has ended."""
        return next((s for s in self._streams.values() if s.adaptive.state.over), None)

    def remove(self, stream: Running) -> None:
        self._streams.pop(stream.id, None)

    def sweep(self, now: float) -> None:
        for stream in [s for s in self._streams.values() if s.adaptive.expired(now, self.idle_s)]:
            stream.adaptive.end(State.CANCELLED, now, "idle")
            stream.news.set()
            self.remove(stream)


async def spoken(studio: Studio, stream: Running, client: str, idle_s: float) -> AsyncGenerator[Piece, None]:
    """The stream's audio, until it is closed and said, cancelled, or its reader has gone."""
    state = stream.adaptive
    try:
        async with studio.narrator(stream.booth, stream.voice, client=client, rate=stream.rate) as reader:
            async with aclosing(_segments(stream, reader, idle_s)) as pieces:
                async for piece in pieces:
                    state.played(milliseconds(piece.pcm, stream.rate), now())
                    yield piece
            if state.state is not State.CANCELLED and (last := reader.finish().pcm):
                state.played(milliseconds(last, stream.rate), now())
                yield Piece(last)
        state.end(State.COMPLETED, now())
    except ParleyError as error:
        _failed(stream, error)
        raise
    except BaseException:  # the reader has gone
        state.end(State.CANCELLED, now())
        raise


def _failed(stream: Running, error: ParleyError) -> None:
    """Who was told to come back, before the first sound, is to find all of the text."""
    if isinstance(error, EngineBusy) and not stream.adaptive.listener.sent_ms:
        stream.adaptive.put_back(now())
        stream.read = False
    else:
        stream.adaptive.end(State.ERROR, now(), str(error))


async def _segments(stream: Running, reader: Narrator, idle_s: float) -> AsyncGenerator[Piece, None]:
    state = stream.adaptive
    while not state.state.over:
        stream.news.clear()
        segment = state.take(now())
        if segment is None and state.finished:
            return
        if segment is None:
            await _look_again(stream, idle_s)
            continue
        async with aclosing(_said(stream, reader, segment)) as pieces:
            async for piece in pieces:
                yield piece
                if state.state.over:
                    return


async def _said(stream: Running, reader: Narrator, segment: Segment) -> AsyncGenerator[Piece, None]:
    sizes = PRESETS["aggressive"] if stream.adaptive.segments == 1 else PRESETS["balanced"]
    chunks = Chunks.of(sizes, stream.rate) if segment.mode == "stream" else Chunks(CHUNK, CHUNK)
    words: list[dict[str, Any]] = []
    async with aclosing(reader.say(segment.text)) as pieces:
        async for piece in pieces:
            words += described(piece.words, segment.text, segment.offset)
            for chunk in chunks.push(piece.pcm):
                yield Piece(chunk, words)
                words = []
            if stream.adaptive.state.over:
                return
    for chunk in chunks.flush() or ([b""] if words else []):
        yield Piece(chunk, words)
        words = []


async def _look_again(stream: Running, idle_s: float) -> None:
    """Wait until there is more text, or it is time to say what is there, or nobody will come any more."""
    state = stream.adaptive
    give_up = max(state.touched, state.listener.dry_at) + idle_s
    look = state.next_look(now())
    try:
        async with asyncio.timeout_at(give_up if look is None else look):
            await stream.news.wait()
    except TimeoutError:
        if state.expired(now(), idle_s):
            state.end(State.CANCELLED, now(), "idle")


def now() -> float:
    return asyncio.get_running_loop().time()
