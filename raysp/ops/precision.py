"""Batching of windows by precision, chosen so that a label does not depend on the other windows of a batch.

In float32 the last bits of a matrix product depend on its number of rows, but never change a label. In half precision
they can: the kernel for more rows sums in another order, and after rounding to eight bits another token may win
(docs/decisions/013-half-precision.md has the measurements). TF32, float32 whose products round their inputs to ten
bits, is treated as half precision. `raysp.models.base.placing` sets the flags of both.
"""

from enum import StrEnum

from raysp.devices import is_accelerator

HALF = ("bfloat16", "float16")
EIGHT_BITS = ("int8", "int8_float32", "int8_float16")
ROUNDED = (*HALF, "tf32", *EIGHT_BITS)
"""Arithmetic in which products round their inputs, so that the kernel for another batch may change a label."""
AGREED_RATE = 0.9
"""Least share of equal sampled rows that `verify` accepts in half precision and TF32.

Measured: 0.992 between bfloat16 in batches and alone, 0.983 to 1.0 between bfloat16 and float32 (short texts). Labels
of other rows or of another checkpoint mostly differ.
"""
DIGITS = {"float32": 3, "bfloat16": 1, "float16": 2, "tf32": 2, **dict.fromkeys(EIGHT_BITS, 1)}
"""Digits to which numbers of two labellings agree, by dtype: the tolerance, relative or absolute, is 10**-digits."""


def item_bytes(dtype: str) -> int:
    """Return the bytes of a weight."""
    return 1 if dtype in EIGHT_BITS else 2 if dtype in HALF else 4


class Batching(StrEnum):
    """Batching of windows."""

    FREE = "in batches of any size"
    """Labels do not depend on the batch."""
    ALONE = "each window alone"
    """One window per pass, by one thread for models of raysp: half precision on a CPU. Labels depend neither on the
    other windows nor on the number of threads."""
    RECORDED = "in batches of the recorded budget"
    """Labels may depend on the batch, so the budget is part of the fingerprint."""


def batching(*, dtype: str, device: str) -> Batching:
    """Return the batching of windows for a precision and a device."""
    if dtype not in ROUNDED:
        return Batching.FREE
    if is_accelerator(device):
        return Batching.RECORDED
    return Batching.FREE if dtype in EIGHT_BITS else Batching.ALONE  # of eight bits: its backend decodes each alone


def agreed_rate(dtype: str) -> float:
    """Return the least share of rows that must be equal when labelled again."""
    return AGREED_RATE if dtype in ROUNDED else 1.0


def most_unequal(num_rows: int, dtype: str) -> int:
    """Return the number of rows that may differ when labelled again: 0 in float32, else at least 1."""
    return max(1, int(num_rows * (1 - AGREED_RATE) + 1e-9)) if dtype in ROUNDED else 0
