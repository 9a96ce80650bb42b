"""How much of an utterance to turn into sound, and when. Pure: times are passed in.

The codec's decoder looks ten frames to either side: with ten whole frames on the right a piece is exact whatever its
length. While nothing sounds, waiting for them costs the listener time: the first piece waits for as many as come in a
moment, and takes for the rest the seven half-said frames that the delay pattern gives for nothing. From there every
piece waits for its lookahead as long as the listener's buffer allows."""

import math
from dataclasses import dataclass

FRAME_MS = 40.0
LEFT = 10
RIGHT = 10
FIRST = 3  # frames of the first piece, where the card is fast
PATIENCE_MS = 25.0  # how long the first piece waits for whole frames to look ahead at
LOOK = 4  # whole frames the second piece should have to look ahead at
TAIL = 8  # times the last frame is repeated behind the end, else the decoder's edge hisses
CHARACTERS_PER_FRAME = 0.6  # 15 characters a second: only to guess how long an utterance will be


@dataclass(frozen=True)
class Window:
    """Decode frames [begin, end) and give out the sound of [first, last). `tail`: repeat the last frame behind."""

    begin: int
    first: int
    last: int
    end: int
    tail: bool = False


@dataclass(frozen=True)
class Pace:
    """What was measured: ms from one row to the next, ms to decode a batch of windows, ms until the listener has
    nothing left to play."""

    row_ms: float
    codec_ms: float
    ahead_ms: float

    @property
    def lead_ms(self) -> float:
        """A piece must leave this long before it is needed."""
        return 2 * self.row_ms + self.codec_ms + 15


def first_frames(pace: Pace, expected: float) -> int:
    """Frames that must be there before anything sounds. They must last until the next piece is made, with some frames
    to look ahead at; and where a row takes longer than it sounds, until so much of the `expected` frames is made that
    the rest arrives in time."""
    bridge = math.ceil((pace.lead_ms + pace.row_ms) / FRAME_MS)
    ahead = math.ceil((FIRST + LOOK) * pace.row_ms / FRAME_MS)
    late = max(0.0, 1 - FRAME_MS / pace.row_ms) if pace.row_ms else 0.0
    return max(FIRST, ahead, bridge + math.ceil(expected * late))


class Windows:
    """The pieces of one utterance, in order."""

    def __init__(self, characters: int, longest: int = 10) -> None:
        self._expected = characters / CHARACTERS_PER_FRAME
        self._longest = longest
        self.given = 0  # frames already turned into sound

    def due(self, whole: int, begun: int, ended: bool, pace: Pace) -> Window | None:
        """The piece to decode now, if any: `whole` frames are there, `begun` at least in part."""
        new = whole - self.given
        if ended:
            return self._take(new, whole, tail=True) if new > 0 else None
        if pace.ahead_ms <= 0:
            return self._first(new, whole, begun, pace)
        exact = new - RIGHT
        if exact >= self._longest:
            return self._take(exact, whole)
        if pace.ahead_ms - pace.row_ms >= pace.lead_ms or new < 1:
            return None  # the listener can wait for the lookahead
        return self._take(max(exact, math.ceil(new / 2)), min(begun, whole + RIGHT))

    def _first(self, new: int, whole: int, begun: int, pace: Pace) -> Window | None:
        """Nothing sounds: the first piece, or the first after a hole."""
        enough = first_frames(pace, self._expected - self.given)
        patience = min(RIGHT, int(PATIENCE_MS / pace.row_ms)) if pace.row_ms else RIGHT
        if new < enough + patience:
            return None
        return self._take(max(enough, new - RIGHT), min(begun, whole + RIGHT))

    def _take(self, frames: int, end: int, tail: bool = False) -> Window:
        first = self.given
        last = first + frames
        self.given = last
        return Window(max(0, first - LEFT), first, last, min(end, last + RIGHT), tail)
