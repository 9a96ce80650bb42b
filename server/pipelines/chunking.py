"""Pausable generation: a model's answer in chunks, each made only when it is asked for.

Two ways to go on after a pause. *Hold*: one streaming request, read only as far as wanted; the server may run ahead.
*Prefill*: each chunk is a request of its own that continues the answer so far, so the server rests in between; the
prompt begins with the same text every time, which its prefix cache knows.
"""

import asyncio
import time
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Literal, Protocol, Self, runtime_checkable

from server.pipelines.chunks import Cutter, Reason, Stop
from server.pipelines.engines import LLM, LLMSettings, Message

__all__ = ["Chunk", "Counts", "Generation", "Reason", "Stop", "detect"]

Mode = Literal["auto", "hold", "prefill"]
SENTENCE = Stop(sentence=True)
_AS_CONFIGURED = LLMSettings()
LONGEST_SENTENCE = 200  # tokens a request for one sentence may run to


@runtime_checkable
class Prefills(Protocol):
    """A language model that can continue its own answer in a new request."""

    async def can_prefill(self) -> bool: ...

    def continue_stream(
        self, messages: Sequence[Message], said: str, settings: LLMSettings, *, slot: int | None = None
    ) -> AsyncIterator[str]: ...


async def detect(llm: LLM) -> Literal["hold", "prefill"]:
    """How answers of `llm` are best continued."""
    return "prefill" if isinstance(llm, Prefills) and await llm.can_prefill() else "hold"


@dataclass(frozen=True)
class Chunk:
    """What a chunk came to. Times in ms from when it was asked for; `ttft_ms` is None if it has no token."""

    reason: Reason
    text: str = ""
    tokens: int = 0
    ttft_ms: float | None = None
    elapsed_ms: float = 0.0


@dataclass
class Counts:
    """What an answer took. Tokens are counted as the server sends them, in deltas.

    `unread`: generated, but in no chunk. `rested_s`: how long no chunk was asked for though there was more to say."""

    requests: int = 0
    generated: int = 0
    delivered: int = 0
    rested_s: float = 0.0

    @property
    def unread(self) -> int:
        return max(0, self.generated - self.delivered)  # a delta may be cut in two


class Generation:
    """One answer to `messages`. A block: `async with`; its end cancels what is still being generated.

    `done` when nothing more will come, `text` is all that was handed out, `last` the chunk before, `counts` the bill.
    `clock` tells seconds; `slot` is for llama.cpp; `language` is the text's."""

    def __init__(
        self,
        llm: LLM,
        messages: Sequence[Message],
        settings: LLMSettings = _AS_CONFIGURED,
        *,
        mode: Mode = "auto",
        clock: Callable[[], float] = time.monotonic,
        slot: int | None = None,
        language: str = "en",
    ) -> None:
        self.text, self.done, self.last, self.counts = "", False, Chunk(Reason.ALREADY_DONE), Counts()
        self.mode = mode
        self._llm, self._messages, self._settings, self._slot = llm, list(messages), settings, slot
        self._clock, self._language = clock, language
        self._stream: AsyncIterator[str] | None = None
        self._step: asyncio.Task[str | None] | None = None
        self._kept: deque[str] = deque()  # read, and of the next chunk
        self._received = ""  # all that was read
        self._again = ""  # spaces that the server is about to repeat
        self._sentence = ""  # what was handed out of the sentence at hand
        self._rests_since: float | None = None
        self._closed = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Cancel: a chunk that is being made, by whomever, ends at once. What was handed out stays."""
        self._closed = self.done = True
        self._rest(None)
        if self._step is not None:
            self._step.cancel()
            await asyncio.wait({self._step})
        await self._close_stream()

    async def flow(self, first: Stop = SENTENCE, then: Stop = SENTENCE) -> AsyncGenerator[str, None]:
        """The whole answer, chunk after chunk, each asked for when a reader has taken the one before: who stops reading
        lets the model rest. After each sentence comes an empty delta (see `sentences`). Closing this closes the
        generation. Raises `LLMError`."""
        try:
            while not self.done:
                async with aclosing(self.chunk(first)) as deltas:
                    async for delta in deltas:
                        yield delta
                if self.last.reason is Reason.SENTENCE_BOUNDARY:
                    yield ""
                first = then
        finally:
            await self.close()

    async def chunk(self, stop: Stop = SENTENCE) -> AsyncGenerator[str, None]:
        """The deltas of the next chunk; `last` tells afterwards how it went. Read it within `aclosing`.

        Left early it pauses there, and the next chunk goes on. Raises `LLMError`."""
        began, first, had = self._clock(), None, len(self.text)
        reason = Reason.CANCELLED if self._closed else Reason.ALREADY_DONE if self.done else None
        cutter = Cutter(stop, self._sentence, language=self._language)
        self._rest(None)
        try:
            while reason is None:
                while (delta := cutter.take()) is not None:
                    first = self._clock() if first is None else first
                    self.text += delta
                    self.counts.delivered += 1
                    yield delta
                reason = cutter.reason or await self._read(cutter, stop)
        finally:
            now = self._clock()
            self._kept.extendleft(reversed(cutter.left))
            self._sentence = cutter.sentence
            ttft = None if first is None else (first - began) * 1000
            self.last = Chunk(reason or Reason.CANCELLED, self.text[had:], cutter.taken, ttft, (now - began) * 1000)
            self._rest(now)
            if self.done or self.mode == "prefill":
                await self._close_stream()

    async def _read(self, cutter: Cutter, stop: Stop) -> Reason | None:
        """Give `cutter` one more delta, or the end. A reason, if there is one that the cutter cannot know."""
        delta = self._kept.popleft() if self._kept else await self._receive(stop, cutter.read)
        if self._closed:
            return Reason.CANCELLED
        if delta is not None:
            cutter.push(delta)
            return None
        finish = getattr(self._stream, "finish", None)
        await self._close_stream()
        cut_short = finish == "length" and self.mode == "prefill" and self._left() != 0
        if cut_short and not self._received:
            self.mode = "hold"  # all of it went into thoughts, which no new request could continue
            return None
        self.done = not (cut_short and cutter.read)
        cutter.finish(finish)
        return None if self._received else Reason.EMPTY_RESPONSE

    async def _receive(self, stop: Stop, had: int) -> str | None:
        """The next delta that the server makes. `close` may end the wait: then it is None."""
        delta: str | None = ""
        while delta == "":
            self._step = asyncio.ensure_future(self._pull(stop, had))
            try:
                delta = await self._step
            except asyncio.CancelledError:
                if self._closed and not _cancelled():
                    return None
                self.done = True
                raise
            except Exception:
                self.done = self.mode != "prefill"
                raise
            finally:
                self._step = None
        return delta

    async def _pull(self, stop: Stop, had: int) -> str | None:
        if self.mode == "auto":
            self.mode = await detect(self._llm)
        if self._stream is None:
            self._stream = self._request(stop, had)
            self.counts.requests += 1
        delta = await anext(self._stream, None)
        if delta is not None and self._again:
            same = _shared(delta, self._again)
            delta, self._again = delta[same:], "" if delta[same:] else self._again[same:]
        if delta:
            self._received += delta
            self.counts.generated += 1
        return delta

    def _request(self, stop: Stop, had: int) -> AsyncIterator[str]:
        if self.mode == "hold":
            return self._llm.stream(self._messages, self._settings)
        # Many chat templates drop spaces at the end of a message, and the model then writes them once more.
        said = self._received.rstrip()
        self._again = self._received[len(said) :]
        most = LONGEST_SENTENCE if stop.sentence else None
        limits = [n for n in (stop.max_tokens and stop.max_tokens - had, most, self._left()) if n is not None]
        settings = replace(self._settings, max_tokens=min(limits) + len(self._again)) if limits else self._settings
        assert isinstance(self._llm, Prefills), "mode prefill is for models that can"
        return self._llm.continue_stream(self._messages, said, settings, slot=self._slot)

    def _left(self) -> int | None:
        """How many tokens the answer may still have."""
        most = self._settings.max_tokens
        return None if most is None else max(0, most - self.counts.generated)

    def _rest(self, since: float | None) -> None:
        """Count the time from one chunk to the next."""
        if self._rests_since is not None:
            self.counts.rested_s += self._clock() - self._rests_since
        self._rests_since = None if self.done else since

    async def _close_stream(self) -> None:
        stream, self._stream = self._stream, None
        if close := getattr(stream, "aclose", None):
            await close()


def _shared(a: str, b: str) -> int:
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def _cancelled() -> bool:
    """Whether somebody wants the task that runs this to end."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
