"""Tokens in, speakable sentences out: `Splitter` decides (pure), `sentences` moves.

A sentence is spoken as a whole, for its melody. Only the first one, on which the listener waits, may be begun at its
first clause, when the model is slow.
"""

import asyncio
import unicodedata
from collections.abc import AsyncGenerator, AsyncIterator, Iterator

from server.pipelines.boundaries import (
    CLAUSES,
    CLOSERS,
    MARKS,
    Verdict,
    has_words,
    judge,
    judge_clause,
    next_mark,
    past,
)
from server.pipelines.waiting import Patience, Source

LONGEST = 300  # characters in one piece; longer sentences are cut at a clause, a space, or where they stand
PORTION = 400  # characters looked at between two turns of the event loop: 2 ms at the worst
EAGER_WORDS = 3  # a clause of at least so many words may be spoken first
EAGER_WHOLE = 60  # characters: a sentence no longer than this is not cut at a clause when it is already complete
EAGER_LETTERS = 8  # and in scripts without spaces, of so many letters


class Splitter:
    """Text in any portions in, sentences out. Its buffer never holds more than one portion beyond `longest`.
    `eager`, which may change, lets the next piece end with a clause.

    Nothing but whitespace is lost, nothing is moved, no word is cut in two unless it is longer than `longest`."""

    def __init__(self, *, eager: bool = False, longest: int = LONGEST, language: str = "en") -> None:
        self._text = ""
        self._seen = 0  # up to here every mark is judged
        self.eager = eager
        self._clause_seen = 0
        self._longest = longest
        self._language = language

    def push(self, delta: str) -> list[str]:
        """The sentences that `delta` completes."""
        self._text += delta
        return list(self._finished(last=False))

    def idle(self) -> list[str]:
        """The model pauses: what is a finished sentence as it stands. An unfinished one stays."""
        return list(self._finished(last=True))

    def whole(self) -> list[str]:
        """The writer says that a sentence is complete: everything, if it does end like one."""
        ends = self._text.rstrip(" \t" + CLOSERS)[-1:]
        return self.finish() if ends and ends in MARKS else []

    def finish(self) -> list[str]:
        """The text is over: everything that is left."""
        pieces = [*self._finished(last=True), self._text.strip()]
        self._text = ""
        return [piece for piece in pieces if piece]

    @property
    def waiting(self) -> bool:
        """Whether a finished sentence may be held only because what follows it is not yet known."""
        return self._seen < len(self._text)

    def _finished(self, *, last: bool) -> Iterator[str]:
        begin = 0
        while (end := self._next(begin, last)) is not None:
            if piece := self._text[begin:end].strip():
                self.eager = False
                yield piece
            begin = end
        begin = _skip_spaces(self._text, begin)
        self._text = self._text[begin:]
        self._seen = max(0, self._seen - begin)
        self._clause_seen = max(0, self._clause_seen - begin)

    def _next(self, begin: int, last: bool) -> int | None:
        """Where the piece that starts at `begin` ends, if that is known."""
        end = self._sentence(begin, last)
        known = len(self._text) if end is None else end
        hurry = self.eager and (end is None or end - begin > EAGER_WHOLE)
        if hurry and (clause := self._clause(begin, known)):
            return clause
        if known - begin > self._longest:
            end = _cut(self._text, begin, begin + self._longest)
            self._seen = min(self._seen, end)
        return end

    def _sentence(self, begin: int, last: bool) -> int | None:
        self._seen = max(self._seen, begin)
        limit = begin + self._longest
        while (mark := next_mark(self._text, self._seen)) >= 0 and mark <= limit:
            stands = last and not self._text[past(self._text, mark) :].strip()
            verdict = judge(self._text, mark, begin=begin, last=stands, language=self._language)
            if verdict is Verdict.WAIT or (stands and verdict is Verdict.INSIDE):
                self._seen = mark  # to be judged again when more is known
                return None
            self._seen = past(self._text, mark)
            if verdict is Verdict.END:
                return self._seen
        self._seen = max(self._seen, mark if mark >= 0 else len(self._text))
        return None

    def _clause(self, begin: int, limit: int) -> int | None:
        at = max(self._clause_seen, begin)
        while 0 <= (mark := next_mark(self._text, at, clauses=True)) < limit:
            verdict = judge_clause(self._text, mark, begin=begin, language=self._language)
            if verdict is Verdict.WAIT:
                return None
            if verdict is Verdict.END and _enough(self._text[begin:mark]):
                return mark + 1
            at = self._clause_seen = mark + 1
        return None


async def sentences(
    tokens: AsyncIterator[str], *, idle_s: float = 0.35, patience_s: float | None = None, language: str = "en"
) -> AsyncGenerator[str, None]:
    """Regroup a stream of text deltas into speakable sentences, stripped, in order, nothing lost.

    After `idle_s` seconds without a delta a finished sentence is let go without knowing what follows; on an empty
    delta (the writer knows that it is complete) at once. If the first sentence is not complete `patience_s` seconds
    after the first delta, its first clause goes ahead (None: never). What `tokens` raises passes through, after the
    sentences that were whole. Closing this closes `tokens`."""
    splitter, source, patience = Splitter(language=language), Source(tokens), Patience(patience_s)
    try:
        while (delta := await source.next(idle_s if splitter.waiting else None)) is not None:
            splitter.eager = patience.over()
            for portion in _portions(delta):
                for piece in _pieces(splitter, portion, told=not source.idle):
                    patience.rewarded()
                    yield piece
                if len(delta) > PORTION:
                    await asyncio.sleep(0)
        for piece in splitter.finish():
            yield piece
    except Exception:
        for piece in splitter.idle():
            yield piece
        raise
    finally:
        await source.close()


def _portions(delta: str) -> list[str]:
    return [delta[at : at + PORTION] for at in range(0, max(1, len(delta)), PORTION)]


def _pieces(splitter: Splitter, delta: str, *, told: bool) -> list[str]:
    if delta:
        return splitter.push(delta)
    return splitter.whole() if told else splitter.idle()


def _enough(clause: str) -> bool:
    spaced = clause.split()
    return len(spaced) >= EAGER_WORDS or (len(spaced) == 1 and not clause.isascii() and len(clause) >= EAGER_LETTERS)


def _skip_spaces(text: str, at: int) -> int:
    while at < len(text) and text[at].isspace():
        at += 1
    return at


def _cut(text: str, begin: int, limit: int) -> int:
    """The best place in `text[begin:limit]` to cut a sentence that is too long."""
    window = text[begin:limit]
    least = len(window) // 3
    clause = max((i + 1 for i, c in enumerate(window) if c in CLAUSES and _opens(text, begin + i + 1)), default=0)
    space = max((i + 1 for i, c in enumerate(window) if c.isspace()), default=0)
    for at in (clause, space):
        if at > least and has_words(window, 0, at):
            return begin + at
    return _whole_character(text, begin, limit)


def _opens(text: str, at: int) -> bool:
    return text[at - 1] in "，、；：" or text[at : at + 1].isspace()


def _whole_character(text: str, begin: int, at: int) -> int:
    """`at`, or a little before it, so that no mark, joiner or flag is torn from its letter."""
    for cut in range(at, max(begin + 1, at - 16), -1):
        joined = text[cut - 1] == "\u200d" or unicodedata.category(text[cut]) in ("Mn", "Mc", "Me", "Cf", "Sk")
        if not joined:
            return cut
    return at
