"""A turn's timeline: when each stage was reached, in ms from the end of the user's speech (or of a typed message)."""

from collections.abc import Callable

STAGES = (
    "turn_end",  # the turn machine decided
    "transcript",  # the final text is there
    "first_token",
    "first_sentence",
    "first_audio",  # from the voice engine
    "first_sent",
    "first_heard",  # the client's word
)


class Timeline:
    """`clock` in seconds; `origin` is the clock's time at the end of speech."""

    def __init__(self, clock: Callable[[], float], origin: float) -> None:
        self._clock = clock
        self.origin = origin
        self.stages: dict[str, float] = {}

    def mark(self, stage: str) -> None:
        """`stage` is reached now, unless it was before."""
        self.stages.setdefault(stage, round((self._clock() - self.origin) * 1000, 1))

    def absorb(self, other: "Timeline") -> None:
        """Take over the stages that `other` has reached, as this one counts time."""
        shift = (other.origin - self.origin) * 1000
        self.stages |= {stage: round(ms + shift, 1) for stage, ms in other.stages.items()}
