"""What a model writes, made fit to be shown and spoken: without tags, names before lines, markdown, thoughts. Pure.

What comes out does not depend on how the text was cut into deltas; plain prose comes out as it went in, at once.
"""

import re
import unicodedata
from collections.abc import Sequence
from typing import NamedTuple

THOUGHTS = ("think", "thinking", "thought", "reasoning")
DIRECTIONS = """blinks blushes chuckles clears coughs exhales frowns gasps gestures giggles glances grimaces grins
groans hums inhales laughs mumbles mutters nods scoffs shrugs sighs smiles smirks sniffs snorts whispers whistles winks
yawns"""
LONGEST_DIRECTION = 120  # characters between the asterisks

_DIRECTIONS = frozenset(DIRECTIONS.split())
_PLAIN = re.compile(r"[^<*_`~\[\n]+")
_LINK = re.compile(r"\[([^\[\]\n]{1,200})\]\([^()\n]{0,500}\)")
_LINK_BEGUN = re.compile(r"\[[^\[\]\n]{0,200}(?:\](?:\([^()\n]{0,500})?)?")
_LINE = re.compile(r"(?:[-*+•]|#{1,6}|>)[ \t]|```[^`\n]{0,40}\n|([-*_])\1{2,}[ \t]*\n")
_LINE_BEGUN = re.compile(r"[-*+•]|#{1,6}|>|`{1,2}|```[^`\n]{0,40}|([-*_])\1+[ \t]*")
_RULE = re.compile(r"([-*_])\1{2,}[ \t]*|```\w*")
_WORD = re.compile(r"[^\W\d_]{1,24}")


class Step(NamedTuple):
    """How far one step takes, what it says, and whether what it says nothing of left a gap."""

    end: int
    said: str = ""
    gap: bool = False


class Prose:
    """A streaming filter. `names`: the characters whose tags and "Name:" at the start of a line are taken out.

    `directions`: whether *stage directions* stay, without their asterisks; *emphasis* always stays."""

    def __init__(self, names: Sequence[str] = (), *, directions: bool = False) -> None:
        lowered = [name.strip().lower() for name in names if name.strip()]
        self._leads = [f"{name}{end}" for name in lowered for end in (":", "：", " :", "**:", "*:")]
        self._tags = [f"<{a}{name}{b}>" for name in (*lowered, *THOUGHTS) for a, b in _TAG_FORMS]
        self._directions = directions
        self._held = ""  # what cannot be judged yet
        self._thought = ""  # the tag that ends the thought we are in
        self._line_start = True
        self._gap = False  # something was taken out: of the spaces around it one side is enough
        self._open = {"*": False, "_": False}
        self._before = ""  # the character before, as written
        self._said = "\n"  # the last one released, and the last one that is neither space nor quote
        self._last = "\n"
        self._silent = True  # nothing is released yet

    def push(self, delta: str) -> str:
        """What can be released after `delta`. Held back is only what may be the start of something to take out."""
        self._held += delta
        return self._run(last=False)

    def close(self) -> str:
        """The text is over: the rest of it."""
        return self._run(last=True)

    def _run(self, *, last: bool) -> str:
        text, at, out = self._held, 0, []
        while at < len(text) and (step := self._step(text, at, last)):
            out.append(self._release(step))
            self._before = text[step.end - 1]
            at = step.end
        self._held = text[at:]
        return "".join(out)

    def _release(self, step: Step) -> str:
        if step.gap and self._said.isspace():
            self._gap = True
        said = step.said
        if self._gap:
            said = said.lstrip() if self._silent else said.lstrip(" \t")
        if said:
            self._gap = self._silent = False
            self._said = said[-1]
            self._line_start = said.isspace() if self._line_start else False
            if bare := said.rstrip(" \t"):
                self._line_start = self._line_start or bare[-1] == "\n"
            if solid := said.rstrip(" \t\"'”’»)"):
                self._last = solid[-1]
        return said

    def _step(self, text: str, at: int, last: bool) -> Step | None:
        if self._thought:
            return self._in_thought(text, at, last)
        if self._line_start:
            start = _skip_blanks(text, at)
            if start == len(text):
                return Step(start, text[at:]) if last else None
            if lead := self._lead(text, start, last):
                return lead if lead.end else None
            if start > at:
                return Step(start, text[at:start])
        if plain := _PLAIN.match(text, at):
            return Step(plain.end(), plain.group())
        if text[at] == "\n":
            return Step(at + 1, "\n")
        return _RULES[text[at]](self, text, at, last)

    def _lead(self, text: str, at: int, last: bool) -> Step | None:
        """What is taken out at the start of a line. `Step(0)`: it may be something, more must be seen."""
        if mark := _LINE.match(text, at) or (_RULE.fullmatch(text, at) if last else None):
            return Step(mark.end(), gap=True)
        name, begun = _variant(self._leads, text, at)
        if name:
            return Step(at + len(name), gap=True)
        begun = begun or bool(_LINE_BEGUN.fullmatch(text, at))
        return Step(0) if begun and not last else None

    def _in_thought(self, text: str, at: int, last: bool) -> Step | None:
        if closed := re.compile(re.escape(self._thought), re.IGNORECASE).search(text, at):
            self._thought = ""
            return Step(closed.end(), gap=True)
        end = len(text) if last else max(at, len(text) - len(self._thought) + 1)
        return Step(end) if end > at else None

    def _tag(self, text: str, at: int, last: bool) -> Step | None:
        tag, begun = _variant(self._tags, text, at)
        if tag:
            self._thought = f"</{tag[1:]}" if tag[1:-1] in THOUGHTS else ""
            return Step(at + len(tag), gap=True)
        return None if begun and not last else Step(at + 1, "<")

    def _link(self, text: str, at: int, last: bool) -> Step | None:
        if link := _LINK.match(text, at):
            return Step(link.end(), re.sub(r"[*`]|(?<!\w)_|_(?!\w)", "", link[1]))
        return None if _LINK_BEGUN.fullmatch(text, at) and not last else Step(at + 1, "[")

    def _tilde(self, text: str, at: int, last: bool) -> Step | None:
        end = _run_end(text, at)
        if end == len(text) and not last:
            return None
        return Step(end, "~" if end - at == 1 else "")

    def _backtick(self, text: str, at: int, last: bool) -> Step | None:
        return Step(_run_end(text, at))

    def _underscore(self, text: str, at: int, last: bool) -> Step | None:
        end = _run_end(text, at)
        if end == len(text) and not last:
            return None
        within, follows = self._before.isalnum(), text[end : end + 1].isalnum()
        closes = self._open["_"] and not follows and not self._before.isspace()
        opens = not within and follows
        if not (closes or opens):
            return Step(end, text[at:end])
        self._open["_"] = opens
        return Step(end)

    def _star(self, text: str, at: int, last: bool) -> Step | None:
        end = _run_end(text, at)
        if end == len(text) and not last:
            return None
        following = text[end : end + 1]
        if end - at > 1:
            power = self._before.isdigit() and following.isdigit()
            return Step(end, text[at:end] if power else "")
        if self._open["*"] and not self._before.isspace():
            self._open["*"] = False
            return Step(end)
        if not following.strip() or self._before.isalnum():
            return Step(end, "*")
        return self._opened_star(text, at, last)

    def _opened_star(self, text: str, at: int, last: bool) -> Step | None:
        """An asterisk that opens emphasis or a stage direction."""
        word = _WORD.match(text, at + 1)
        if word and word.end() == len(text) and len(word[0]) < 24 and not last:
            return None
        if not (word and self._directs(word[0])):
            self._open["*"] = True
            return Step(at + 1)
        close, line = (text.find(c, at + 1, at + 2 + LONGEST_DIRECTION) for c in "*\n")
        if close < 0 or 0 <= line < close:
            if line < 0 and len(text) < at + 2 + LONGEST_DIRECTION and not last:
                return None
            self._open["*"] = line < 0
            return Step(at + 1)
        return Step(close + 1, text[at + 1 : close]) if self._directions else Step(close + 1, gap=True)

    def _directs(self, word: str) -> bool:
        # "*smiles* Hello": in lower case where a sentence should begin. Within one only what nobody would stress.
        return word.lower() in _DIRECTIONS or (word[0].islower() and self._last in ".?!…\n")


_TAG_FORMS = (("", ""), ("/", ""), ("", "/"), ("", ":"))
_RULES = {
    "<": Prose._tag,
    "[": Prose._link,
    "*": Prose._star,
    "_": Prose._underscore,
    "`": Prose._backtick,
    "~": Prose._tilde,
}


def _variant(variants: Sequence[str], text: str, at: int) -> tuple[str, bool]:
    """The one of `variants` (in lower case) that stands at `at`, and whether one of them may have begun there."""
    longest = max(map(len, variants), default=0)
    here = text[at : at + longest].lower()
    found = next((v for v in variants if here.startswith(v)), "")
    return found, len(text) - at < longest and any(v.startswith(here) for v in variants)


def _run_end(text: str, at: int) -> int:
    end = at + 1
    while end < len(text) and text[end] == text[at]:
        end += 1
    return end


def _skip_blanks(text: str, at: int) -> int:
    while at < len(text) and text[at] in " \t":
        at += 1
    return at


class _Speakable(dict[int, str]):
    """Every character to itself or to a space, worked out once."""

    def __missing__(self, code: int) -> str:
        char = chr(code)
        self[code] = " " if _unspeakable(char) else char
        return self[code]


def _unspeakable(char: str) -> bool:
    if char in "*_`~|^\\{}[]<>•\ufeff\u200b\u20e3" or "\ufe00" <= char <= "\ufe0f" or "\u2190" <= char <= "\u21ff":
        return True
    return unicodedata.category(char) in ("So", "Sk", "Cc", "Cs", "Co", "Cn") and char not in "°№℃℉\n"


_SPEAKABLE = _Speakable()
_LOOSE_JOINER = re.compile("(?<= )\u200d|\u200d(?= )")


def speakable(text: str) -> str:
    """`text` at the same length, emoji and what no voice can say replaced by spaces one for one, so that the offsets
    of words stay valid."""
    return _LOOSE_JOINER.sub(" ", text.translate(_SPEAKABLE))
