"""How windows may share a forward pass in each precision, so that a label does not depend on what shares it.

In float32 a product's last bits depend on the number of rows that it has, and never change a label. In half precision
they do: a kernel chosen for more rows sums in another order, and what is rounded to eight bits becomes another token
(docs/decisions/013-half-precision.md has the measurements).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum

HALF = ("bfloat16", "float16")
PROVEN_DEVICES: frozenset[str] = frozenset()
"""Devices besides the CPU on which windows in batches were shown to have the label that they have alone.

`make gpu` measures it; a device is added here with the output of that run in the decision record.
"""
AGREED_RATE = 0.9
"""Least share of sampled rows that `verify` finds equal in half precision.

Measured between bfloat16 in batches and alone 0.992, between bfloat16 and float32 0.983 to 1.0 (short texts); labels
of other rows or of another checkpoint differ in most.
"""
DIGITS = {"float32": 3, "bfloat16": 1, "float16": 2}
"""To which numbers of two labellings agree."""


class Batching(StrEnum):
    """How windows are brought to the model."""

    FREE = "in batches of any size"
    """No label depends on the batch."""
    ALONE = "each window alone"
    """Half precision where a pass of one window costs little: a label cannot depend on a batch."""
    RECORDED = "in batches of the recorded budget"
    """Labels may depend on the batch: the budget is part of the fingerprint."""


def batching(*, dtype: str, device: str, exact: bool) -> Batching:
    """Return how windows are brought to a model in this precision on this device."""
    if dtype not in HALF:
        return Batching.FREE
    if device == "cpu":
        return Batching.ALONE if exact else Batching.RECORDED
    return Batching.FREE if exact and device in PROVEN_DEVICES else Batching.RECORDED


def agreed_rate(dtype: str) -> float:
    """Return the share of rows that must be equal when they are labelled again."""
    return AGREED_RATE if dtype in HALF else 1.0


def most_unequal(num_rows: int, dtype: str) -> int:
    """Return how many of the rows may differ when they are labelled again; in half precision one always may."""
    return max(1, int(num_rows * (1 - AGREED_RATE) + 1e-9)) if dtype in HALF else 0


@contextmanager
def steady_products(*, dtype: str, device: str) -> Iterator[None]:
    """Keep a GPU's products in half precision from splitting their sums, while the block lasts.

    Sums stay in float32, the inner dimension is not split among blocks of the GPU, convolutions take a deterministic
    kernel without a search, and attention takes one kernel whatever the shape. Nothing is changed on a CPU.
    """
    if dtype not in HALF or not device.startswith("cuda"):
        yield
        return
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel

    products = torch.backends.cuda.matmul
    before = [(name, getattr(products, name), getattr(products, f"{name}_split_k")) for name in _REDUCTIONS]
    try:
        for name in _REDUCTIONS:
            setattr(products, name, (False, False))
        with (
            torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True),
            sdpa_kernel([SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]),
        ):
            yield
    finally:
        for name, reduced, split in before:
            setattr(products, name, (reduced, split))


_REDUCTIONS = ("allow_bf16_reduced_precision_reduction", "allow_fp16_reduced_precision_reduction")
