"""Dropout, on a CPU with masks drawn sixteen bits a value.

torch draws a double for each value of a mask on a CPU, 7 ns, which was a tenth of a training step. Masks here are
drawn by numpy's SFC64, seeded by torch's generator, and kept as bytes for the backward pass, a quarter of the memory.
On other devices, under autocast and in compiled programs the functions of torch are called.
"""

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

LEVELS = 1 << 16
"""Probabilities are rounded to a multiple of one over this."""


def dropped(x: Tensor, probability: float, training: bool = True) -> Tensor:
    """Return `torch.nn.functional.dropout`: in training zeros with this probability, the other values scaled."""
    if not training or probability == 0.0:
        return x
    if not _draws_bits(x, probability):
        return F.dropout(x, probability)
    threshold = round(probability * LEVELS)
    kept = _kept(x.shape, threshold)
    result: Tensor = _Masked.apply(x, kept, LEVELS / (LEVELS - threshold))  # type: ignore[no-untyped-call]
    return result


def attention_with_dropout(
    q_BATD: Tensor,
    k_BATD: Tensor,
    v_BATD: Tensor,
    mask: Tensor | None,
    probability: float,
    scale: float | None = None,
) -> Tensor:
    """Return `torch.nn.functional.scaled_dot_product_attention`.

    Args:
        q_BATD: Queries of B rows, A heads, T frames and D values.
        k_BATD: Keys.
        v_BATD: Values.
        mask: Boolean mask of the attended keys, or bias of the scores, broadcast to (B, A, T, T); None: all keys.
        probability: Share of the weights that dropout sets to zero.
        scale: Factor of the scores; None: `D ** -0.5`.
    """
    if not probability or q_BATD.dtype != torch.float32 or not _draws_bits(q_BATD, probability):
        return F.scaled_dot_product_attention(q_BATD, k_BATD, v_BATD, mask, probability, scale=scale)
    scale = q_BATD.shape[-1] ** -0.5 if scale is None else scale
    scores_BATT = (q_BATD * scale) @ k_BATD.transpose(2, 3)
    if mask is not None:
        scores_BATT = scores_BATT.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else scores_BATT + mask
    return dropped(scores_BATT.softmax(-1), probability) @ v_BATD


def _draws_bits(x: Tensor, probability: float) -> bool:
    return (
        not torch.compiler.is_compiling()
        and x.device.type == "cpu"
        and not torch.is_autocast_enabled("cpu")
        and 0.0 < probability < 1.0 - 1 / LEVELS
    )


def _kept(shape: torch.Size, threshold: int) -> Tensor:
    """Draw which values are kept."""
    count, seed = shape.numel(), int(torch.randint(1 << 62, (), device="cpu"))
    bits = np.random.SFC64(seed).random_raw(-(-count // 4)).view(np.int16)[:count]
    # The bits are read as signed numbers, the kind that torch has, so the threshold moves down by half of the levels.
    return (torch.from_numpy(bits) >= threshold - LEVELS // 2).view(shape)


class _Masked(torch.autograd.Function):
    """Product with a mask of booleans and a scale; its gradient is the same product."""

    @staticmethod
    def forward(x: Tensor, kept: Tensor, scale: float) -> Tensor:
        return kept.to(x.dtype).mul_(x).mul_(scale)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, float], output: Tensor) -> None:  # noqa: ANN401
        _, kept, ctx.scale = inputs
        ctx.save_for_backward(kept)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:  # noqa: ANN401
        (kept,) = ctx.saved_tensors
        return _Masked.apply(grad, kept, ctx.scale), None, None  # type: ignore[no-untyped-call]
