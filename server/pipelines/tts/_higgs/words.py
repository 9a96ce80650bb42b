"""When each word sounds, guessed from the text's length and the sound's loud parts. Pure.

The model gives no timings. Time is shared out by characters, over the sound that is not silence: so a pause stays a
pause and the words after it are not dragged along. While the utterance runs its length is guessed from how the voice
spoke before; its last piece corrects every word."""

import re
from typing import Literal

import numpy as np
import numpy.typing as npt

from server.pipelines.engines import Word

STEP_MS = 10.0
Curve = npt.NDArray[np.float64]

QUIET = 0.05  # of the loudest step: below it is a pause
CHARACTER_MS = 60.0  # of loud sound, before a voice is known
CREDIT = 40  # characters that this first guess counts for


class Habit:
    """How long a character takes in one voice, of loud sound, learnt from what it said."""

    def __init__(self) -> None:
        self._ms, self._characters = CHARACTER_MS * CREDIT, float(CREDIT)

    @property
    def character_ms(self) -> float:
        return self._ms / self._characters

    def learn(self, timings: "Timings") -> None:
        """Take a whole utterance into account."""
        loud_ms, characters = timings.measured()
        self._ms, self._characters = self._ms + loud_ms, self._characters + characters


class Timings:
    """The words of one utterance. `hear` its sound piece by piece; then ask. `character_ms`: the voice's usual one."""

    def __init__(self, text: str, rate: int, character_ms: float = CHARACTER_MS) -> None:
        self._character_ms = character_ms
        self._words = [match.span() for match in re.finditer(r"\S+", text)]
        self._step = int(rate * STEP_MS / 1000)
        self._rest = np.empty(0, np.float32)
        self._levels: list[float] = []
        self._told = 0

    def hear(self, samples: npt.NDArray[np.float32]) -> None:
        """Take the next piece of sound."""
        sound = np.concatenate([self._rest, samples])
        whole = len(sound) // self._step * self._step
        steps = sound[:whole].reshape(-1, self._step)
        self._levels.extend(np.sqrt((steps**2).mean(axis=1)).tolist())
        self._rest = sound[whole:]

    def known(self) -> tuple[Word, ...]:
        """The words that have sounded since the last call, at the voice's usual rate."""
        curve = self._curve()
        expected = self._characters() * self._character_ms / STEP_MS
        words = self._spread(curve, max(expected, curve[-1]))
        heard = len(self._levels) * STEP_MS
        ready = [word for word in words if word.end_ms <= heard][self._told :]
        self._told += len(ready)
        return tuple(ready)

    def final(self) -> tuple[Word, ...]:
        """All words, spread over the sound as long as it came to be."""
        curve = self._curve()
        return self._spread(curve, curve[-1])

    def measured(self) -> tuple[float, int]:
        """The ms of loud sound so far, and the characters of all words."""
        return float(self._curve()[-1]) * STEP_MS, self._characters()

    def _characters(self) -> int:
        return sum(end - start for start, end in self._words)

    def _curve(self) -> Curve:
        """How many loud steps there were before each step, and before what comes next."""
        levels = np.asarray(self._levels)
        loud = levels > QUIET * levels.max(initial=0)
        return np.concatenate([[0], np.cumsum(loud if loud.any() else np.ones_like(loud))]).astype(np.float64)

    def _spread(self, curve: Curve, steps: float) -> tuple[Word, ...]:
        """The words over `steps` loud steps, by characters."""
        share = steps / max(1, self._characters())
        words, said = [], 0
        for start, end in self._words:
            begin_ms = _at(curve, said * share, "right")
            said += end - start
            words.append(Word(start, end, begin_ms, max(begin_ms, _at(curve, said * share, "left"))))
        return tuple(words)


def _at(curve: Curve, loud: float, side: Literal["left", "right"]) -> float:
    """The ms when `loud` loud steps have sounded: before a pause ("left") or after it. What is still to come is taken
    to be loud."""
    index = min(int(np.searchsorted(curve, loud, side)), len(curve))
    before = max(0, index - 1)
    return float(before + loud - curve[before]) * STEP_MS
