"""From an engine's word events to words of the text. Pure.

An engine may send several events for one word ("3.50" is three point five zero) and one for several ("of the").
"""

import bisect
import re
from collections.abc import Sequence

from server.pipelines.engines import Word

_WIDE = "\u0e00-\u0eff\u2e80-\uffff\U00020000-\U0003ffff"  # scripts that put no spaces between words
_UNIT = re.compile(rf"[{_WIDE}]|[^\s{_WIDE}]+")
_PUNCTUATION = "\"'`.,;:!?()[]{}<>…—–-‘’“”«»*_~|、。，；：！？（）「」『』"


class Words:
    """The words of `text` as the engine comes to them."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._units = [unit for match in _UNIT.finditer(text) if (unit := _bare(match))]
        self._starts = [start for start, _ in self._units]
        self._current = -1
        self._since = 0.0

    def begin(self, position: int, ms: float) -> tuple[Word, ...]:
        """The engine begins to say what is at `position`, `ms` into the utterance: the word that this ends, if any."""
        unit = self._at(position)
        if unit <= self._current:
            return ()  # another event of the same word
        ended = self._end(unit, ms)
        self._current, self._since = unit, ms
        return ended

    def _at(self, position: int) -> int:
        """Which word is meant. At marks that stand alone ("- one") it is the one behind them."""
        unit = bisect.bisect_right(self._starts, position) - 1
        passed = self._text[self._units[unit][1] if unit >= 0 else 0 : position]
        apart = unit < 0 or any(char.isspace() for char in passed)
        return min(unit + apart, len(self._units) - 1)

    def finish(self, ms: float) -> tuple[Word, ...]:
        """The utterance is over: its last word."""
        return self._end(len(self._units), ms)

    def _end(self, following: int, ms: float) -> tuple[Word, ...]:
        if self._current < 0:
            return ()
        start, end = self._units[self._current][0], self._units[following - 1][1]
        return (Word(start, end, self._since, max(ms, self._since)),)


def _bare(match: re.Match[str]) -> tuple[int, int] | None:
    """The word without its punctuation, or None where nothing is left."""
    word = match.group()
    start = match.start() + len(word) - len(word.lstrip(_PUNCTUATION))
    end = match.start() + len(word.rstrip(_PUNCTUATION))
    return (start, end) if start < end else None


def matched(text: str, spans: Sequence[tuple[float, float]]) -> tuple[Word, ...]:
    """The words of `text` with the times (from, to, in ms) of the spoken ones, where there are as many; else none."""
    units = [unit for match in _UNIT.finditer(text) if (unit := _bare(match))]
    if len(units) != len(spans):
        return ()
    return tuple(Word(*unit, *span) for unit, span in zip(units, spans, strict=True))
