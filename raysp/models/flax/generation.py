"""Greedy decoding and sampling as one program, and the decoder's state that beam search uses too.

Legend: B rows of the encoder, R rows of the decoder, T tokens of the prompt, M room for tokens, V vocabulary.
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
    """(B, n, M), with the prompt."""
    num_tokens: Array
    """(B, n), prompt included."""
    scores: Array
    """(B, n); of beam search alone."""
    log_probs: Array
    """(B, n, M), of each token as the model gives it; zero in the prompt and after the end."""


@dataclass(frozen=True)
class Start:
    """Inputs of a decoding program."""

    settings: Settings
    step: Step
    changes: Sequence[Change]
    prompt_BT: Array
    cache: FlaxCache
    open_B: Array
    """True for rows to decode; the others fill up the batch."""
    keys_B: Array
    """A random key for each row."""


def started(start: Start, texts: int) -> FlaxCache:
    """Return the cache with the frames and all tokens of the prompt but the last; rows are repeated, once per text.

    The last token is the first input of the loop, so that the decoder is compiled once: a pass over no tokens is empty.
    """
    _, cache = start.step(start.prompt_BT[:, :-1], start.cache)
    return replace(cache, tokens=jax.tree.map(lambda x: jnp.repeat(x, texts, axis=0), cache.tokens))


def selected(cache: FlaxCache, rows_R: Array) -> FlaxCache:
    """Return a cache with these rows, in this order."""
    return replace(cache, tokens=jax.tree.map(lambda x: x[rows_R], cache.tokens))


def keys_of(key: Any, rows: int) -> Array:  # noqa: ANN401 - a key of either kind
    """Return a key for each row (B,), given those or one for the call; a row's does not depend on its batch."""
    if not jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        key = jax.random.wrap_key_data(key)
    return key if key.ndim == 1 else jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(rows))


class State(NamedTuple):
    """State of greedy decoding or sampling."""

    length: Array
    tokens_RM: Array
    log_probs_RM: Array
    done_R: Array
    cache: FlaxCache


def token_by_token(start: Start) -> Texts:
    """Decode the best, or a sampled, token at a time until all texts have ended."""
    settings, texts = start.settings, start.settings.num_return_sequences
    prompt_RT = jnp.repeat(start.prompt_BT, texts, axis=0)
    padding = settings.pad_token_id or 0
    tokens_RM = jnp.pad(prompt_RT, ((0, 0), (0, settings.max_length - prompt_RT.shape[1])), constant_values=padding)
    first = State(
        jnp.asarray(prompt_RT.shape[1]),
        tokens_RM,
        jnp.zeros(tokens_RM.shape),
        jnp.repeat(~start.open_B, texts),
        started(start, texts),
    )
    numbers_R = jnp.tile(jnp.arange(texts), len(start.prompt_BT))
    keys_R = jax.vmap(jax.random.fold_in)(jnp.repeat(start.keys_B, texts), numbers_R)

    def written(state: State, logits_RV: Array) -> State:
        next_R = chosen(start, state, logits_RV, keys_R)
        done_R = state.done_R
        log_probs_R = jnp.where(done_R, 0.0, log_probs_of(logits_RV, next_R))
        if settings.eos_token_ids:
            next_R = jnp.where(done_R, padding, next_R)
            done_R = done_R | is_one_of(next_R, settings.eos_token_ids)
        tokens_RM = lax.dynamic_update_slice(state.tokens_RM, next_R[:, None], (0, state.length))
        log_probs_RM = lax.dynamic_update_slice(state.log_probs_RM, log_probs_R[:, None], (0, state.length))
        return State(state.length + 1, tokens_RM, log_probs_RM, done_R, state.cache)

    def goes_on(state: State) -> Array:
        return (state.length < settings.max_length) & ~state.done_R.all()

    def continued(state: State) -> State:
        last_R1 = lax.dynamic_slice_in_dim(state.tokens_RM, state.length - 1, 1, axis=1)
        logits_R1V, cache = start.step(last_R1, state.cache)
        return written(state._replace(cache=cache), logits_R1V[:, 0])

    last = lax.while_loop(goes_on, continued, first)
    shape = (len(start.prompt_BT), texts)
    counts = jnp.broadcast_to(last.length, shape)
    tokens, log_probs = (x.reshape(*shape, -1) for x in (last.tokens_RM, last.log_probs_RM))
    return Texts(tokens, counts, jnp.zeros(shape), log_probs)


def log_probs_of(logits_RV: Array, ids_R: Array) -> Array:
    """Return the log-probability (R,) of a token in each row."""
    of_ids_R1 = jnp.take_along_axis(logits_RV, ids_R[:, None], 1)
    return of_ids_R1[:, 0] - jax.nn.logsumexp(logits_RV, -1)


def chosen(start: Start, state: State, logits_RV: Array, keys_R: Array) -> Array:
    """Return the next token of each text."""
    for change in start.changes:
        logits_RV = change(state.tokens_RM, state.length, logits_RV)
    if not start.settings.do_sample:
        return logits_RV.argmax(-1).astype(state.tokens_RM.dtype)
    keys_R = jax.vmap(jax.random.fold_in, (0, None))(keys_R, state.length)
    return jax.vmap(jax.random.categorical)(keys_R, logits_RV).astype(state.tokens_RM.dtype)
