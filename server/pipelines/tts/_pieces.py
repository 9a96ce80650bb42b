"""Long texts in pieces that an engine makes in one go, each at its offset. Pure.

One call of an engine cannot be suspended without keeping its thread, so its audio is buffered whole; what bounds that
buffer is the length of the text of one call.
"""

import re

_QUIET = frozenset(".,;:!?'\"()-–—…’“”")
_ENDS = (re.compile(r"[.!?…。！？]+[\"'”’)]*\s+"), re.compile(r"[,;:—、，；：]\s*"), re.compile(r"\s+"))


COSTLIEST = 12  # letters that one character may sound like


def pieces(text: str, limit: int) -> list[tuple[int, str]]:
    """`text` cut at the end of a sentence, else of a clause, else of a word, else anywhere, into pieces that take about
    as long to say as `limit` letters. One that is short enough stays whole. `(offset, piece)` each, in order."""
    if len(text) * COSTLIEST <= limit:
        return [(0, text)] if text else []
    cut: list[tuple[int, str]] = []
    start = 0
    while start < len(text):
        end = _reach(text, start, limit)
        if end < len(text):
            end = _boundary(text, start, end)
        cut.append((start, text[start:end]))
        start = end
    return cut


def speakable(text: str) -> bool:
    """Whether there is a letter or a digit in `text`."""
    return any(c.isalnum() for c in text)


def _reach(text: str, start: int, limit: int) -> int:
    for end in range(start, len(text)):
        limit -= _cost(text[end])
        if limit < 0:
            return max(end, start + 1)
    return len(text)


def _cost(char: str) -> int:
    """How many letters it sounds like: a digit is a word ("7"), a symbol may be several ("€", an emoji)."""
    if char.isdigit():
        return 6
    if char.isalpha():
        return 1 if char < "\u2e80" else 4  # an ideograph is a syllable
    return 1 if char.isspace() or char in _QUIET else COSTLIEST


def _boundary(text: str, start: int, end: int) -> int:
    for pattern in _ENDS:
        if found := [m.end() for m in pattern.finditer(text, start, end)]:
            return found[-1]
    return end
