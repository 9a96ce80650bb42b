"""An engine's words as the words of the text, so that pipecat finds in its context what was heard. Pure."""

import re
from collections.abc import Iterable

from server.clients.speech import SpokenWord

_TOKEN = re.compile(r"\S+")
Times = list[tuple[str, float]]  # words, and where in the audio each begins, in seconds
WORD_S = 0.35  # how long a word takes, about, where no engine says


class Playout:
    """When the audio of a stream sounds, which is played as it comes and may run dry in between. Times in seconds."""

    def __init__(self) -> None:
        self.made_s = 0.0
        self._dry_at: float | None = None
        self._late = [(0.0, 0.0)]  # from which place in the audio on it sounds how much later

    def add(self, seconds: float, now: float) -> None:
        """So much more audio has come."""
        if self._dry_at is not None and now > self._dry_at:
            self._late.append((self.made_s, self._late[-1][1] + now - self._dry_at))
        self._dry_at = max(self._dry_at or now, now) + seconds
        self.made_s += seconds

    def at(self, place_s: float) -> float:
        """When the audio at `place_s` sounds, from the beginning of the first."""
        return place_s + next(late for place, late in reversed(self._late) if place <= place_s + 1e-6 or not place)


class Tokens:
    """The words of a text, with the marks that stand on them, each told once and in order with its time in seconds."""

    def __init__(self, text: str = "") -> None:
        self.text = text
        self._upto = 0
        self._told_s = 0.0  # when the last one that was told sounds

    def add(self, text: str) -> None:
        """More text behind what there is."""
        self.text += text

    def at(self, words: Iterable[SpokenWord], offset_s: float = 0.0) -> Times:
        """What `words` (which may be parts of words, or several) say of the text."""
        found = []
        for word in words:
            for token in _TOKEN.finditer(self.text, self._upto):
                if token.start() >= word.end:
                    break
                share = max(0, token.start() - word.start) / max(1, word.end - word.start)
                at = word.start_ms + share * (word.end_ms - word.start_ms)
                found.append((token.group(), offset_s + at / 1000))
                self._upto, self._told_s = token.end(), found[-1][1]
        return found

    def rest(self, begin_s: float, end_s: float) -> Times:
        """What was not told yet, evenly between two times, behind what was: for engines that time no words."""
        tokens = _TOKEN.findall(self.text, self._upto)
        self._upto, begin_s = len(self.text), max(begin_s, self._told_s)
        step = max(0.0, end_s - begin_s) / max(1, len(tokens))
        return [(token, begin_s + number * step) for number, token in enumerate(tokens)]
