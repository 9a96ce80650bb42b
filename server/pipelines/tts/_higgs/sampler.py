"""One row of codes for every slot at once, from the model's logits: delay pattern, sampling, repetition rule, EOS ramp.

All of it is tensors over [slots, codebooks, codes], with every stream's own settings in tensors beside it: nothing here
waits for the device, and the whole can be captured in a CUDA graph. Randomness is a hash of seed, row, codebook and
code, so a stream gives the same result alone, in company, and whatever joins or leaves."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from server.pipelines.tts._higgs.delay import BOOKS, BOS, EOS, Codes

CODES = 1026
WINDOW = 16  # the longest window of the repetition rule


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
    """What the sampler knows of each slot. `row` is the last row made, which the model reads next."""

    def __init__(self, slots: int, device: torch.device) -> None:
        def integers(*shape: int, value: int = 0) -> Tensor:
            return torch.full((slots, *shape), value, dtype=torch.int64, device=device)

        self.row = integers(BOOKS, value=BOS)
        self.past = integers(WINDOW, BOOKS, value=BOS)
        self._integers = integers(6)
        self._floats = torch.ones(slots, 2, device=device)
        self.step, self.eos, self.top_k, self.window, self.repeats, self.seed = self._integers.unbind(1)
        self.temperature, self.top_p = self._floats.unbind(1)

    def begin(self, slot: int, how: Sampling, rows: Codes) -> None:
        """An utterance in `slot`, whose `rows` [R, 8] are made already: at least row 0, which is all BOS."""
        past = np.full((WINDOW, BOOKS), BOS, np.int64)
        past[-len(rows[-WINDOW:]) :] = rows[-WINDOW:]
        ends = np.flatnonzero((rows == EOS).any(axis=1))
        self.row[slot].copy_(torch.from_numpy(rows[-1]))
        self.past[slot].copy_(torch.from_numpy(past))
        repeats = how.repeats or WINDOW + 1
        eos = int(ends[0]) if len(ends) else -1
        whole = [len(rows), eos, how.top_k or CODES, min(how.window, WINDOW), repeats, how.seed & 0xFFFFFFFF]
        self._integers[slot].copy_(torch.tensor(whole))
        self._floats[slot].copy_(torch.tensor([how.temperature, how.top_p]))

    def move(self, source: int, target: int) -> None:
        """The stream of one slot goes on in another."""
        for tensor in (self.row, self.past, self._integers, self._floats):
            tensor[target].copy_(tensor[source])

    def advance(self, row: Tensor, active: Tensor) -> None:
        """Take `row` [n, 8] as the next of the slots that are `active` [n]; the others stay as they are."""
        n = len(row)
        step, eos = self.step[:n], self.eos[:n]
        past = torch.where(active[:, None, None], torch.cat([self.past[:n, 1:], row[:, None]], 1), self.past[:n])
        ends = torch.where(active & (eos < 0) & (row == EOS).any(1), step, eos)
        row = torch.where(active[:, None], row, self.row[:n])
        self.past[:n].copy_(past)  # only now, so that a row for which memory ran out can be made again
        self.row[:n].copy_(row)
        eos.copy_(ends)
        step.add_(active)


def draw(logits: Tensor, state: State) -> Tensor:
    """The next row [n, 8] of the first n slots, from `logits` [n, 8, 1026] in float32."""
    n = len(logits)
    noise = gumbel(state.seed[:n], state.step[:n])
    greedy = (state.temperature[:n] == 0)[:, None, None]
    warm = logits / torch.where(greedy, 1.0, state.temperature[:n, None, None])
    scores = torch.where(greedy, logits, _filtered(warm, state.top_k[:n], state.top_p[:n]) + noise[0])
    row = scores.argmax(-1)
    row = torch.where(_repeated(row, state), (logits + noise[1]).argmax(-1), row)
    return _ramps(row, state.step[:n], state.eos[:n])


def _filtered(logits: Tensor, top_k: Tensor, top_p: Tensor) -> Tensor:
    """Only the `top_k` likeliest codes stay, and of those the likeliest that make up `top_p`, at least one."""
    order, places = logits.sort(-1)
    size = order.shape[-1]
    kth = order.gather(-1, (size - top_k.clamp(1, size))[:, None, None].expand(-1, order.shape[1], 1))
    order = order.masked_fill(order < kth, -torch.inf)
    drop = order.softmax(-1).cumsum(-1) <= 1 - top_p[:, None, None]
    drop[..., -1] = False
    drop |= order == -torch.inf
    return logits.masked_fill(torch.zeros_like(drop).scatter(-1, places, drop), -torch.inf)


def _repeated(row: Tensor, state: State) -> Tensor:
    """Which codes of `row` came too often of late."""
    n = len(row)
    past = state.past[:n]
    ages = torch.arange(WINDOW, 0, -1, device=row.device)
    same = (past == row[:, None]) & (past < BOS) & (ages[None, :, None] <= state.window[:n, None, None])
    return same.sum(1) >= state.repeats[:n, None]


def _ramps(row: Tensor, step: Tensor, eos: Tensor) -> Tensor:
    """`row` under the delay pattern: codebooks that have not begun say BOS; j rows after the first EOS the first j
    codebooks say EOS."""
    books = torch.arange(BOOKS, device=row.device)[None]
    row = torch.where((eos >= 0)[:, None] & (books < (step - eos)[:, None]), EOS, row)
    return torch.where(books >= step[:, None], BOS, row)


def gumbel(seed: Tensor, step: Tensor) -> Tensor:
    """Gumbel noise [2, n, 8, 1026] for streams with `seed` [n] at row `step` [n]: one draw, and one to draw again."""
    device = seed.device
    stream = _mix(_mix(seed) + step)
    draws = torch.arange(2 * BOOKS, device=device).view(2, 1, BOOKS)
    keys = _mix(stream[None, :, None] + draws * 0x3C6EF372)
    bits = _mix(_mix(keys[..., None] + torch.arange(CODES, device=device) * 0x1E3779B1))
    uniform = ((bits >> 8).float() + 0.5) / (1 << 24)
    return -torch.log(-torch.log(uniform))


def _mix(x: Tensor) -> Tensor:
    """A hash of 32-bit numbers held in int64; the multiplier is small enough never to overflow."""
    x = x & 0xFFFFFFFF
    x = ((x >> 16) ^ x) * 0x45D9F3B & 0xFFFFFFFF
    x = ((x >> 16) ^ x) * 0x45D9F3B & 0xFFFFFFFF
    return (x >> 16) ^ x
