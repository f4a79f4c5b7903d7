"""The attention of `flex_attention` by plain products, block by block, for tests without a compiler."""

from collections.abc import Callable
from types import CellType, FunctionType
from typing import Any

import torch
from torch import Tensor

Mod = Callable[..., Tensor] | None


def flexible_attention(
    q: Tensor, k: Tensor, v: Tensor, *, score_mod: Mod = None, block_mask: Any = None, scale: float, **_: object
) -> Tensor:
    """Return what `torch.nn.attention.flex_attention` does."""
    if block_mask is None:
        return flexible(q, k, v, score_mod, None, (), scale)
    blocks = (block_mask.kv_num_blocks, block_mask.kv_indices, block_mask.BLOCK_SIZE[0])
    return flexible(q, k, v, score_mod, block_mask.mask_mod, blocks, scale)


def flexible(
    q: Tensor, k: Tensor, v: Tensor, score_mod: Mod, mask_mod: Mod, blocks: tuple[Any, ...], scale: float
) -> Tensor:
    """Return the attention of all queries.

    Args:
        q: Queries.
        k: Keys.
        v: Values.
        score_mod: Function that changes scores.
        mask_mod: Function of the keys that count.
        blocks: Number of the blocks of keys that each block of queries reads, their indices in the order of reading,
            and the size of a block; empty: queries read all keys.
        scale: Of the products.
    """
    if not blocks:
        return _mixed(q, k, v, score_mod, mask_mod, *(torch.arange(x.shape[2]) for x in (q, k)), scale)
    (numbers, indices), size, mixed = (one[0, 0] for one in blocks[:2]), blocks[2], torch.zeros_like(q)
    for block, number in enumerate(numbers.tolist()):
        if number:
            i = torch.arange(block * size, (block + 1) * size)
            j = (indices[block, :number, None].long() * size + torch.arange(size)).flatten()
            given = q[:, :, i], k[:, :, j], v[:, :, j]
            mixed[:, :, i] = _mixed(*given, score_mod, mask_mod, i, j, scale)
    return mixed


def _mixed(
    q: Tensor, k: Tensor, v: Tensor, score_mod: Mod, mask_mod: Mod, i: Tensor, j: Tensor, scale: float
) -> Tensor:
    """Return the attention of queries at places i over keys at places j."""
    axes = (*map(torch.arange, q.shape[:2]), i, j)
    at = [places.view([-1 if axis == one else 1 for one in range(4)]) for axis, places in enumerate(axes)]
    scores = (q.float() @ k.float().transpose(2, 3)) * scale
    scores = scores if score_mod is None else score_mod(scores, *at)
    scores = scores if mask_mod is None else scores.masked_fill(~mask_mod(*at), -torch.inf)
    return (scores.softmax(-1) @ v.float()).to(q.dtype)


def outside_of(function: Mod) -> tuple[Any, ...]:
    """Return the values that a function has from outside."""
    return tuple(one.cell_contents for one in getattr(function, "__closure__", None) or ())


def with_outside(function: Any, values: tuple[Any, ...]) -> Any:
    """Return a function with other values from outside."""
    if function is None:
        return None
    return FunctionType(function.__code__, function.__globals__, closure=tuple(map(CellType, values)))
