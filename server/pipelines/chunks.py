"""Where a chunk of a model's answer ends: `Stop` says when, `Cutter` finds the place. Pure."""

from collections import deque
from dataclasses import dataclass
from enum import StrEnum

from server.pipelines.boundaries import Verdict, judge, next_mark, past, quoted

CONTEXT = 400  # characters of what was said before that a boundary is judged by


@dataclass(frozen=True)
class Stop:
    """When a chunk ends: at what comes first. With neither set, at the end of the answer."""

    max_tokens: int | None = None
    sentence: bool = False


class Reason(StrEnum):
    """Why a chunk ended. After all but the first two the answer is over, unless `Generation.done` says otherwise."""

    MAX_TOKENS = "max_tokens"
    SENTENCE_BOUNDARY = "sentence_boundary"
    SENTENCE_BOUNDARY_EOS = "sentence_boundary_eos"
    EOS = "eos"
    STOP_WORD = "stop_word"
    EMPTY_RESPONSE = "empty_response"
    ALREADY_DONE = "already_done"
    CANCELLED = "cancelled"


class Cutter:
    """One chunk: push deltas, take what is surely part of it, until there is a `reason` and nothing to take.

    A delta that holds the end is cut there. `left` is what was not taken and begins the next chunk: the first token of
    the next sentence is never part of this one. `before`: what was said before of the sentence this chunk begins in."""

    def __init__(self, stop: Stop, before: str = "", *, language: str = "en") -> None:
        self.reason: Reason | None = None
        self.left: deque[str] = deque()
        self.read = self.taken = 0  # tokens
        self._stop, self._language = stop, language
        self._text = before[-CONTEXT:]
        self._begin = 0  # of the sentence at hand
        self._seen = self._sure = self._taken = len(self._text)  # judged, certain, and handed out up to here

    @property
    def sentence(self) -> str:
        """What was taken so far of the sentence this chunk ends in."""
        return self._text[self._begin : self._taken]

    def push(self, delta: str) -> None:
        """Not to be called once there is a `reason`."""
        self._text += delta
        self.left.append(delta)
        self.read += 1
        self._sure = self._look()
        if self.reason is None and self.read == self._stop.max_tokens:
            self._sure, self.reason = len(self._text), Reason.MAX_TOKENS

    def finish(self, finish: str | None) -> None:
        """The answer is over, for the reason the server gives (see `Answer.finish`)."""
        self._sure = len(self._text)
        match finish:
            case "length":
                self.reason = Reason.MAX_TOKENS
            case "stop_word":
                self.reason = Reason.STOP_WORD
            case _:
                self.reason = Reason.SENTENCE_BOUNDARY_EOS if self._stop.sentence and self._ended() else Reason.EOS

    def take(self) -> str | None:
        """The next delta that is surely part of the chunk."""
        certain = self._sure - self._taken
        if not self.left or certain <= 0 or (certain < len(self.left[0]) and self.reason is None):
            return None
        delta = self.left.popleft()
        if delta[certain:]:
            self.left.appendleft(delta[certain:])
        self._taken += len(delta[:certain])
        self.taken += 1
        return delta[:certain]

    def _look(self) -> int:
        """Judge the marks that came; up to where the text is surely part of this chunk."""
        while (mark := next_mark(self._text, self._seen)) >= 0:
            end = past(self._text, mark)
            verdict = judge(self._text, mark, begin=max(self._begin, mark - CONTEXT), language=self._language)
            if verdict is Verdict.WAIT:
                self._seen = mark
                return end if self._stop.sentence else len(self._text)
            self._seen = end
            if verdict is Verdict.END and not quoted(self._text, self._begin, end):
                self._begin = end
                if self._stop.sentence:
                    self.reason = Reason.SENTENCE_BOUNDARY
                    return end
        self._seen = len(self._text)
        return self._seen

    def _ended(self) -> bool:
        """Whether the text as it stands ends with a sentence."""
        text = self._text.rstrip()
        mark = min(self._seen, len(text))
        while (mark := next_mark(text, mark)) >= 0 and past(text, mark) < len(text):
            mark = past(text, mark)
        if mark < 0:
            return False
        verdict = judge(text, mark, begin=max(self._begin, mark - CONTEXT), last=True, language=self._language)
        return verdict is Verdict.END and not quoted(text, self._begin, len(text))
