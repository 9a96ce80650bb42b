"""What a token sees of its slot: its keys and values are written to the cache, then it looks at all up to itself.

Heads that share keys are rows of one query, so that nothing is copied for them; the mask is a tensor of zeros and minus
infinity in the cache's precision, made once for all layers, as the memory-efficient kernel wants it."""

from torch import Tensor
from torch.nn import functional

from server.pipelines.tts._higgs.slots import Slots


class Batch:
    """A row of the first n slots, one token in each at its position [n], which sees a view of the cache: nothing is
    gathered."""

    def __init__(self, slots: Slots, positions: Tensor, reach: int) -> None:
        self._kv, self._positions, self._reach = slots.kv, positions, reach
        self._slots = slots.numbers[: len(positions)]
        each = positions[:, None, None].expand(-1, slots.kv.shape[3], 1)
        self._looked = slots.looked(each, reach).view(-1, 1, 1, reach)

    def attended(self, layer: int, queries: Tensor, written: Tensor) -> Tensor:
        """`queries` [n, heads, size] look, after `written` [n, 2, key heads, size] was: [n, heads * size]."""
        kv, n, size = self._kv[layer], len(queries), queries.shape[-1]
        kv[:, self._slots, :, self._positions] = written
        keys, values = kv[:, :n, :, : self._reach].flatten(1, 2)[:, :, None]
        rows = queries.reshape(len(keys), 1, -1, size)
        return functional.scaled_dot_product_attention(rows, keys, values, attn_mask=self._looked).reshape(n, -1)


class Pieces:
    """Runs of tokens at `positions` [n, length] in any `slots` [n], as prompts are read."""

    def __init__(self, slots: Slots, chosen: Tensor, positions: Tensor, reach: int) -> None:
        self._kv, self._slots, self._positions, self._reach = slots.kv, chosen, positions, reach
        self._looked = slots.looked(positions[..., None], reach).repeat(1, slots.groups, 1)[:, None]

    def attended(self, layer: int, queries: Tensor, written: Tensor) -> Tensor:
        """As in a batch, for [n * length] tokens."""
        kv, (n, length), (_, _, shared, size) = self._kv[layer], self._positions.shape, written.shape
        kv[:, self._slots[:, None], :, self._positions] = written.view(n, length, 2, shared, size)
        keys, values = kv[:, :, :, : self._reach][:, self._slots]
        rows = queries.view(n, length, shared, -1, size).permute(0, 2, 3, 1, 4).flatten(2, 3)
        seen = functional.scaled_dot_product_attention(rows, keys, values, attn_mask=self._looked)
        return seen.view(n, shared, -1, length, size).permute(0, 3, 1, 2, 4).reshape(n * length, -1)
