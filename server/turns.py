"""The turns that wait to be taken: spoken, typed, or a text to be said."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Ended:
    """A spoken turn that is over; `origin` is the clock's time at the end of speech. `contested`: it may have been no
    more than a backchannel."""

    origin: float
    contested: bool


@dataclass(frozen=True)
class Typed:
    """A typed turn, and when it came by the clock."""

    text: str
    at: float


@dataclass(frozen=True)
class Told:
    """A text to be spoken as it stands."""

    text: str
    character: str | None
    at: float


@dataclass(frozen=True)
class Stop:
    """No turn: what was asked for before it and had not begun to sound is not to."""


Turn = Ended | Typed | Told | Stop
