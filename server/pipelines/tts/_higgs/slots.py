"""The KV caches of all slots in one tensor, and the two ways the model writes to them.

A row of the running batch touches the first n slots, each at its own position; a prefill touches one slot, at a run of
positions. Both hand the model a view of the cache as long as it has to look: nothing is gathered or copied. What must
not be kept (slots in the batch that hold no stream, or one that waits) goes to a scrap position behind the last."""

from typing import Any

import torch
from torch import Tensor


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

    def run(self, slot: int, begin: int, end: int) -> "Run":
        """Tokens [begin, end) of one slot, looking at all up to `end`."""
        return Run(self.kv, slot, begin, end)

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


class Run:
    """The cache as the model sees it in a prefill: a run of tokens in one slot."""

    def __init__(self, kv: Tensor, slot: int, begin: int, end: int) -> None:
        self._kv, self._slot, self._begin, self._end = kv, slot, begin, end

    def update(self, keys: Tensor, values: Tensor, layer: int, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Write the run's keys and values [1, heads, tokens, size]; all up to the run's end."""
        out = []
        for part, new in ((self._kv[layer, 0], keys), (self._kv[layer, 1], values)):
            part[self._slot : self._slot + 1, :, self._begin : self._end].copy_(new)
            out.append(part[self._slot : self._slot + 1, :, : self._end])
        return out[0], out[1]
