"""The floor: who may speak. Decides what an ear's events mean while nobody, or a reply, has it. Pure.

At the first sign of voice a reply is paused. Long speech then interrupts it; of anything shorter the text decides, in
the first lull, whether it was an interruption, or the reply goes on. It is held again for a user who speaks on, and the
final text has the last word: what was said just now is easily misheard. With interruption off for the phase at hand,
the user is not heard until it is over.
"""

from dataclasses import dataclass
from enum import Enum, auto

from server.ear import EarEvent, Hummed, Talking
from server.pipelines.barge_in import InterruptRules, Verdict, judge
from server.pipelines.turn import FalseStart, Lulled, Onset, Rejoined, Started, Stopped
from server.reply import Phase


class State(Enum):
    FREE = auto()  # what the user says is a turn
    CONTESTED = auto()  # a reply is paused for it; the verdict is awaited
    HELD = auto()  # a reply that nobody spoke for waits until the user has finished
    YIELDED = auto()  # the reply goes on in the lull, for nothing was meant by what was heard
    DEAF = auto()  # a reply sounds that may not be interrupted


@dataclass(frozen=True)
class Settled:
    """In the lull: what was said so far, as a whole."""

    text: str


@dataclass(frozen=True)
class Announce:
    """Tell the client that the user's voice started or stopped."""

    started: bool
    at_ms: float


@dataclass(frozen=True)
class Pause:
    """Hold the reply."""


@dataclass(frozen=True)
class Resume:
    """Let the reply go on."""

    reason: str


@dataclass(frozen=True)
class Interrupt:
    """The reply has lost the floor."""


@dataclass(frozen=True)
class Peek:
    """Silence since `at_ms`: ask the recogniser for the text so far; the answer comes back as `Settled`."""

    at_ms: float


@dataclass(frozen=True)
class Draft:
    """Prepare an answer to `text`."""

    text: str


@dataclass(frozen=True)
class Discard:
    """The user goes on: throw the draft away."""


@dataclass(frozen=True)
class Forget:
    """What was heard does not count. `told`: the client waits for its text."""

    told: bool = False


@dataclass(frozen=True)
class End:
    """The turn is over. `contested`: its final text must still be judged."""

    at_ms: float
    contested: bool = False


Act = Announce | Pause | Resume | Interrupt | Peek | Draft | Discard | Forget | End


class Floor:
    """`answering` is the phase of the answer under way, None when there is none."""

    def __init__(self, rules: InterruptRules, language: str, *, speculative: bool) -> None:
        self.rules, self.speculative = rules, speculative
        self._language = language
        self._begin()

    def _begin(self) -> None:
        self.state = State.FREE
        self.text = ""  # of the turn under way, as recognised yet
        self._announced = False
        self.hummed = False  # all that was heard of it, as far as it goes

    def clear(self) -> list[Act]:
        """The turn under way is to be forgotten, and a reply that was held for it goes on."""
        return [*self._give_back("cleared"), Discard()]

    def verdict(self, text: str, voiced_ms: float = 0.0, *, over: bool = True) -> Verdict:
        """Of what is said while a reply is paused for it."""
        return judge(self.rules, self._language, text, voiced_ms=voiced_ms, over=over)

    def passes(self, text: str) -> bool:
        """In a lull: whether a reply is held for what is no interruption, `text` being all of it so far."""
        return self.holding and (self.hummed or self.verdict(text) is Verdict.RESUME)

    def step(self, event: EarEvent | Settled, answering: Phase | None) -> list[Act]:
        if answering is None and self.state is not State.DEAF:  # the reply is gone: what is said is an ordinary turn
            self.state = State.FREE
        match event:
            case Onset():
                return self._onset(answering)
            case FalseStart():
                return self._give_back("noise") if self.holding else []
            case Started(at_ms):
                return self._started(at_ms)
            case Talking(voiced_ms):
                return self._weigh(voiced_ms)
            case Hummed():
                self.hummed = True
                return []
            case Lulled(at_ms):
                return [Peek(at_ms)] if self.holding or self._may_draft(answering) else []
            case Settled(text):
                return self._settled(text, answering)
            case Rejoined():
                return self._rejoined(answering)
            case Stopped(at_ms):
                return self._stopped(at_ms, answering)

    def _onset(self, answering: Phase | None) -> list[Act]:
        self._begin()
        return [Pause()] if self.contest(answering) else []

    @property
    def holding(self) -> bool:
        """Whether a reply is paused for the voice that is heard."""
        return self.state in (State.CONTESTED, State.HELD)

    def contest(self, answering: Phase | None) -> bool:
        """An answer has begun, or is there, while the user talks: whether it must be held."""
        if answering is None:
            return False
        may = self.rules.thinking if answering is Phase.THINKING else self.rules.speaking
        self.state = State.CONTESTED if may else State.DEAF
        return may

    def hold(self) -> bool:
        """What was typed, or is only to be said, has begun while the user talks: whether it must wait."""
        if self.state is not State.DEAF:
            self.state = State.HELD
        return self.holding

    def _started(self, at_ms: float) -> list[Act]:
        if self.state is State.DEAF:
            return []
        self._announced = True
        return [Announce(True, at_ms)]

    def _weigh(self, voiced_ms: float) -> list[Act]:
        if self.state is not State.CONTESTED:
            return []
        if self.verdict(self.text, voiced_ms, over=False) is not Verdict.INTERRUPT:
            return []
        self.state = State.FREE
        return [Interrupt()]

    def _settled(self, text: str, answering: Phase | None) -> list[Act]:
        if self.passes(text):
            return self._passed(text)
        if self.state is not State.CONTESTED:
            return [Draft(text)] if self._may_draft(answering) and text.strip() else []
        self.state = State.FREE
        return [Interrupt(), *self._settled(text, None)]

    def _passed(self, text: str) -> list[Act]:
        if self.hummed:  # whatever words were made of it
            return self._give_back("backchannel")
        self.state = State.YIELDED
        return [Resume("backchannel" if text.strip() else "noise")]

    def _rejoined(self, answering: Phase | None) -> list[Act]:
        self.hummed = False
        again = self.state is State.YIELDED and self.contest(answering)
        return [Pause()] if again else [Discard()]

    def _may_draft(self, answering: Phase | None) -> bool:
        return self.speculative and self.state is State.FREE and answering is None

    def _give_back(self, reason: str) -> list[Act]:
        told: list[Act] = [Announce(False, -1.0)] if self._announced else []
        forget = Forget(told=self._announced)
        self._begin()
        return [Resume(reason), *told, forget]

    def _stopped(self, at_ms: float, answering: Phase | None) -> list[Act]:
        state, announced = self.state, self._announced
        self._begin()
        told: list[Act] = [Announce(False, at_ms)] if announced else []
        if state is State.DEAF and answering is not None:
            return [*told, Forget(told=announced)]
        return [*told, End(at_ms, contested=state not in (State.FREE, State.DEAF))]
