"""Attention and cache of Flax text decoders.

A cache has room for a fixed number of tokens, so that one program serves all steps of a text.

Legend: B rows of the encoder, R rows of the decoder (B, or B times the beams), L new tokens, M room for tokens,
S frames, H hidden, A heads, D head.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from raysp.models.flax.layers import Pass, attend, dense, joined_heads, split_heads

KeysAndValues = tuple[Array, Array]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class FlaxCache:
    """Keys and values of earlier tokens, (R, A, M, D) for each layer, and of the encoder's frames, (B, A, S, D).

    It reads as a tuple of layers, each with two arrays of tokens and two of frames.
    """

    tokens: tuple[KeysAndValues, ...]
    frames: tuple[KeysAndValues, ...] | None
    """None before the first pass."""
    num_tokens: Any
    """Tokens in the cache; places after them are not attended to."""

    @classmethod
    def empty(cls, num_layers: int, rows: int, num_heads: int, room: int, head_size: int, dtype: Any) -> "FlaxCache":  # noqa: ANN401
        """Return a cache without tokens."""
        zeros = jnp.zeros((rows, num_heads, room, head_size), dtype)
        return cls(((zeros, zeros),) * num_layers, None, jnp.zeros((), jnp.int32))

    @property
    def room(self) -> int:
        """Tokens that the cache can hold."""
        return int(self.tokens[0][0].shape[2])

    def __len__(self) -> int:
        return len(self.tokens)

    def __getitem__(self, layer: int) -> tuple[Array, ...]:
        return (*self.tokens[layer], *(self.frames[layer] if self.frames else ()))


@dataclass(kw_only=True)
class DecoderPass(Pass):
    """Values that all layers of a text decoder read or record."""

    allowed: Array | None = None
    """(R or 1, 1, L, M), true where a new token attends to a token."""
    frames_BSH: Array | None = None
    frames_allowed: Array | None = None
    """(B, 1, 1, S), true where a frame is attended to."""
    cache: FlaxCache | None = None
    tokens: list[KeysAndValues] = field(default_factory=list)
    frames: list[KeysAndValues] = field(default_factory=list)
    cross_attentions: list[Array] = field(default_factory=list)

    @property
    def has_encoder(self) -> bool:
        """Whether there are frames to attend to."""
        return self.frames_BSH is not None

    def new_cache(self, num_new: int) -> FlaxCache | None:
        """Return the cache after the pass."""
        if self.cache is None:
            return None
        frames = tuple(self.frames) or None
        return FlaxCache(tuple(self.tokens), frames, self.cache.num_tokens + num_new)


class Noted(NamedTuple):
    """States and weights of a pass, under their names in outputs; None: not recorded."""

    hidden_states: tuple[Array, ...] | None
    attentions: tuple[Array, ...] | None
    cross_attentions: tuple[Array, ...] | None = None

    @classmethod
    def of(cls, run: Pass) -> "Noted":
        """Return the values that a pass has recorded."""
        cross = tuple(run.cross_attentions) if isinstance(run, DecoderPass) else ()
        return cls(tuple(run.states) or None, tuple(run.attentions) or None, cross or None)


def attend_to_tokens(
    q_RALD: Array, k_RALD: Array, v_RALD: Array, run: DecoderPass, layer: int, rate: float, scale: float | None = None
) -> Array:
    """Return the attention of new tokens to cached tokens and to themselves, (R, L, H)."""
    if run.cache is not None:
        at = (0, 0, run.cache.num_tokens, 0)
        keys, values = run.cache.tokens[layer]
        k_RALD = lax.dynamic_update_slice(keys, k_RALD.astype(keys.dtype), at)
        v_RALD = lax.dynamic_update_slice(values, v_RALD.astype(values.dtype), at)
        run.tokens.append((k_RALD, v_RALD))
    mixed_RALD, weights = attend(q_RALD, k_RALD, v_RALD, run.allowed, rate=rate, run=run, scale=scale)
    if run.with_weights:
        run.attentions.append(weights)
    return joined_heads(mixed_RALD)


def attend_to_encoder(
    q_RALD: Array,
    project: Callable[[Array], KeysAndValues],
    run: DecoderPass,
    layer: int,
    rate: float,
    scale: float | None = None,
) -> Array:
    """Return the attention of tokens to the frames of the encoder, (R, L, H); `project` computes keys and values."""
    if run.cache is not None and run.cache.frames is not None:
        k_BASD, v_BASD = run.cache.frames[layer]
    else:
        assert run.frames_BSH is not None
        k_BASD, v_BASD = project(run.frames_BSH)
    run.frames.append((k_BASD, v_BASD))
    rows, heads, length, width = q_RALD.shape
    batch, num_frames = k_BASD.shape[0], k_BASD.shape[2]
    beams = rows // batch
    # The beams of a recording are extra queries of its frames: no copies.
    q_BKALD = q_RALD.reshape(batch, beams, heads, length, width)
    q_BAKD = q_BKALD.swapaxes(1, 2).reshape(batch, heads, beams * length, width)
    mixed_BAKD, weights = attend(q_BAKD, k_BASD, v_BASD, run.frames_allowed, rate=rate, run=run, scale=scale)
    unfolded = (batch, heads, beams, length)
    if run.with_weights:
        weights = weights.reshape(*unfolded, num_frames).swapaxes(1, 2)
        run.cross_attentions.append(weights.reshape(rows, heads, length, num_frames))
    mixed_RALD = mixed_BAKD.reshape(*unfolded, width).swapaxes(1, 2).reshape(rows, heads, length, width)
    return joined_heads(mixed_RALD)


def split_attention(
    names: tuple[str, str, str],
    width: int,
    num_heads: int,
    hidden_RLH: Array,
    run: DecoderPass,
    layer: int,
    rate: float,
    is_cross: bool,
) -> Array:
    """Return a mix_RLH of tokens or frames, by a layer each for queries, keys and values."""

    def split(name: str, source: Array) -> Array:
        return split_heads(dense(name, width, source), num_heads)

    def project(source: Array) -> KeysAndValues:
        return split(names[1], source), split(names[2], source)

    queries = split(names[0], hidden_RLH)
    if is_cross:
        return attend_to_encoder(queries, project, run, layer, rate)
    return attend_to_tokens(queries, *project(hidden_RLH), run, layer, rate)


def token_mask(mask_RM: Array | None, num_new: int, start: Any, room: int) -> Array:  # noqa: ANN401 - an int or array
    """Return (R or 1, 1, L, M), true where a new token attends to a token: to itself at least."""
    places_M = jnp.arange(room)
    places_L1 = (start + jnp.arange(num_new))[:, None]
    before: Array = (places_M <= places_L1)[None, None]
    if mask_RM is None:
        return before
    allowed = before & mask_RM.astype(bool)[:, None, None]
    attended: Array = allowed | ((places_M == places_L1) & ~allowed.any(-1, keepdims=True))
    return attended
