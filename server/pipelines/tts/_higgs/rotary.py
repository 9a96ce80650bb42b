"""Where a token stands, as its heads are told: rotary positions for q and k in one go, with v left as it is.

A head's halves are turned against each other by an angle for each of their pairs; v's by none. So all heads of a token
are one tensor throughout: one product of q, k and v, one turn, and k and v are written to the cache together."""

from typing import Any

import torch
from torch import Tensor


@torch.no_grad()
def angles(model: Any, count: int) -> Tensor:
    """For positions 0 to `count` - 1 what turns each group of heads [count, groups, 1, 2, 2, size / 2], in the model's
    own precision. A group is as many heads as k has; q's come first, then k's, then v's."""
    half = model.config.head_dim // 2
    cos, sin = model.rotary_emb(model.norm.weight, torch.arange(count, device=model.norm.weight.device)[None])
    cos, sin = cos[0, :, :half], sin[0, :, :half]  # the halves have the same angles
    turn = torch.stack([cos, -sin, sin, cos], 1).view(count, 1, 1, 2, 2, half)
    stay = torch.eye(2, dtype=turn.dtype, device=turn.device)[..., None].expand_as(turn)
    queries = model.config.num_attention_heads // model.config.num_key_value_heads
    return torch.cat([turn.expand(-1, queries + 1, -1, -1, -1, -1), stay], 1)


def turned(heads: Tensor, by: Tensor) -> Tensor:
    """The heads of q, k and v [tokens, all of them], each turned `by` its token's angles: [tokens, heads, size]."""
    tokens, groups, half = len(heads), by.shape[1], by.shape[-1]
    halves = heads.view(tokens, groups, -1, 1, 2, half)
    return (halves * by).sum(-2).view(tokens, -1, 2 * half)
