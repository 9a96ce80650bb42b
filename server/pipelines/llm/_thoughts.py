"""The thoughts of reasoning models, taken out of the beginning of what they write. Pure."""

import re

_OPEN = re.compile(r"\s*<(think|thinking|thought|reasoning)>", re.IGNORECASE)
_BEGUN = re.compile(r"\s*(?:<[a-z]{0,9})?", re.IGNORECASE)
_LONGEST = len("</reasoning>")


class Thoughts:
    """A streaming filter for one answer: a leading `<think>…</think>` and the space after it do not come out.

    `begun`: the answer itself had begun before, so nothing is taken out."""

    def __init__(self, *, begun: bool = False) -> None:
        self._held = ""
        self._closing: re.Pattern[str] | None = None  # while in a thought
        self._passed = begun  # the answer itself has begun
        self._strip = False

    def push(self, delta: str) -> str:
        """What of the answer can be released."""
        if self._passed:
            return delta
        self._held += delta
        if self._closing is None and (opened := _OPEN.match(self._held)):
            self._closing = re.compile(f"</{opened[1]}>", re.IGNORECASE)
            self._held = self._held[opened.end() :]
        if self._closing is not None:
            return self._inside(self._closing)
        return "" if _BEGUN.fullmatch(self._held) else self._pass()

    def close(self) -> str:
        """The answer is over: what was held back, unless it is a thought."""
        return "" if self._passed or self._closing else self._pass()

    def _inside(self, closing: re.Pattern[str]) -> str:
        closed = closing.search(self._held)
        if closed is None:
            self._held = self._held[-_LONGEST:]
            return ""
        self._held, self._closing, self._strip = self._held[closed.end() :], None, True
        return self.push("") if self._held.strip() else ""

    def _pass(self) -> str:
        self._passed = True
        held, self._held = self._held, ""
        return held.lstrip() if self._strip else held
