"""Beam search as one program: the search of decoder/beams.py with arrays of fixed shapes.

Rows are independent. A decided row stays in the batch; its results do not change.

Legend: B rows, K beams, C candidates (more than beams, so that enough stay open when some end), M room for tokens, V
vocabulary.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from raysp.models.flax.decoding import FlaxCache
from raysp.models.flax.generation import Start, Texts, selected, started
from raysp.models.flax.logits import is_one_of

LOWEST = -1e9  # below the score of any text


class Candidates(NamedTuple):
    """Texts of each row with their scores."""

    tokens: Array
    """(B, n, M)"""
    scores: Array
    """(B, n)"""
    ended: Array
    """(B, n), true where a text has ended."""
    num_tokens: Array
    """(B, n) of texts that have ended, the first token included."""

    def chosen(self, places_BK: Array) -> "Candidates":
        """Return the texts of each row at these indices."""
        tokens = jnp.take_along_axis(self.tokens, places_BK[..., None], 1)
        return Candidates(tokens, *(jnp.take_along_axis(x, places_BK, 1) for x in self[1:]))


class State(NamedTuple):
    """State of a search."""

    length: Array
    running: Candidates
    finished: Candidates
    open_B: Array
    """True where the best beam can still beat the worst result."""
    is_last: Array
    """Whether all candidates have ended."""
    cache: FlaxCache


def beam_search(start: Start) -> Texts:
    """Search until no result can improve."""
    beams = start.settings.num_beams
    first = State(
        jnp.asarray(1),
        _first(start, is_running=True),
        _first(start, is_running=False),
        jnp.ones(len(start.first_B1), bool),
        jnp.asarray(False),
        started(start, beams),
    )

    def goes_on(state: State) -> Array:
        return ~state.is_last & (state.open_B & ~_is_full(start, state)).any()

    def continued(state: State) -> State:
        last_BK1 = lax.dynamic_slice_in_dim(state.running.tokens, state.length - 1, 1, axis=2)
        logits_R1V, cache = start.step(last_BK1.reshape(-1, 1), state.cache)
        return _advanced(start, state._replace(cache=cache), logits_R1V[:, 0])

    last = lax.while_loop(goes_on, continued, first)
    count, results = start.settings.num_return_sequences, last.finished
    return Texts(*(x[:, :count] for x in (results.tokens, results.num_tokens, results.scores)))


def _first(start: Start, *, is_running: bool) -> Candidates:
    settings, batch, beams = start.settings, len(start.first_B1), start.settings.num_beams
    # As in transformers the end token fills texts where padding is token 0.
    filling = (settings.pad_token_id or settings.eos_token_ids[0]) if settings.eos_token_ids else -1
    tokens = jnp.full((batch, beams, settings.max_length), filling, start.first_B1.dtype)
    tokens = tokens.at[:, :, 0].set(start.first_B1)
    scores = jnp.full((batch, beams), LOWEST)
    scores = scores.at[:, 0].set(0.0) if is_running else scores  # all beams are equal at first: one is enough
    no_end, counts = jnp.zeros((batch, beams), bool), jnp.ones((batch, beams), int)
    return Candidates(tokens, scores, no_end, counts)


def _is_full(start: Start, state: State) -> Array:
    """Return (B,), true where there are enough results and the search stops with them."""
    return state.finished.ended.all(-1) & (start.settings.early_stopping is True)


def _advanced(start: Start, state: State, logits_RV: Array) -> State:
    """Return the state with the best open candidates as beams, and the best ended candidates as results."""
    beams = start.settings.num_beams
    candidates, from_BC = _candidates(start, state, logits_RV)
    finished = _finished_with(start, state, candidates)
    going_on_BC = candidates.scores + candidates.ended * LOWEST
    scores_BK, places_BK = lax.top_k(going_on_BC, beams)
    running = candidates.chosen(places_BK)._replace(scores=scores_BK)
    sources_BK = jnp.take_along_axis(from_BC, places_BK, 1)
    rows_R = (sources_BK + jnp.arange(len(sources_BK))[:, None] * beams).reshape(-1)
    after = State(
        state.length + 1,
        running,
        finished,
        state.open_B,
        candidates.ended.all(),
        selected(state.cache, rows_R),
    )
    return after._replace(open_B=state.open_B & _can_improve(start, after))


def _candidates(start: Start, state: State, logits_RV: Array) -> tuple[Candidates, Array]:
    """Return the best continuations of the beams of each row, from the best down, and their beams."""
    settings, (batch, beams, room) = start.settings, state.running.tokens.shape
    scores_RV = jax.nn.log_softmax(logits_RV, -1)
    tokens_RM = state.running.tokens.reshape(-1, room)
    for change in start.changes:
        scores_RV = change(tokens_RM, state.length, scores_RV)
    size = scores_RV.shape[1]
    all_BN = (scores_RV.reshape(batch, beams, size) + state.running.scores[..., None]).reshape(batch, -1)
    count = min(max(2, 1 + len(settings.eos_token_ids)) * beams, all_BN.shape[1])
    scores_BC, places_BC = lax.top_k(all_BN, count)
    from_BC, ids_BC = places_BC // size, (places_BC % size).astype(tokens_RM.dtype)
    texts = state.running.chosen(from_BC)
    tokens = lax.dynamic_update_slice(texts.tokens, ids_BC[..., None], (0, 0, state.length))
    ended = is_one_of(ids_BC, settings.eos_token_ids) | (state.length + 1 >= settings.max_length)
    counts = jnp.broadcast_to(state.length + 1, ids_BC.shape)
    return Candidates(tokens, scores_BC, ended, counts), from_BC


def _finished_with(start: Start, state: State, candidates: Candidates) -> Candidates:
    """Return the best of the finished texts and of the candidates that end now."""
    beams = start.settings.num_beams
    ended_BC = candidates.ended & (
        jnp.arange(candidates.ended.shape[1]) < beams
    )  # further candidates only replace ended ones
    scores_BC = candidates.scores / state.length ** float(start.settings.length_penalty)
    is_closed_B = _is_full(start, state) | ~state.open_B
    scores_BC = scores_BC + is_closed_B[:, None] * LOWEST + ~ended_BC * LOWEST
    merged = Candidates(
        jnp.concatenate([state.finished.tokens, candidates.tokens], 1),
        jnp.concatenate([state.finished.scores, scores_BC], 1),
        jnp.concatenate([state.finished.ended, ended_BC], 1),
        jnp.concatenate([state.finished.num_tokens, candidates.num_tokens], 1),
    )
    return merged.chosen(lax.top_k(merged.scores, beams)[1])


def _can_improve(start: Start, state: State) -> Array:
    """Return, for each row, whether its best beam can still beat its worst result."""
    settings = start.settings
    never = settings.early_stopping == "never" and settings.length_penalty > 0.0
    hoped_for = (settings.max_length if never else state.length) - 1
    possible_B1 = state.running.scores[:, :1] / hoped_for ** float(settings.length_penalty)
    worst_B1 = state.finished.scores.min(-1, keepdims=True)
    worst_BK = jnp.where(state.finished.ended, worst_B1, LOWEST)
    improvable_B: Array = (possible_B1 > worst_BK).any(-1)
    return improvable_B
