"""Shapes of batches, rounded up so that few programs are compiled.

JAX compiles a program for every shape. Rows, frames and tokens are therefore padded to powers of two and one and a half
times those, and the outputs cut. Values do not change: masks exclude the padding. Arrays that a caller's `jax.jit`
traces, and arrays on several devices, keep their shapes.
"""

from typing import Any, NamedTuple

import jax
import numpy as np
from jax import Array

LEAST_FRAMES = 64  # of a batch: 1.3 seconds at 50 frames a second
LEAST_TOKENS = 16


class Batch(NamedTuple):
    """Inputs of an encoder on the grid."""

    inputs: Any
    """(B, S) samples, or (B, S, F) features."""
    mask: Any
    """(B, S), true for samples or feature frames of a row, which come first."""
    rows: int
    """Rows that were given."""
    length: int
    """Samples or feature frames that were given."""

    @property
    def padded_rows(self) -> int:
        """Rows on the grid."""
        return int(self.inputs.shape[0])

    def is_given(self) -> Any:  # noqa: ANN401 - an array of NumPy
        """Return (B,), true for rows that were given."""
        return np.arange(self.padded_rows) < self.rows


def rounded(count: int, least: int = 1) -> int:
    """Return the next size of the grid: a power of two, or one and a half times one."""
    size = 1
    while size < max(count, least):
        size *= 2
    return 3 * size // 4 if size >= 4 and 3 * size // 4 >= max(count, least) else size


def keep_shape(*values: object) -> bool:
    """Return whether any value is traced by a caller's `jax.jit`, or lies on several devices."""
    return any(
        isinstance(value, jax.core.Tracer) or (isinstance(value, Array) and len(value.sharding.device_set) > 1)
        for value in values
    )


def padded(x: Any, *sizes: int) -> Any:  # noqa: ANN401 - an array of either kind
    """Return an array with zeros after its leading axes up to these sizes."""
    widths = [(0, size - old) for old, size in zip(x.shape, sizes, strict=False)]
    if not any(after for _, after in widths):
        return x
    return np.pad(np.asarray(x), widths + [(0, 0)] * (len(x.shape) - len(sizes)))


def batch_of(inputs: Any, mask: Any, step: int, *, is_fixed: bool) -> Batch:  # noqa: ANN401 - arrays of either kind
    """Return inputs on the grid, whose sizes are `step` samples or feature frames apart; `is_fixed`: as they are.

    Raises:
        ValueError: The mask has another shape than the inputs.
    """
    rows, length = inputs.shape[:2]
    if mask is not None and tuple(mask.shape) != (rows, length):
        raise ValueError(f"attention_mask has shape {tuple(mask.shape)!r}, expected {(rows, length)!r} like the input")
    inputs = inputs if isinstance(inputs, Array) else np.asarray(inputs)
    if mask is None:
        mask = np.ones((rows, length), bool)
    elif not isinstance(mask, Array):
        mask = np.asarray(mask)
    if is_fixed:
        return Batch(inputs, mask, rows, length)
    sizes = rounded(rows), step * rounded(-(-length // step), LEAST_FRAMES)
    return Batch(padded(inputs, *sizes), padded(mask, *sizes), rows, length)


def cut(x: Array, *sizes: int | None) -> Array:
    """Return the leading part of an array; None keeps an axis."""
    places = tuple(slice(size) for size in sizes)
    same = all(size is None or size == old for size, old in zip(sizes, x.shape, strict=False))
    return x if same else x[places]


def cut_all(xs: tuple[Array, ...], *sizes: int | None) -> tuple[Array, ...]:
    """Return the leading parts of arrays."""
    return tuple(cut(x, *sizes) for x in xs)
