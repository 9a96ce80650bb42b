"""The turn machine: voice probabilities in, the shape of the user's turn out. Pure; its clock is the audio itself.

    QUIET --voice--> RISING --enough of it--> TALKING <--voice-- LULL --long enough--> QUIET
                       `--gone--> QUIET          `--silence-->--'

An onset is told at the first voiced frame, so that a reply can pause at once; that it was speech is told when enough
frames were voiced. A lull is told early, so that an answer may be prepared; voice that returns rejoins the same turn.
"""

from dataclasses import dataclass
from enum import Enum, auto
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

UNDECIDED = 10  # times `confirm_ms`: what is neither voice nor silence for so long is no speech


class TurnRules(BaseModel):
    """When a turn begins and ends. Times in ms, `start` and `stop` in probability (hysteresis)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    mode: Literal["auto", "manual"] = "auto"
    silence_ms: float = Field(500, ge=100, le=10_000)
    speculative: bool = True
    speculate_ms: float = Field(150, ge=32, le=5_000)
    confirm_ms: float = Field(96, ge=32, le=1_000)
    start: float = Field(0.5, gt=0, lt=1)
    stop: float = Field(0.35, gt=0, lt=1)
    complete_ms: float = Field(250, ge=100, le=10_000)
    incomplete_ms: float = Field(1_500, ge=100, le=20_000)
    max_ms: float = Field(60_000, ge=1_000)

    @model_validator(mode="after")
    def _hysteresis(self) -> Self:
        if self.stop > self.start:
            raise ValueError("stop should not be greater than start")
        return self


@dataclass(frozen=True)
class Onset:
    """The first sign of voice."""

    at_ms: float


@dataclass(frozen=True)
class FalseStart:
    """The onset came to nothing."""

    at_ms: float


@dataclass(frozen=True)
class Started:
    """It is speech; it began at `at_ms`."""

    at_ms: float


@dataclass(frozen=True)
class Lulled:
    """Silence since `at_ms`, long enough to prepare an answer, not to end the turn."""

    at_ms: float


@dataclass(frozen=True)
class Rejoined:
    """The voice is back: the same turn goes on."""

    at_ms: float


@dataclass(frozen=True)
class Stopped:
    """The turn has ended; the voice did at `at_ms`."""

    at_ms: float


TurnEvent = Onset | FalseStart | Started | Lulled | Rejoined | Stopped


class Phase(Enum):
    QUIET = auto()
    RISING = auto()
    TALKING = auto()
    LULL = auto()


class TurnMachine:
    """One user's turns. `step` takes every frame's probability; `now` is the time of the frame's end."""

    def __init__(self, rules: TurnRules, frame_ms: float = 32.0) -> None:
        self.rules = rules
        self._frame_ms = frame_ms
        self.reset()

    def reset(self) -> None:
        """Forget the turn at hand."""
        self.phase = Phase.QUIET
        self.voiced_ms = 0.0
        self._began = 0.0
        self._quiet_since = 0.0
        self._lulled = False
        self._patience: float | None = None

    def judge(self, complete: float) -> None:
        """What a semantic model thinks of the turn so far (0..1): shortens or lengthens the wait of this lull. The next
        one knows nothing of it."""
        self._patience = self.rules.complete_ms if complete >= 0.5 else self.rules.incomplete_ms

    def step(self, probability: float, now: float) -> list[TurnEvent]:
        voiced = probability >= self.rules.start
        if voiced:
            self.voiced_ms += self._frame_ms
        match self.phase:
            case Phase.QUIET:
                return self._rise(now) if voiced else []
            case Phase.RISING:
                return self._rising(voiced, probability < self.rules.stop, now)
            case Phase.TALKING:
                return self._talking(probability < self.rules.stop, now)
            case Phase.LULL:
                return self._rejoin(now) if voiced else self._wait(now)

    def _rise(self, now: float) -> list[TurnEvent]:
        self.phase, self.voiced_ms, self._began = Phase.RISING, self._frame_ms, now - self._frame_ms
        return [Onset(self._began), *self._confirm()]

    def _rising(self, voiced: bool, silent: bool, now: float) -> list[TurnEvent]:
        if voiced:
            self._quiet_since = 0.0
            return self._confirm()
        if silent and not self._quiet_since:
            self._quiet_since = now - self._frame_ms
        gone = self._quiet_since and now - self._quiet_since >= self.rules.confirm_ms
        if gone or now - self._began >= UNDECIDED * self.rules.confirm_ms:
            self.reset()
            return [FalseStart(now)]
        return []

    def _confirm(self) -> list[TurnEvent]:
        if self.voiced_ms < self.rules.confirm_ms:
            return []
        self.phase = Phase.TALKING
        return [Started(self._began)]

    def _talking(self, silent: bool, now: float) -> list[TurnEvent]:
        if now - self._began >= self.rules.max_ms:
            return self._stop(now)
        if silent:
            self.phase, self._quiet_since, self._lulled, self._patience = Phase.LULL, now - self._frame_ms, False, None
        return []

    def _rejoin(self, now: float) -> list[TurnEvent]:
        self.phase = Phase.TALKING
        return [Rejoined(now - self._frame_ms)] if self._lulled else []

    def _wait(self, now: float) -> list[TurnEvent]:
        silence = now - self._quiet_since
        events: list[TurnEvent] = []
        if not self._lulled and silence >= self.rules.speculate_ms:
            self._lulled = True
            events.append(Lulled(self._quiet_since))
        if silence >= (self._patience or self.rules.silence_ms):
            events += self._stop(self._quiet_since)
        return events

    def _stop(self, at_ms: float) -> list[TurnEvent]:
        self.reset()
        return [Stopped(at_ms)]
