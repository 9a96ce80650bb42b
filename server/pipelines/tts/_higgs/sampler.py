"""One row of codes for every slot at once, from the model's logits: sampling, repetition rule, delay pattern.

All of it is tensors over [slots, draws, codebooks, codes], with every stream's own settings in tensors beside it:
nothing here waits for the device, and the whole can be captured in a CUDA graph. The second draw is for a code that
came too often: from all codes as the model weighs them."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from server.pipelines.tts._higgs.delay import BOOKS, BOS, Codes
from server.pipelines.tts._higgs.noise import DRAWS, PACE, STRIP, place, windows
from server.pipelines.tts._higgs.phases import CODES, bounds, following, phase

WINDOW = 16  # the longest window of the repetition rule
NO_CODE = BOS - 0.5  # what BOS and EOS are in it: they do not count as repeats
FOREVER = 1 << 62


@dataclass(frozen=True)
class Sampling:
    """How one utterance is drawn. `temperature` 0 is greedy, `top_k` 0 no limit, `repeats` 0 no repetition rule: a code
    that came `repeats` times in the last `window` rows is drawn again from the unfiltered distribution."""

    temperature: float = 0.7
    top_p: float = 0.95
    top_k: int = 50
    window: int = 7
    repeats: int = 2
    seed: int = 0


class State:
    """What the sampler knows of each slot. `row` is the last row made, which the model reads next; `position` where the
    cache will hold it. The first draw has the utterance's settings, the second none of them."""

    def __init__(self, slots: int, device: torch.device) -> None:
        def integers(*shape: int, value: int = 0) -> Tensor:
            return torch.full((slots, *shape), value, dtype=torch.int64, device=device)

        self.moving = integers(BOOKS + 4)  # `row` first, then all else that a row changes, but for `past`
        self.row, self.phase = self.moving[:, :BOOKS], self.moving[:, BOOKS]
        self._clock = self.moving[:, BOOKS + 1 :]
        self.position, self.place, self.turn = self._clock.unbind(1)
        self.past = torch.full((slots, WINDOW, BOOKS), NO_CODE, device=device)  # row r at r modulo the slot's window
        self._integers = integers(5, value=1)
        self.round, self.repeats, self.last = torch.split(self._integers, [3, 1, 1], 1)
        self._floats = torch.ones(slots, 1 + 2 * DRAWS, device=device)
        self.share, self.heat, self.chance = torch.split(self._floats, [1, DRAWS, DRAWS], 1)
        self._numbers = torch.arange(slots, device=device)
        self._pace = torch.tensor([1, PACE, 1], device=device)
        self._windows = windows(device)
        self._bounds, self._following = (torch.from_numpy(made).to(device) for made in (bounds(), following()))

    def begin(self, slot: int, how: Sampling, rows: Codes, position: int = 0) -> None:
        """An utterance in `slot`, whose `rows` [R, 8] are made already: at least row 0, which is all BOS."""
        window, greedy = max(1, min(how.window, WINDOW)), how.temperature == 0
        repeats = how.repeats if how.repeats and how.window else WINDOW + 1
        last = min(how.top_k or CODES, CODES) - 1
        share = math.log(how.top_p) if how.top_p < 1 else math.inf
        where = [phase(rows), position, place(how.seed, len(rows)), (len(rows) - 1) % window]
        self.moving[slot].copy_(torch.tensor([*rows[-1].tolist(), *where]))
        self.past[slot].copy_(_past(rows, window))
        self._integers[slot].copy_(torch.tensor([FOREVER, STRIP, window, repeats, last]))
        self._floats[slot].copy_(torch.tensor([share, how.temperature or 1.0, 1.0, float(not greedy), 1.0]))

    def move(self, source: int, target: int) -> None:
        """The stream of one slot goes on in another."""
        for tensor in (self.moving, self.past, self._integers, self._floats):
            tensor[target].copy_(tensor[source])

    def noise(self, count: int) -> Tensor:
        """For the next row of the first `count` slots [count, draws, books, codes]."""
        return self._windows[self.place[:count]]

    def bounds(self, count: int) -> tuple[Tensor, Tensor]:
        """The least and the largest code that the next row may say [count, books]."""
        least, largest = self._bounds[self.phase[:count]].unbind(1)
        return least, largest

    def advance(self, row: Tensor, active: Tensor) -> None:
        """Take `row` [n, 8] as the next of the slots that are `active` [n]; the others stay as they are."""
        n = len(row)
        phase = self._following[self.phase[:n], row.amax(1)]
        clock = (self._clock[:n] + self._pace).remainder_(self.round[:n])
        moved = torch.where(active[:, None], torch.cat([row, phase[:, None], clock], 1), self.moving[:n])
        codes = moved[:, :BOOKS].clamp(max=NO_CODE)
        self.moving[:n].copy_(moved)  # only now, so that a row for which memory ran out can be made again
        self.past[self._numbers[:n], self.turn[:n]] = codes


def _past(rows: Codes, window: int) -> Tensor:
    """The last `window` rows, each where its turn is."""
    made = torch.full((WINDOW, BOOKS), NO_CODE)
    latest = np.arange(max(0, len(rows) - window), len(rows))
    made[latest % window] = torch.from_numpy(rows[latest]).clamp(max=NO_CODE)
    return made


def draw(logits: Tensor, state: State) -> Tensor:
    """The next row [n, 8] of the first n slots, from `logits` [n, 8, 1026]."""
    n = len(logits)
    warm = logits[:, None] / state.heat[:n, :, None, None]
    scores = torch.addcmul(warm, state.noise(n), state.chance[:n, :, None, None])
    scores[:, 0].masked_fill_(warm[:, 0] < _least(warm[:, 0], state), -torch.inf)
    first, again = scores.argmax(-1).unbind(1)
    repeated = (state.past[:n] == first[:, None]).sum(1) >= state.repeats[:n]
    return torch.where(repeated, again, first).clamp(*state.bounds(n))


def _least(logits: Tensor, state: State) -> Tensor:
    """The least of the logits [n, 8, 1026] that may be drawn [n, 8, 1]: of the `top_k` likeliest those that first make
    up `top_p` of their probability, at least one. In logarithms, and by places in the order, which are few."""
    n = len(logits)
    order = logits.sort(-1, descending=True).values
    mass = order.logcumsumexp(-1)
    last = state.last[:n, :, None].expand(-1, BOOKS, 1)
    enough = torch.searchsorted(mass, mass.gather(-1, last) + state.share[:n, :, None])
    return order.gather(-1, torch.minimum(enough, last))
