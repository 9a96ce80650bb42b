"""What was heard of a text: sentences with the times of their words, split at a moment of playback. Pure."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from server.pipelines.engines import Word

MS_PER_CHARACTER = 65.0  # ordinary speech; for a sentence whose length is not known yet


@dataclass
class Spoken:
    """One sentence on its reply's timeline. `words` are the engine's timings, from the sentence's beginning;
    `end_ms` is None while it is still being made."""

    text: str
    start_ms: float
    end_ms: float | None = None
    words: list[Word] = field(default_factory=list)

    def heard(self, ms: float) -> int:
        """How many of its characters had sounded at `ms` of the reply: whole words, each from its middle on."""
        if self.end_ms is not None and ms >= self.end_ms:
            return len(self.text)
        if self.words:
            latest = {word.start: word for word in self.words}.values()
            sounded = [w.end for w in latest if self.start_ms + (w.start_ms + w.end_ms) / 2 <= ms]
            return max(sounded, default=0)
        return self._in_proportion(ms)

    def _in_proportion(self, ms: float) -> int:
        length = (self.end_ms or self.start_ms + len(self.text) * MS_PER_CHARACTER) - self.start_ms
        reached = len(self.text) * (ms - self.start_ms) / max(length, 1.0)
        return max((w.end() for w in re.finditer(r"\S+", self.text) if (w.start() + w.end()) / 2 <= reached), default=0)


def split_at(spoken: Sequence[Spoken], text: str, ms: float, *, complete: bool) -> tuple[str, str]:
    """`text` (all that was written, sentences in order) cut where the listener was at `ms`: heard, unheard.

    `complete`: everything that was spoken has been heard, whatever the clocks say."""
    place = 0
    for sentence in spoken:
        begin = text.find(sentence.text, place)
        if begin < 0:  # a sentence that was tidied on the way: take the lengths for the places
            begin = place
        count = len(sentence.text) if complete else sentence.heard(ms)
        if count:
            place = min(len(text), begin + count)
        if count < len(sentence.text):
            break
    if place and (mark := re.match(r"[^\w\s]+", text[place:])):  # what is written against a word goes with it
        place += mark.end()
    return text[:place].strip(), text[place:].strip()
