"""Parts that Flax models share: activations, norms, attention, numbered layers, inputs of all layers of a pass.

Legend: R rows, L queries, S keys, A heads, D head, H hidden, B batch, T frames.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import Array

from raysp.errors import CheckpointError

Value = TypeVar("Value")

GELU: Callable[[Array], Array] = lambda x: jax.nn.gelu(x, approximate=False)  # noqa: E731
GELU_TANH: Callable[[Array], Array] = lambda x: jax.nn.gelu(x, approximate=True)  # noqa: E731

ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "gelu": GELU,
    "gelu_fast": GELU_TANH,
    "gelu_new": GELU_TANH,
    "gelu_python": GELU,
    "gelu_pytorch_tanh": GELU_TANH,
    "hardswish": jax.nn.hard_swish,
    "leaky_relu": jax.nn.leaky_relu,
    "linear": lambda x: x,
    "mish": jax.nn.mish,
    "quick_gelu": lambda x: x * jax.nn.sigmoid(1.702 * x),
    "relu": jax.nn.relu,
    "relu6": jax.nn.relu6,
    "selu": jax.nn.selu,
    "sigmoid": jax.nn.sigmoid,
    "silu": jax.nn.silu,
    "swish": jax.nn.silu,
    "tanh": jnp.tanh,
}


def activation(name: str) -> Callable[[Array], Array]:
    """Return an activation function by its name in a configuration."""
    if name not in ACTIVATIONS:
        raise CheckpointError(f"activation is {name!r}, expected one of {', '.join(ACTIVATIONS)}: correct config.json")
    return ACTIVATIONS[name]


@dataclass(kw_only=True)
class Pass:
    """Switches of one forward pass, and the states and weights collected for the output."""

    train: bool = False
    """Whether dropout is on."""
    with_states: bool = False
    with_weights: bool = False
    freezes_features: bool = False
    """Whether gradients stop at the front end."""
    states: list[Array] = field(default_factory=list)
    attentions: list[Array] = field(default_factory=list)

    def note(self, hidden: Array) -> None:
        """Keep a hidden state if the output includes hidden states."""
        if self.with_states:
            self.states.append(hidden)


class Part(nn.Module):
    """Part of a model: the layers that a function makes, under the name of the part."""

    compute: Callable[..., Any]

    @nn.compact
    def __call__(self, *args: Any) -> Any:  # noqa: ANN401 - arguments of the function
        """Return the function's result."""
        return self.compute(*args)


def part(name: str, compute: Callable[..., Value], *args: Any) -> Value:  # noqa: ANN401 - arguments of the function
    """Return the result of a part, or of one in another, such as "cls/predictions"; called within a module."""
    outer, _, inner = name.partition("/")
    made: Value = Part(partial(part, inner, compute) if inner else compute, name=outer)(*args)
    return made


def numbered(name: str, count: int, layer: Callable[..., Value], x: Value, *args: Any) -> Value:  # noqa: ANN401
    """Return the output of the last of layers that are named by their index, as in checkpoints.

    Each takes its index, the output of the previous layer, and the arguments.
    """

    def layers(x: Value) -> Value:
        for index in range(count):
            x = part(str(index), layer, index, x, *args)
        return x

    return part(name, layers, x)


def dense(name: str, width: int, x: Array, *, has_bias: bool = True) -> Array:
    """Return the output of a dense layer."""
    projected: Array = nn.Dense(width, use_bias=has_bias, name=name)(x)
    return projected


def norm(name: str, x: Array, epsilon: float = 1e-5) -> Array:
    """Return the output of a layer norm; its statistics are in float32."""
    normalised: Array = nn.LayerNorm(epsilon=epsilon, use_fast_variance=False, name=name)(x)
    return normalised


def embedded(name: str, count: int, width: int, ids: Array) -> Array:
    """Return rows of a table of embeddings."""
    rows: Array = nn.Embed(count, width, name=name)(ids)
    return rows


def dropout(x: Array, rate: float, run: Pass) -> Array:
    """Drop values in training; called within a module."""
    dropped: Array = nn.Dropout(rate)(x, deterministic=not run.train) if run.train and rate > 0.0 else x
    return dropped


def split_heads(x_RLH: Array, num_heads: int) -> Array:
    """Return (R, A, L, D)."""
    rows, length, width = x_RLH.shape
    return x_RLH.reshape(rows, length, num_heads, width // num_heads).transpose(0, 2, 1, 3)


def joined_heads(x_RALD: Array) -> Array:
    """Return (R, L, H)."""
    rows, heads, length, width = x_RALD.shape
    return x_RALD.transpose(0, 2, 1, 3).reshape(rows, length, heads * width)


def attend(
    q_RALD: Array,
    k_RASD: Array,
    v_RASD: Array,
    allowed: Array | None,
    *,
    rate: float,
    run: Pass,
    scale: float | None = None,
) -> tuple[Array, Array]:
    """Return the mixed values (R, A, L, D) and the weights (R, A, L, S), whose softmax is in float32."""
    scale = q_RALD.shape[-1] ** -0.5 if scale is None else scale
    scores = jnp.einsum("rald,rasd->rals", q_RALD * scale, k_RASD).astype(jnp.float32)
    if allowed is not None:
        # The least number and not -inf: of a row without any key softmax and gradient would be NaN.
        scores = jnp.where(allowed, scores, float(np.finfo(np.float32).min))
    weights = dropout(jax.nn.softmax(scores, axis=-1).astype(v_RASD.dtype), rate, run)
    return jnp.einsum("rals,rasd->rald", weights, v_RASD), weights


def attended_keys(valid_BT: Array) -> Array:
    """Return (B, 1, 1, T), true where a frame is attended to; a row without frames attends to its first."""
    first_T = jnp.arange(valid_BT.shape[1]) == 0
    return (valid_BT | (first_T & ~valid_BT.any(-1, keepdims=True)))[:, None, None]


def is_before(counts_B: Array, length: int) -> Array:
    """Return (B, length), true at the first `counts_B` places."""
    return jnp.arange(length) < counts_B[:, None]


def without_padding(x_BTH: Array, valid_BT: Array) -> Array:
    """Return frames that are zero where not valid."""
    return jnp.where(valid_BT[:, :, None], x_BTH, jnp.zeros((), x_BTH.dtype))
