"""The bill of an answer: the tokens its thinking took, how long the model rested, and what an interruption saved."""

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass

from server.pipelines.chunking import Generation
from server.pipelines.engines import LLM, LLMSettings, Message

LONGEST = 512  # tokens in a spoken answer, for the estimate of what an interruption saved


@dataclass
class _Entry:
    generation: Generation
    began: float
    ended: float | None = None


class Bill:
    """`clock` in seconds; `language` is what the model writes."""

    def __init__(self, clock: Callable[[], float], language: str) -> None:
        self._clock, self._language = clock, language
        self._entries: list[_Entry] = []

    def think(self, llm: LLM, messages: Sequence[Message], settings: LLMSettings) -> AsyncGenerator[str, None]:
        """One reply's text, a sentence at a time as it is read; who does not read lets the model rest."""
        generation = Generation(llm, messages, settings, clock=self._clock, language=self._language)
        entry = _Entry(generation, self._clock())
        self._entries.append(entry)
        return self._read(entry)

    async def _read(self, entry: _Entry) -> AsyncGenerator[str, None]:
        try:
            async with aclosing(entry.generation.flow()) as deltas:
                async for delta in deltas:
                    yield delta
        finally:
            entry.ended = self._clock()

    def told(self, *, cut: bool) -> dict[str, float]:
        """`tokens` generated, `rested_ms`; after a cut also `tokens_saved`: what the model would have made, at its own
        pace, in the time it rested because nobody needed more yet, but no more than an answer of `LONGEST` has left.
        Nothing if no model was asked."""
        if not self._entries:
            return {}
        rested = sum(entry.generation.counts.rested_s for entry in self._entries)
        told = {"tokens": float(self._tokens()), "rested_ms": round(rested * 1000, 1)}
        saved = min(self._pace() * rested, max(0, LONGEST - self._tokens()))
        return told | ({"tokens_saved": float(round(saved))} if cut else {})

    def _tokens(self) -> int:
        return sum(entry.generation.counts.generated for entry in self._entries)

    def _pace(self) -> float:
        """Tokens a second, while it was asked for any."""
        took = sum((e.ended or self._clock()) - e.began - e.generation.counts.rested_s for e in self._entries)
        return self._tokens() / took if took > 0 else 0.0
