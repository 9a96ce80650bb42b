"""An engine's words as the words of the text, so that pipecat finds in its context what was heard. Pure."""

import re
from collections.abc import Iterable

from server.clients.speech import SpokenWord

_TOKEN = re.compile(r"\S+")
WORD_S = 0.35  # how long a word takes, about, where no engine says


class Tokens:
    """The words of a text, with the marks that stand on them, each told once and in order with its time in seconds."""

    def __init__(self, text: str = "") -> None:
        self.text = text
        self._upto = 0

    def add(self, text: str) -> None:
        """More text behind what there is."""
        self.text += text

    def at(self, words: Iterable[SpokenWord], offset_s: float = 0.0) -> list[tuple[str, float]]:
        """What `words` (which may be parts of words, or several) say of the text."""
        found = []
        for word in words:
            for token in _TOKEN.finditer(self.text, self._upto):
                if token.start() >= word.end:
                    break
                share = max(0, token.start() - word.start) / max(1, word.end - word.start)
                at = word.start_ms + share * (word.end_ms - word.start_ms)
                found.append((token.group(), offset_s + at / 1000))
                self._upto = token.end()
        return found

    def rest(self, begin_s: float, end_s: float) -> list[tuple[str, float]]:
        """What was not told yet, evenly between two times: for engines that time no words."""
        tokens = _TOKEN.findall(self.text, self._upto)
        self._upto = len(self.text)
        step = max(0.0, end_s - begin_s) / max(1, len(tokens))
        return [(token, begin_s + number * step) for number, token in enumerate(tokens)]
