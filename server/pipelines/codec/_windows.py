"""Streaming decode: overlapping windows out of tokens as they come, and their audio joined without a seam. Pure.

The decoder looks both ways, so a piece decoded by itself is wrong at its ends. Every window therefore carries `left`
tokens that were heard already and `right` that come next; of its audio only the middle is used, and where two windows
meet they are crossfaded. Windows begin at even tokens, because only an even number decodes to its exact length.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from server.errors import ConfigError
from server.pipelines.codec._tokens import RATE, SPAN, Tokens
from server.pipelines.engines import Samples


@dataclass(frozen=True)
class Shape:
    """Tokens of a window. `first`: new ones in the first window, fewer so that it sounds sooner. All even."""

    size: int = 12
    left: int = 16
    right: int = 4
    first: int = 4
    fade_ms: float = 15

    def __post_init__(self) -> None:
        if any(n % 2 or n < 0 for n in (self.size, self.left, self.right, self.first)) or not (
            self.size and self.first
        ):
            raise ConfigError("codec windows: size, left, right and first are even numbers of tokens (2 = 160 ms)")
        if self.right == 0:
            raise ConfigError("codec windows: right must be 2 or more; without what comes next every seam is heard")
        if not 0 <= self.fade <= SPAN:
            raise ConfigError("codec windows: fade_ms is 0 to 80")

    @property
    def fade(self) -> int:
        return int(self.fade_ms * RATE / 1000)


@dataclass(frozen=True, eq=False)
class Window:
    """`tokens` to decode together; the audio of `[skip, skip + keep)` of them is new."""

    tokens: Tokens
    skip: int
    keep: int
    last: bool


class Windows:
    """Tokens in, windows out. Holds the tokens that a window may still need: at most left + size + right and what
    one push brought."""

    def __init__(self, shape: Shape) -> None:
        self._shape = shape
        self._tokens = np.empty(0, np.int64)
        self._done = 0  # of the tokens held, how many are in windows given out
        self._size = shape.first

    def push(self, tokens: Tokens) -> list[Window]:
        """The windows that `tokens` complete, what comes right of them included."""
        self._tokens = np.concatenate([self._tokens, tokens])
        windows = []
        while len(self._tokens) - self._done > self._size + self._shape.right:
            windows.append(self._window(self._size, last=False))
        return windows

    def finish(self) -> list[Window]:
        """The rest, as one window; none where there were no tokens."""
        rest = len(self._tokens) - self._done
        return [self._window(rest, last=True)] if rest else []

    def _window(self, keep: int, last: bool) -> Window:
        begin = max(0, self._done - self._shape.left)
        end = self._done + keep
        window = Window(self._tokens[begin : end + self._shape.right], self._done - begin, keep, last)
        drop = max(0, end - self._shape.left)
        self._tokens, self._done = self._tokens[drop:], end - drop
        self._size = self._shape.size
        return window


class Seams:
    """The audio of one window after the other, crossfaded where they meet: `length(tokens)` samples in all."""

    def __init__(self, fade: int) -> None:
        self._fade = fade
        self._tail = np.empty(0, np.float32)  # the window before, where this one begins

    def join(self, window: Window, samples: Samples) -> Samples:
        """What can be heard once `samples`, the decoded `window`, is there."""
        begin, end = window.skip * SPAN, (window.skip + window.keep) * SPAN
        new = samples[begin:] if window.last else samples[begin:end]
        if len(self._tail):
            new = new.copy()
            overlap = min(len(self._tail), len(new))
            rise = np.arange(1, overlap + 1, dtype=np.float32) / (overlap + 1)
            new[:overlap] = self._tail[:overlap] * (1 - rise) + new[:overlap] * rise
        self._tail = np.empty(0, np.float32) if window.last else samples[end : end + self._fade]
        return new


def plan(tokens: Tokens, shape: Shape) -> Iterable[Window]:
    """The windows of tokens that are all there."""
    windows = Windows(shape)
    yield from windows.push(tokens)
    yield from windows.finish()
