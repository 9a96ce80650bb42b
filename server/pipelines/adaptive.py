"""A stream whose segments grow with what the listener has in hand: short ones for a fast start, then long ones, which
sound better. Pure: text goes in as it comes, segments come out when they are worth saying; `now` (seconds) is given.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Literal

from server.errors import LimitError, ProtocolError
from server.pipelines.admission import Listener
from server.pipelines.boundaries import Verdict, has_words, judge, judge_clause, next_mark, past

WORD_MS = 400.0  # how long a word sounds, about
BATCH_MS = 1_000.0  # with this much in hand, whole sentences are made in one go
LOW_MS = 500.0  # with less, any boundary will do
WINDOW_S = 0.1  # how long the first words wait for one
STILL_S = 0.3  # text that has not grown for this long is taken as it stands
START_WORDS = 2  # the least that is said where no boundary is in sight
CLAUSE_WORDS = 3  # the least that is said of a sentence before its end
LONGEST_WORDS = 40  # without a boundary
LOOK = 600  # characters looked at for the next segment, so that a long text costs no more than a short one
TEXT = 100_000  # characters waiting to be said


class State(Enum):
    CREATED = "created"
    GENERATING = "generating"
    CLOSED = "closed"  # no more text; what is there is still said
    COMPLETED = "completed"
    CANCELLED = "cancelled"
    ERROR = "error"

    @property
    def over(self) -> bool:
        return self in (State.COMPLETED, State.CANCELLED, State.ERROR)


@dataclass(frozen=True)
class Segment:
    """Text to say next, which stands at `offset` in all that was appended. `mode`: `stream` gives audio out as it is
    made, `batch` in larger pieces."""

    text: str
    mode: Literal["stream", "batch"]
    offset: int = 0


class Adaptive:
    """One stream's text and state."""

    def __init__(self, now: float) -> None:
        self.state = State.CREATED
        self.touched = now  # the last sign of life of either side
        self.segments = 0
        self.error = ""
        self.listener = Listener()
        self._text, self._taken, self._last = "", 0, ""
        self._since = self._appended = now  # when the first and the last of the waiting text came
        self._closed = False

    @property
    def pending(self) -> int:
        """Characters that wait to be said."""
        return len(self._text.strip())

    @property
    def finished(self) -> bool:
        """Closed, and everything has been given to the engine."""
        return self._closed and not self._text.strip()

    def append(self, text: str, now: float) -> None:
        """Raises `ProtocolError` where the stream takes no more text, `LimitError` where too much waits."""
        if self._closed or self.state.over:
            raise ProtocolError(f"is not active (state={self.state.value})")
        if len(self._text) + len(text) > TEXT:
            raise LimitError(f"more than {TEXT} characters are waiting to be said", code="too_long")
        self._since = self._since if self.pending else now
        self._text += text
        self.touched = self._appended = now

    def close(self, now: float) -> None:
        self._closed, self.touched = True, now
        if not self.state.over:
            self.state = State.CLOSED

    def end(self, state: State, now: float, error: str = "") -> None:
        """Over, in one of the states that are; the first one stands."""
        if not self.state.over:
            self.state, self.error, self._text, self.touched = state, error, "", now

    def played(self, ms: float, now: float) -> None:
        """`ms` of audio went to the listener."""
        self.listener.sent(ms, now)
        self.touched = now

    def expired(self, now: float, idle_s: float) -> bool:
        """Whether nobody has touched it for `idle_s`, counted from when the listener had heard everything."""
        return now - max(self.touched, self.listener.dry_at) >= idle_s

    def take(self, now: float) -> Segment | None:
        """The next segment, if one is worth saying now."""
        if self.state.over or not self.pending:
            return None
        self._cut(len(self._text) - len(self._text.lstrip()))
        ahead, offset = self.listener.ahead_ms(now), self._taken
        text = self._cut(self._first(now) if ahead < LOW_MS else self._later(ahead, now))
        if not text:
            return None
        self._last = text
        if not self._closed:
            self.state = State.GENERATING
        self.segments, self.touched, self._since = self.segments + 1, now, now
        return Segment(text.strip(), "batch" if self.segments > 1 and ahead >= BATCH_MS else "stream", offset)

    def put_back(self, now: float) -> None:
        """The segment that was taken last could not be said: it is to be taken again."""
        self._text, self._taken = self._last + self._text, self._taken - len(self._last)
        self._last, self.segments, self.touched = "", self.segments - 1, now

    def _cut(self, end: int) -> str:
        text, self._text = self._text[:end], self._text[end:]
        self._taken += end
        return text

    def next_look(self, now: float) -> float | None:
        """When `take` may have something to say although nothing was appended; None: it will not."""
        if not self.pending or self.state.over:
            return None
        moments = (
            self._since + WINDOW_S,
            self._appended + STILL_S,
            now + (self.listener.ahead_ms(now) - LOW_MS) / 1000,
        )
        return min((moment for moment in moments if moment > now), default=now + 0.01)

    def _first(self, now: float) -> int:
        """There is little to play: the first sentence, clause, or a few words."""
        for end, sentence in self._ends(now):
            if sentence or len(self._text[:end].split()) >= CLAUSE_WORDS:
                return end
        if self._still(now) or len(self._text) > LOOK:
            return self._all()
        whole = _last_space(self._text)  # the last word may not be complete
        enough = now - self._since >= WINDOW_S and len(self._text[:whole].split()) >= START_WORDS
        return whole if enough else 0

    def _later(self, ahead: float, now: float) -> int:
        """There is time: whole sentences, about as long as what the listener has in hand."""
        fitting = 0
        for end in (end for end, sentence in self._ends(now) if sentence):
            if fitting and len(self._text[:end].split()) * WORD_MS > ahead:
                break
            fitting = end
        if fitting:
            return fitting
        if self._closed or len(self._text) > LOOK:
            return self._all()
        return _last_space(self._text) if len(self._text.split()) > LONGEST_WORDS else 0

    def _all(self) -> int:
        """All there is, as far as one looks."""
        return len(self._text) if len(self._text) <= LOOK else _last_space(self._text[:LOOK]) or LOOK

    def _still(self, now: float) -> bool:
        return self._closed or now - self._appended >= STILL_S

    def _ends(self, now: float) -> Iterator[tuple[int, bool]]:
        """Where sentences (True) and clauses end, in order."""
        text, still, begin, at = self._text[:LOOK], self._still(now) and len(self._text) <= LOOK, 0, 0
        while at < len(text):
            mark, comma = next_mark(text, at), next_mark(text, at, clauses=True)
            if comma >= 0 and (comma < mark or mark < 0):
                if has_words(text, begin, comma) and judge_clause(text, comma, begin=begin) is Verdict.END:
                    yield comma + 1, False
                at = comma + 1
                continue
            if mark < 0:
                return
            at = past(text, mark)
            last = still and not text[at:].strip()
            if judge(text, mark, begin=begin, last=last) is Verdict.END:
                yield at, True
                begin = at


def _last_space(text: str) -> int:
    return next((at + 1 for at in range(len(text) - 1, -1, -1) if text[at].isspace()), 0)
