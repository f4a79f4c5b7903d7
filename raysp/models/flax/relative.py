"""Biases of attention by the distance of frames.

Legend: B batch, T frames, A heads, R rows of a table of distances, W distances of T frames (2T - 1).
"""

import jax.numpy as jnp
from jax import Array


def by_distance(values_W: Array) -> Array:
    """Return values_TT: at i, j the value of `values_W` for `j - i`, in order from `1 - T` to `T - 1`."""
    num_frames = (values_W.shape[0] + 1) // 2
    places_T = jnp.arange(num_frames)
    return values_W[places_T + (num_frames - 1 - places_T)[:, None]]


def gathered(product_BATR: Array, index_TT: Array) -> Array:
    """Return each query's products with the table rows of its keys, (B, A, T, T)."""
    index_11TT = jnp.broadcast_to(index_TT, (*product_BATR.shape[:2], *index_TT.shape))
    return jnp.take_along_axis(product_BATR, index_11TT, -1)
