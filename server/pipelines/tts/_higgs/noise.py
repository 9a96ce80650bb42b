"""Chance that can be repeated: a long strip of Gumbel noise, of which every row of a stream uses another window.

Where that is follows from the stream's seed and the row's number alone, so a stream is the same alone, in company, and
whatever joins or leaves; and a card looks noise up in one operation, where a hash would take sixty."""

import functools

import numpy as np
import torch
from torch import Tensor

from server.pipelines.tts._higgs.delay import BOOKS
from server.pipelines.tts._higgs.phases import CODES

DRAWS = 2  # one draw, and one to draw again
WIDTH = DRAWS * BOOKS * CODES
STRIP = 1 << 22
PACE = 2592223  # from row to row: the golden section of the strip, so that windows stay far from each other


def place(seed: int, row: int) -> int:
    """Where on the strip the window of a row is."""
    start = np.random.SeedSequence(seed & 0xFFFFFFFF).generate_state(1)[0]
    return (int(start) + row * PACE) % STRIP


@functools.cache
def windows(device: torch.device) -> Tensor:
    """The window at every place [STRIP, draws, books, codes], as a view of the strip."""
    noise = np.random.default_rng(0).gumbel(size=STRIP + WIDTH).astype(np.float32)
    strip = torch.from_numpy(noise).to(device)
    return strip.as_strided((STRIP, DRAWS, BOOKS, CODES), (1, BOOKS * CODES, CODES, 1))
