"""Greedy decoding and sampling as one program, and the decoder's state that beam search uses too.

Legend: B rows of the encoder, R rows of the decoder, M room for tokens, V vocabulary.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from raysp.models.decoder.generation_config import Settings
from raysp.models.flax.decoding import FlaxCache
from raysp.models.flax.logits import Change, is_one_of

Step = Callable[[Array, FlaxCache], tuple[Array, FlaxCache]]
"""Function of new tokens (R, L) and a cache that returns float32 logits (R, 1, V) of the next token, and the cache."""


class Texts(NamedTuple):
    """Result of a program: n texts of each row."""

    sequences: Array
    """(B, n, M), with the first token."""
    num_tokens: Array
    """(B, n), the first token included."""
    scores: Array
    """(B, n); of beam search alone."""


@dataclass(frozen=True)
class Start:
    """Inputs of a decoding program."""

    settings: Settings
    step: Step
    changes: Sequence[Change]
    first_B1: Array
    """The token that the text of each row begins with."""
    cache: FlaxCache
    key: Any
    """A random key."""


def started(start: Start, texts: int) -> FlaxCache:
    """Return the cache with the frames; rows are repeated, once per text.

    A pass over no tokens projects the frames, so that the decoder is compiled once more for the loop alone.
    """
    _, cache = start.step(start.first_B1[:, :0], start.cache)
    return replace(cache, tokens=jax.tree.map(lambda x: jnp.repeat(x, texts, axis=0), cache.tokens))


def selected(cache: FlaxCache, rows_R: Array) -> FlaxCache:
    """Return a cache with these rows, in this order."""
    return replace(cache, tokens=jax.tree.map(lambda x: x[rows_R], cache.tokens))


class State(NamedTuple):
    """State of greedy decoding or sampling."""

    length: Array
    tokens_RM: Array
    done_R: Array
    cache: FlaxCache


def token_by_token(start: Start) -> Texts:
    """Decode the best, or a sampled, token at a time until all texts have ended."""
    settings, texts = start.settings, start.settings.num_return_sequences
    first_R1 = jnp.repeat(start.first_B1, texts, axis=0)
    padding = settings.pad_token_id or 0
    tokens_RM = jnp.pad(first_R1, ((0, 0), (0, settings.max_length - 1)), constant_values=padding)
    first = State(jnp.asarray(1), tokens_RM, jnp.zeros(len(tokens_RM), bool), started(start, texts))

    def goes_on(state: State) -> Array:
        return (state.length < settings.max_length) & ~state.done_R.all()

    def continued(state: State) -> State:
        last_R1 = lax.dynamic_slice_in_dim(state.tokens_RM, state.length - 1, 1, axis=1)
        logits_R1V, cache = start.step(last_R1, state.cache)
        next_R, done_R = chosen(start, state, logits_R1V[:, 0]), state.done_R
        if settings.eos_token_ids:
            next_R = jnp.where(done_R, padding, next_R)
            done_R = done_R | is_one_of(next_R, settings.eos_token_ids)
        tokens_RM = lax.dynamic_update_slice(state.tokens_RM, next_R[:, None], (0, state.length))
        return State(state.length + 1, tokens_RM, done_R, cache)

    last = lax.while_loop(goes_on, continued, first)
    shape = (len(start.first_B1), texts)
    return Texts(last.tokens_RM.reshape(*shape, -1), jnp.broadcast_to(last.length, shape), jnp.zeros(shape))


def chosen(start: Start, state: State, logits_RV: Array) -> Array:
    """Return the next token of each text."""
    for change in start.changes:
        logits_RV = change(state.tokens_RM, state.length, logits_RV)
    if not start.settings.do_sample:
        return logits_RV.argmax(-1).astype(state.tokens_RM.dtype)
    key = jax.random.fold_in(start.key, state.length)
    return jax.random.categorical(key, logits_RV).astype(state.tokens_RM.dtype)
