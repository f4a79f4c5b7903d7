"""Attention with a bias by the distance of frames in one kernel of a GPU, by torch's `flex_attention`.

The kernel reads each bias from the products of frames with a table of distances while it computes the scores, so no
tensor is (T, T). torch compiles it on the first use, with Triton. Where it cannot, or where its result differs from
that of plain products on frames drawn at random, attention goes in blocks (`relative_attention`).

Legend: B batch, T frames, A attention heads, D head, R columns of a product, W distances of T frames (2T - 1).
"""

import functools
import logging
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor

from raysp.crossing import fetch

logger = logging.getLogger(__name__)

MOST_PRODUCTS = 1 << 29
"""Values of products with a table that may be in memory at once: 1 GB in half precision."""
TRIED_FRAMES = 200
TOLERANCE = 0.05
"""Largest difference of results of a trial, of values of about 1, in half precision."""

Kernel: TypeAlias = Callable[..., Tensor]
"""Function of q_BATD, k_BATD, v_BATD and options by name, as `torch.nn.attention.flex_attention`."""


class Lookup(NamedTuple):
    """A bias: at i, j the sum of `of_queries[i]` and `of_keys[j]` in the column of the distance `j - i`."""

    columns_W: Tensor
    """Columns of the distances from `1 - T` to `T - 1`."""
    of_queries_BATR: Tensor | None
    of_keys_BATR: Tensor | None

    def bias(self) -> Tensor:
        """Return bias_BATT, in memory of its own."""
        parts = []
        num_frames = (self.columns_W.shape[0] + 1) // 2
        index_TT = self.columns_W.unfold(0, num_frames, 1).flip(0).long()
        if (of_queries := self.of_queries_BATR) is not None:
            parts.append(of_queries.gather(-1, index_TT.expand(*of_queries.shape[:2], -1, -1)))
        if (of_keys := self.of_keys_BATR) is not None:
            turned_BATT = of_keys.gather(-1, index_TT.T.expand(*of_keys.shape[:2], -1, -1))
            parts.append(turned_BATT.transpose(2, 3))
        return sum(parts[1:], parts[0])


def fused(
    q_BATD: Tensor,
    k_BATD: Tensor,
    v_BATD: Tensor,
    lookup: Lookup,
    keys_B11T: Tensor | None,
    scale: float,
    kernel: Kernel,
) -> Tensor:
    """Return mixed_BATD, values weighted by the softmax of `q k^T scale + bias` over unmasked keys, by one kernel."""
    columns_W, of_queries, of_keys = lookup

    def score_mod(score: Tensor, row: Tensor, head: Tensor, i: Tensor, j: Tensor) -> Tensor:
        column = columns_W[j - i + columns_W.shape[0] // 2]
        if of_queries is not None:
            score = score + of_queries[row, head, i, column]
        if of_keys is not None:
            score = score + of_keys[row, head, j, column]
        return score if keys_B11T is None else torch.where(keys_B11T[row, 0, 0, j], score, -float("inf"))

    return kernel(q_BATD, k_BATD, v_BATD, score_mod=score_mod, scale=scale)


@functools.cache
def kernel_of(device: torch.device, dtype: torch.dtype) -> Kernel | None:
    """Return the kernel of a GPU, tried once; None where torch has none, or where its results are wrong."""
    is_right = functools.partial(_is_right, device=device, dtype=dtype)
    return tried(compiled(device), is_right, "attention by distance goes in blocks")


def tried(kernel: Kernel | None, is_right: Callable[[Kernel], bool], instead: str) -> Kernel | None:
    """Return the kernel if its results are right; else None, with a warning that names the fallback."""
    if kernel is None:
        return None
    try:
        why = "" if is_right(kernel) else "its results differ from plain products"
    except Exception as error:  # a compiler may raise any error
        why = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
    if why:
        logger.warning("%s, since torch's kernel for it cannot be used here: %s", instead, why)
        return None
    return kernel


def compiled(device: torch.device) -> Kernel | None:
    """Return torch's kernel for a GPU of CUDA, not yet compiled; None for other devices, or without Triton."""
    from torch.utils._triton import has_triton

    if device.type != "cuda" or not has_triton():
        return None
    from torch.nn.attention.flex_attention import flex_attention

    kernel: Any = torch.compile(flex_attention, dynamic=True, fullgraph=True)
    return kernel  # type: ignore[no-any-return]


def _is_right(kernel: Kernel, *, device: torch.device, dtype: torch.dtype) -> bool:
    """Return whether a kernel gives the attention of plain products."""
    draw = torch.Generator().manual_seed(0)
    sent = functools.partial(torch.Tensor.to, device=device, dtype=dtype)
    q, k, v = (sent(torch.randn(2, 3, TRIED_FRAMES, 64, generator=draw)) for _ in range(3))
    products = sent(torch.randn(2, 3, TRIED_FRAMES, 9, generator=draw))
    columns_W = torch.arange(1 - TRIED_FRAMES, TRIED_FRAMES).clamp(-5, 3).add(5).to(device)
    keys_B11T = (torch.arange(TRIED_FRAMES) < torch.tensor([[TRIED_FRAMES], [150]]))[:, None, None].to(device)
    lookup = Lookup(columns_W, products, None)
    found = fused(q, k, v, lookup, keys_B11T, 0.125, kernel)
    scores = (q @ k.transpose(2, 3) * 0.125 + lookup.bias()).masked_fill(~keys_B11T, -torch.inf)
    [differs] = fetch((found - scores.softmax(-1) @ v).abs().max().float())
    # Not the negation of `>`, which would accept NaN.
    return bool(differs <= TOLERANCE)
