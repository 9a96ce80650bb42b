"""Text to speech over `/ws/tts/stream`: text goes in as it comes, audio comes out, and it can be cut off."""

import json
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal

from websockets.asyncio.client import ClientConnection

from server.clients.link import ConnectionLost, Link, Refused
from server.pipelines.narrator import plain


@dataclass(frozen=True)
class Created:
    """A stream begins; what comes from now on is its."""

    stream_id: str
    sample_rate: int


@dataclass(frozen=True)
class SpokenWord:
    """`word` stands at `[start, end)` of its segment's text and sounds at `start_ms` to `end_ms` of the stream."""

    word: str
    start: int
    end: int
    start_ms: float
    end_ms: float


@dataclass(frozen=True)
class Words:
    segment: int
    words: tuple[SpokenWord, ...]


@dataclass(frozen=True)
class Complete:
    """A text has been said."""

    segment: int
    audio_ms: float


@dataclass(frozen=True)
class Done:
    """A closed stream has been said to its end."""

    total_audio_ms: float
    segments: int


@dataclass(frozen=True)
class Cancelled:
    """What was cancelled is silent: nothing of it comes from here on."""


@dataclass(frozen=True)
class Failed:
    """Something went wrong; `fatal`: the stream is over."""

    code: str
    message: str
    fatal: bool


@dataclass(frozen=True)
class Lost:
    """The connection broke. `unsaid` are the texts that were not said to their end; it is for you to say them again."""

    unsaid: tuple[str, ...]


Event = Created | bytes | Words | Complete | Done | Cancelled | Failed | Lost


class Speech:
    """Use as a block, and read it: `async for event in speech`; audio comes as bytes, PCM at `Created.sample_rate`.

    `url` is like `ws://localhost:8000/ws/tts/stream`. Options: `voice`, `language`, `model`, `speed`, `sample_rate`,
    `lead_ms` (no further ahead of the listener)."""

    def __init__(
        self,
        url: str,
        *,
        mode: Literal["batch", "stream"] = "stream",
        words: bool = False,
        token: str = "",
        attempts: int = 5,
        **options: Any,
    ) -> None:
        events = {"events": ["words"]} if words else {}
        self._init: dict[str, Any] = {"type": "init", "default_mode": mode, **events, **options}
        self._cancelling = 0  # cancels that the server has not yet answered for
        self._unsaid: deque[str] = deque()  # an empty one ends a stream
        self._lost: Lost | None = None  # and not yet told
        self._link = Link(lambda: url, token=token, attempts=attempts, greet=self._greet)

    async def __aenter__(self) -> "Speech":
        await self._link.socket()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._link.close()

    def __aiter__(self) -> AsyncIterator[Event]:
        return self

    async def __anext__(self) -> Event:
        """Raises `Refused` when the server will not serve us, `ConnectionLost` when it cannot be reached again."""
        while True:
            await self._link.socket()
            if lost := self._lost:
                self._lost = None
                return lost
            try:
                frame = await self._link.receive()
            except ConnectionLost:
                continue
            except Refused:
                await self._link.close()
                raise
            if self._cancelling:
                if isinstance(frame, dict) and frame["type"] == "pong":
                    self._cancelling -= 1
                    return Cancelled()
            elif isinstance(frame, bytes):
                return frame
            elif event := await self._event(frame):
                return event

    async def connect(self) -> int:
        """Open the connection if need be: which one it is, counted from 1. What was said on another is lost."""
        await self._link.socket()
        return self._link.connections

    async def say(self, text: str, **how: str) -> None:
        """`how`: `mode` (batch, stream), `preset` (aggressive, balanced, conservative). Nothing comes of a text that is
        not `speakable`.

        Raises `ConnectionLost`: then `text` is among the unsaid ones of `Lost`."""
        if speakable(text):
            await self._link.socket()
            self._unsaid.append(text)
            await self._link.send({"type": "text", "text": text, **how})

    async def close(self) -> None:
        """No more text for now: `Done` follows when all has been said. The next `say` begins a new stream."""
        if self._unsaid and self._unsaid[-1]:
            self._unsaid.append("")
        await self._tell({"type": "close"})

    async def cancel(self) -> None:
        """Silence, now: what is still on its way is swallowed, and then comes `Cancelled`; on a lost line `Lost`."""
        self._unsaid.clear()
        self._cancelling += self._link.open
        await self._tell({"type": "cancel"})
        await self._tell({"type": "ping"})  # its answer comes after all that was sent before

    async def use(self, **options: Any) -> None:
        """Another voice, language, ... from the next stream on, which begins now."""
        self._init |= options
        while self._unsaid and self._unsaid[-1]:
            self._unsaid.pop()
        await self._tell(self._init)

    async def _tell(self, message: dict[str, Any]) -> None:
        """To a server that knows of us; where the line is lost, `Lost` says so, and the next one begins anew."""
        if self._link.open:
            with suppress(ConnectionLost):
                await self._link.send(message)

    async def _greet(self, socket: ClientConnection) -> None:
        """What every connection begins with; all but the first know nothing of what was said before."""
        if self._link.connections > 1:
            before = self._lost.unsaid if self._lost else ()
            self._lost = Lost((*before, *filter(None, self._unsaid)))
            self._unsaid.clear()
            self._cancelling = 0
        await socket.send(json.dumps(self._init))

    def _over(self) -> None:
        """The stream at the front has ended, and with it what was left of its texts."""
        while self._unsaid and self._unsaid.popleft():
            pass

    async def _event(self, frame: dict[str, Any]) -> Event | None:
        match frame:
            case {"type": "stream_created", "stream_id": id, "sample_rate": rate}:
                return Created(id, rate)
            case {"type": "words", "segment": segment, "words": words}:
                return Words(segment, words_of(words))
            case {"type": "segment_complete", "segment": segment, "audio_ms": ms}:
                if self._unsaid and self._unsaid[0]:
                    self._unsaid.popleft()
                return Complete(segment, ms)
            case {"type": "done", "total_audio_ms": ms, "segments_generated": segments}:
                if self._unsaid and not self._unsaid[0]:
                    self._unsaid.popleft()
                return Done(ms, segments)
            case {"type": "error", "code": ("engine_busy" | "full" | "unauthorized") as code, "message": message}:
                await self._link.close()
                raise Refused(message, code=code, retry_after=frame.get("retry_after"))
            case {"type": "error"}:
                if frame.get("fatal"):
                    self._over()
                return Failed(frame.get("code", "error"), frame["message"], frame.get("fatal", False))
        return None


def speakable(text: str) -> bool:
    """Whether the server says anything to `text`: not to blanks and emoji alone."""
    return bool(plain(text).strip())


def words_of(words: Sequence[dict[str, Any]]) -> tuple[SpokenWord, ...]:
    """Word timings as the server tells them."""
    return tuple(SpokenWord(w["word"], w["start"], w["end"], w["start_ms"], w["end_ms"]) for w in words)
