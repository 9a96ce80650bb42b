"""The KV caches of all slots in one tensor.

What must not be kept (slots in a batch that hold no stream, or one that waits; padding) goes to a scrap position behind
the last."""

import math
from typing import Any

import torch
from torch import Tensor

GRAIN = 512  # tokens by which the reach grows
ALIGNED = 16  # attention pads a mask of any other length, in every layer


class Slots:
    """KV of `count` slots of `length` tokens each, for `config`'s geometry."""

    def __init__(self, config: Any, count: int, length: int, dtype: torch.dtype, device: torch.device) -> None:
        self.count, self.length = count, length
        heads, size = config.num_key_value_heads, config.head_dim
        self._room = -(-length // ALIGNED) * ALIGNED
        self.places = self._room + 1
        self.groups = config.num_attention_heads // heads
        self.kv = torch.zeros(
            config.num_hidden_layers, 2, count, heads, self.places, size, dtype=dtype, device=device
        )  # fmt: skip
        self.numbers = torch.arange(count, device=device)
        self.scrap = torch.full((), length, device=device)
        self._order = torch.arange(self._room, device=device)
        self._open, self._shut = (torch.full((), x, dtype=dtype, device=device) for x in (0.0, -math.inf))

    @property
    def token_bytes(self) -> int:
        """What one token of one slot takes."""
        return self.kv[:, :, 0, :, 0].numel() * self.kv.element_size()

    def looked(self, positions: Tensor, reach: int) -> Tensor:
        """The mask of tokens at `positions` [..., 1] over `reach` positions: each sees all up to its own."""
        return torch.where(self._order[:reach] <= positions, self._open, self._shut)

    def reach(self, length: int) -> int:
        """How far to look where the longest stream holds `length` tokens: rounded up, so that there are few."""
        return min(self._room, -(-length // GRAIN) * GRAIN)

    def reaches(self) -> list[int]:
        """All reaches there can be, longest first."""
        return sorted({self.reach(n) for n in range(GRAIN, self.length + GRAIN, GRAIN)}, reverse=True)

    def saved(self, slot: int, length: int) -> Tensor:
        """A copy of a slot's first `length` tokens."""
        return self.kv[:, :, slot, :, :length].clone()

    def restore(self, slot: int, saved: Tensor, length: int) -> None:
        """Put the first `length` tokens of a copy into a slot."""
        self.kv[:, :, slot, :, :length].copy_(saved[..., :length, :])

    def move(self, source: int, target: int, length: int) -> None:
        """Copy a stream's first `length` tokens to another slot."""
        self.kv[:, :, target, :, :length].copy_(self.kv[:, :, source, :, :length])
