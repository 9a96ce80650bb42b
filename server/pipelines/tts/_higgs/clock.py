"""How fast this machine is, measured while it works: what a row takes at each batch size, a prompt's token, a decoding.

From it follow how many streams are carried in real time, how long a piece of a prompt may be, and the pieces' pace."""

import math
from collections.abc import Sequence

from server.pipelines.tts._higgs.windows import FRAME_MS

FOLLOW = 0.1  # weight of the newest measurement
LARGEST = 1024  # tokens of a prompt read at once
SMALLEST = 32


class Average:
    """An exponential average; `value` is None until something was measured."""

    def __init__(self) -> None:
        self.value: float | None = None

    def add(self, measured: float) -> None:
        self.value = measured if self.value is None else self.value + FOLLOW * (measured - self.value)


class Clock:
    """`sizes`: the batch sizes rows are made for. `headroom`: share of real time that may be planned with."""

    def __init__(self, sizes: Sequence[int], headroom: float = 0.8) -> None:
        self._rows = {size: Average() for size in sizes}
        self._headroom = headroom
        self._token = Average()
        self._codec = Average()
        self._between = Average()

    def row(self, streams: int, ms: float) -> None:
        """A row for `streams` streams took `ms`."""
        self._rows[self._size(streams)].add(ms)

    def between(self, ms: float) -> None:
        """`ms` went by from one row to the next, with all that happened in between."""
        self._between.add(ms)

    def prompt(self, tokens: int, ms: float) -> None:
        self._token.add(ms / tokens)

    def codec(self, ms: float) -> None:
        self._codec.add(ms)

    @property
    def codec_ms(self) -> float:
        return self._codec.value or 0.0

    def row_ms(self, streams: int) -> float:
        """What a row for so many streams takes; where none was measured, the next smaller that was."""
        known = [a.value for size, a in self._rows.items() if a.value is not None and size <= self._size(streams)]
        return max(known, default=0.0)

    def pace_ms(self, streams: int) -> float:
        """From one row to the next, as things are."""
        return max(self.row_ms(streams), self._between.value or 0.0)

    def carries(self) -> int:
        """How many streams are made faster than they sound; at least 1."""
        fast = [size for size in self._rows if self.row_ms(size) <= FRAME_MS * self._headroom]
        return max(fast, default=1)

    @property
    def realtime(self) -> bool:
        """Whether even one stream is."""
        return self.row_ms(1) <= FRAME_MS

    def piece(self, spare_ms: float) -> int:
        """How many tokens of a prompt may be read while others have `spare_ms` before they need a row."""
        if not self._token.value or math.isinf(spare_ms):
            return LARGEST
        return int(min(LARGEST, max(SMALLEST, spare_ms / self._token.value)))

    def _size(self, streams: int) -> int:
        return next((size for size in self._rows if size >= streams), max(self._rows))
