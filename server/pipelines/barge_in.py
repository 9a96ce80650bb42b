"""Barge-in: is what the user does while a reply sounds an interruption, or may the reply go on? Pure.

The reply was paused at the first sign of voice, so waiting costs the user nothing; a wrong verdict does.
"""

import re
from collections.abc import Collection
from enum import Enum, auto

from pydantic import BaseModel, ConfigDict, Field

BACKCHANNELS: dict[str, tuple[str, ...]] = {
    "en": (
        "mhm", "mm", "mmm", "mm hmm", "hm", "hmm", "uh huh", "uh", "um", "ah", "aha", "oh", "yeah", "yep", "yes", "yup",
        "right", "okay", "ok", "i see", "sure", "got it", "exactly", "wow", "really", "cool", "nice", "true", "indeed",
    ),
    "de": ("mhm", "hm", "äh", "ähm", "ja", "jaja", "genau", "okay", "ok", "stimmt", "ach so", "aha", "klar", "gut"),
    "fr": ("mhm", "hm", "euh", "oui", "ouais", "d'accord", "ok", "ah", "je vois", "bien", "voilà", "exactement"),
    "es": ("mhm", "eh", "sí", "si", "vale", "ya", "claro", "ajá", "bueno", "exacto", "ok", "entiendo"),
}  # fmt: skip

# Words that nobody cuts in with alone; recognisers make them of hums, breaths and coughs.
PARTICLES: dict[str, tuple[str, ...]] = {
    "en": ("a", "an", "and", "but", "hum", "huh", "if", "in", "it", "of", "the", "to", "h", "m", "n"),
    "de": ("der", "die", "das", "und", "in", "es", "ein"),
    "fr": ("le", "la", "et", "un", "de", "à"),
    "es": ("el", "la", "y", "un", "de", "a"),
}


class InterruptRules(BaseModel):
    """What it takes to interrupt.

    `speaking`, `thinking`: whether the voice may interrupt at all in that phase. `min_ms`: voiced time after which it
    is speech, and its words count; before, they are a guess (a cough makes words, too), and only the text of the whole,
    in the lull after it, decides. `min_words`: words, beyond backchannels, that it takes; 0: one, or `min_ms` of voice
    without any. `backchannels`: words that never interrupt, by language or for all; a language not named has its own
    list.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    speaking: bool = True
    thinking: bool = True
    min_ms: float = Field(900, ge=0, le=10_000)
    min_words: int = Field(0, ge=0, le=20)
    backchannels: tuple[str, ...] | dict[str, tuple[str, ...]] = {}

    def listed(self, language: str) -> tuple[str, ...]:
        """The backchannels in force for `language` ("en", "en-US")."""
        if isinstance(self.backchannels, tuple):
            return self.backchannels
        return (BACKCHANNELS | self.backchannels).get(_base(language), ())

    def words(self, text: str, language: str) -> list[str]:
        """The words of `text` that may interrupt."""
        words = content(text, self.listed(language))
        particles = PARTICLES.get(_base(language), ())
        return [] if all(word in particles for word in words) else words


def _base(language: str) -> str:
    return language.split("-")[0].lower()


class Verdict(Enum):
    WAIT = auto()
    INTERRUPT = auto()
    RESUME = auto()


def plain(text: str) -> list[str]:
    """The words of `text`, lower-case, without punctuation."""
    return re.findall(r"[^\W_]+(?:['’][^\W_]+)*", text.lower())


def content(text: str, backchannels: Collection[str]) -> list[str]:
    """The words of `text` that are no backchannel; phrases ("uh huh") are matched longest first."""
    words, left = plain(text), []
    phrases = sorted((plain(b) for b in backchannels), key=len, reverse=True)
    while words:
        if match := next((p for p in phrases if words[: len(p)] == p), None):
            words = words[len(match) :]
        else:
            left.append(words.pop(0))
    return left


def judge(rules: InterruptRules, language: str, text: str, *, voiced_ms: float, over: bool) -> Verdict:
    """The verdict on `voiced_ms` of voice, of which `text` was understood; when it is `over`, never WAIT."""
    enough = over or voiced_ms >= rules.min_ms
    if len(rules.words(text, language)) >= max(1, rules.min_words):
        return Verdict.INTERRUPT if enough else Verdict.WAIT
    if over:
        return Verdict.RESUME
    wordless = not text.strip() and rules.min_words == 0
    return Verdict.INTERRUPT if wordless and enough else Verdict.WAIT
