"""The KV caches of all slots in one tensor, and the two ways the model writes to them.

A row of the running batch touches the first n slots, each at its own position, and sees a view of the cache as long as
it has to look: nothing is gathered or copied. Reading prompts touches any slots, each at a run of positions. What must
not be kept (slots in the batch that hold no stream, or one that waits; padding) goes to a scrap position behind the
last."""

from typing import Any

import torch
from torch import Tensor

GRAIN = 512  # tokens by which the reach grows


class Slots:
    """KV of `count` slots of `length` tokens each, for `config`'s geometry."""

    def __init__(self, config: Any, count: int, length: int, dtype: torch.dtype, device: torch.device) -> None:
        self.count, self.length = count, length
        heads, size = config.num_key_value_heads, config.head_dim
        self.kv = torch.zeros(
            config.num_hidden_layers, 2, count, heads, length + 1, size, dtype=dtype, device=device
        )  # fmt: skip

    @property
    def token_bytes(self) -> int:
        """What one token of one slot takes."""
        return self.kv[:, :, 0, :, 0].numel() * self.kv.element_size()

    def batch(self, positions: Tensor, reach: int) -> "Batch":
        """The first len(`positions`) slots, one token each at its position, looking at `reach` positions."""
        return Batch(self.kv, positions, reach)

    def pieces(self, slots: Tensor, positions: Tensor, reach: int) -> "Pieces":
        """Tokens at `positions` [n, length] of `slots` [n], looking at `reach` positions."""
        return Pieces(self.kv, slots, positions, reach)

    def reach(self, length: int) -> int:
        """How far to look where the longest stream holds `length` tokens: rounded up, so that there are few."""
        return min(self.length, -(-length // GRAIN) * GRAIN)

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


class Batch:
    """The cache as the model sees it in a row: one new token in each of the first n slots."""

    def __init__(self, kv: Tensor, positions: Tensor, reach: int) -> None:
        self._kv, self._positions, self._reach = kv, positions, reach
        self._slots = torch.arange(len(positions), device=positions.device)

    def update(self, keys: Tensor, values: Tensor, layer: int, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Write one token's keys and values [n, heads, 1, size]; all that may be looked at."""
        n = len(self._slots)
        out = []
        for part, new in ((self._kv[layer, 0], keys), (self._kv[layer, 1], values)):
            part[self._slots, :, self._positions] = new[:, :, 0]
            out.append(part[:n, :, : self._reach])
        return out[0], out[1]


class Pieces:
    """The cache as the model sees it when prompts are read: runs of tokens in some slots, in any order."""

    def __init__(self, kv: Tensor, slots: Tensor, positions: Tensor, reach: int) -> None:
        self._kv, self._slots, self._positions, self._reach = kv, slots, positions, reach

    def update(self, keys: Tensor, values: Tensor, layer: int, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Write keys and values [n, heads, length, size]; all that may be looked at."""
        out = []
        for part, new in ((self._kv[layer, 0], keys), (self._kv[layer, 1], values)):
            part[self._slots[:, None], :, self._positions] = new.transpose(1, 2)
            out.append(part[self._slots, :, : self._reach])
        return out[0], out[1]
