"""Where sentences end: one verdict for one mark in a text. Pure; the rules are stream2sentence's, its traps mended.

Mended: numbered lists are not split after "2.", a line that goes on in lower case is no new sentence, the text looked
at is bounded (so a verdict costs the same in a text of any length), and punctuation alone is no sentence.
Source: stream2sentence 1.1, `quick_yield_boundary`.
"""

import re
from enum import Enum
from functools import cache
from typing import Any

from stream2sentence.quick_yield_boundary import HOLD, SPLIT, get_boundary_detector

MARKS = ".?!。！？؟।۔…\n"
CLOSERS = "\"'”’)]}»›」』）】〕》〉*_`~"
CLAUSES = ",;:–—，、；："

_TERMINAL = re.compile(f"[{re.escape(MARKS)}]")
_CLAUSE = re.compile(f"[{re.escape(CLAUSES)}]")
_RUN = re.compile(rf"[{re.escape(MARKS[:-1])}]+[{re.escape(CLOSERS)}]*|\n\s*")
_LIST_MARKER = re.compile(r"(?:^|[\n:])[\s*•-]*(?:\d{1,3}|[A-Za-z]|[ivxIVX]{1,4})$")
_CLOSED_BY = {'"': '"', "“": "”", "„": "“”", "«": "»", "(": ")", "「": "」", "『": "』", "（": "）", "【": "】"}
_QUOTES = frozenset("".join(a + b for a, b in _CLOSED_BY.items()))
_LONGEST_QUOTE = 240  # characters: a quote open for longer was no quote
_WINDOW = 100  # characters looked at on either side of a mark


class Verdict(Enum):
    """What a mark is. WAIT: the text that follows must be seen first."""

    END = "end"
    WAIT = "wait"
    INSIDE = "inside"


@cache
def _detector(language: str) -> Any:
    return get_boundary_detector(language)


def next_mark(text: str, start: int, *, clauses: bool = False) -> int:
    """Where the next mark that may end a sentence (or a clause) stands at or after `start`; -1 where there is none."""
    found = (_CLAUSE if clauses else _TERMINAL).search(text, start)
    return found.start() if found else -1


def past(text: str, mark: int) -> int:
    """The first position after the mark at `mark`, the marks right behind it, and the brackets they close."""
    run = _RUN.match(text, mark)
    return run.end() if run else mark + 1


def judge(text: str, mark: int, *, begin: int = 0, last: bool = False, language: str = "en") -> Verdict:
    """Whether the sentence that began at `begin` ends with the mark at `mark`.

    `last`: nothing is known to follow, so what may be an end is one ("Dr." and "3." are not)."""
    end = past(text, mark)
    if not has_words(text, begin, mark):
        return Verdict.INSIDE
    if text[mark] == "\n":
        return _line(text, mark, begin, last)
    if end == len(text) and not last:
        return Verdict.WAIT
    if text[mark] == "." and _counts_item(text, begin, mark):
        return Verdict.INSIDE
    if text[mark] == "…":
        return _ellipsis(text, end, last)
    return _ruled(text, mark, end, begin, last, language)


def judge_clause(text: str, mark: int, *, begin: int = 0, language: str = "en") -> Verdict:
    """Whether a clause ends with the comma, colon, semicolon or dash at `mark`, so that speech may pause there."""
    if text[mark] in "，、；：":
        return Verdict.END
    if mark + 1 == len(text):
        return Verdict.WAIT
    if not text[mark + 1].isspace():
        return Verdict.INSIDE
    return _ruled(text, mark, mark + 1, begin, False, language)


def has_words(text: str, begin: int, end: int) -> bool:
    """Whether anything between is a letter or a digit of any script."""
    return any(map(str.isalnum, text[begin:end]))


def quoted(text: str, begin: int, at: int) -> bool:
    """Whether `text[begin:at]` leaves a quote or a bracket open that is not too old to be closed any more."""
    opened: list[tuple[str, int]] = []
    for i in range(begin, at):
        char = text[i]
        if char not in _QUOTES:
            continue
        if opened and char in _CLOSED_BY[opened[-1][0]]:
            opened.pop()
        elif char in _CLOSED_BY and (char != '"' or i == begin or not text[i - 1].isalnum()):
            opened.append((char, i))
    return any(at - i < _LONGEST_QUOTE for _, i in opened)


def _counts_item(text: str, begin: int, mark: int) -> bool:
    # "2." at the start of a piece, a line, or after a colon counts an item; after words it ends a sentence.
    return bool(_LIST_MARKER.search(text[max(begin, mark - _WINDOW) : mark]))


def _line(text: str, mark: int, begin: int, last: bool) -> Verdict:
    end = past(text, mark)
    item = text[max(begin, mark - _WINDOW) : mark].rstrip()
    if item.endswith(".") and _LIST_MARKER.search(item[:-1]):
        return Verdict.INSIDE
    if end == len(text):
        return Verdict.END if last or text.count("\n", mark, end) > 1 else Verdict.WAIT
    return Verdict.INSIDE if text[end].islower() and text.count("\n", mark, end) == 1 else Verdict.END


def _ellipsis(text: str, end: int, last: bool) -> Verdict:
    rest = text[end : end + _WINDOW].lstrip()
    if not rest:
        return Verdict.END if last else Verdict.WAIT
    return Verdict.INSIDE if rest[0].islower() or rest[0] in "," else Verdict.END


def _ruled(text: str, mark: int, end: int, begin: int, last: bool, language: str) -> Verdict:
    left, right = max(begin, mark - _WINDOW), mark + _WINDOW
    following = text[end] if end < len(text) else None
    action = _detector(language).classify(text[left:right], mark - left, following, allow_terminal_end=last)
    if action == SPLIT:
        return Verdict.END
    return Verdict.WAIT if action == HOLD and not last else Verdict.INSIDE
