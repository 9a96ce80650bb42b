"""Weights that are multiplied with the same input, together: one product in place of several."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor


@torch.no_grad()
def together(*linears: Any) -> Tensor:
    """The weights of linear layers as one, [sum of their outputs, inputs]. The layers' own become views of it, so that
    nothing is held twice and the module they belong to works as before. Done once: asked again, it gives the same."""
    assert all(linear.bias is None for linear in linears), "a bias would be lost"
    weights: list[Tensor] = [linear.weight.data for linear in linears]
    outputs, first = [len(weight) for weight in weights], weights[0]
    if _lie_together(weights):
        return torch.as_strided(first, (sum(outputs), first.shape[1]), first.stride(), first.storage_offset())
    whole = torch.cat(weights)
    for linear, part in zip(linears, torch.split(whole, outputs), strict=True):
        linear.weight.data = part
    return whole


def _lie_together(weights: Sequence[Tensor]) -> bool:
    """Whether they follow each other in one storage, not only by chance in memory."""
    adjacent = all(a.data_ptr() + a.nbytes == b.data_ptr() for a, b in pairwise(weights))
    return adjacent and weights[0].untyped_storage().nbytes() >= sum(weight.nbytes for weight in weights)
