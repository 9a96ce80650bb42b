"""One utterance on its way from prompt to sound: what the scheduler knows of it."""

from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Protocol

from server.errors import EngineError
from server.pipelines.engines import Speech
from server.pipelines.tts._higgs.codec import RATE
from server.pipelines.tts._higgs.delay import Codes, Rows
from server.pipelines.tts._higgs.sampler import Sampling
from server.pipelines.tts._higgs.windows import Windows
from server.pipelines.tts._higgs.words import CHARACTER_MS, Timings


class Outlet(Protocol):
    """Where an utterance's sound goes. Called from the scheduler's thread; never blocks."""

    @property
    def full(self) -> bool:
        """The listener has enough for now: no further rows are made."""
        ...

    def put(self, speech: Speech) -> None: ...

    def end(self, error: EngineError | None = None) -> None:
        """Nothing follows."""
        ...


@dataclass(eq=False)
class Stream:
    """`prompt`: all tokens, of which the first `context` belong to the conversation and the first `head` to the voice;
    `speaker` and `voice` are the keys under which their KV is kept. `rows`: at most so many are made; 0 only reads the
    prompt. `plays_until`: when (in the scheduler's ms) the listener runs out of what was given before.
    `character_ms`: what a character usually takes in this voice."""

    text: str
    prompt: Codes
    context: int
    head: int
    speaker: Hashable
    voice: Hashable
    how: Sampling
    limit: int
    outlet: Outlet
    plays_until: float = 0.0
    character_ms: float = CHARACTER_MS
    cancelled: bool = False
    complete: bool = False  # all rows were made and all sound was given out
    slot: int | None = None
    read: int = 0  # tokens of the prompt in the slot
    inside: int = 0  # rows that the prompt holds, since it gave its slot away
    parked: bool = False  # it gave its slot away, and has not come back yet
    since: float = 0.0  # when it came
    said: Rows = field(default_factory=Rows)
    decoding: int = 0  # batches that hold a piece of it

    def __post_init__(self) -> None:
        self.windows = Windows(len(self.text))
        self.timings = Timings(self.text, RATE, self.character_ms)

    @property
    def reading(self) -> bool:
        """Its prompt is not read yet."""
        return self.slot is not None and self.read < len(self.prompt)

    @property
    def running(self) -> bool:
        """It can make a row now."""
        return self.slot is not None and not self.reading and not self.done and not self.outlet.full

    @property
    def paused(self) -> bool:
        """It could make a row, but its listener has enough."""
        return self.slot is not None and not self.reading and not self.done and self.outlet.full

    @property
    def done(self) -> bool:
        """No row follows."""
        return self.cancelled or self.said.ended or len(self.said) >= self.limit

    @property
    def tokens(self) -> int:
        """How many tokens its slot holds. The last row was made, but not read."""
        return self.read + max(0, len(self.said) - 1 - self.inside)

    @property
    def heard_nothing(self) -> bool:
        return self.windows.given == 0
