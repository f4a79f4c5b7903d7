"""Changes of the scores of the next token in JAX: those of decoder/logits.py for texts of a fixed room.

A change takes the tokens (R, M), how many of the places hold tokens, and scores (R, V), and returns scores.

Legend: R rows (beams included), M room for tokens, V vocabulary.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jax import Array, lax

from raysp.models.decoder.generation_config import Settings

Change = Callable[[Array, Array, Array], Array]
Processor = Callable[[Array, Array, Array], Array]
"""A caller's change, of (input_ids, scores, cur_len) as in the original."""

NEVER = -jnp.inf


def is_one_of(tokens: Array, ids: Sequence[int]) -> Array:
    """Return a mask of the tokens that are among these."""
    return (tokens[..., None] == jnp.array(ids, tokens.dtype)).any(-1)


def repetition_penalty(penalty: float, num_padding_B: Array | None) -> Change:
    """Make earlier tokens less likely (Keskar et al. 2019, section 4.1), except padding on the left of a prompt."""

    def change(tokens_RM: Array, length: Array, scores_RV: Array) -> Array:
        rows, vocabulary = scores_RV.shape
        places_M = jnp.arange(tokens_RM.shape[1])
        counts_RM = jnp.broadcast_to(places_M < length, tokens_RM.shape)
        if num_padding_B is not None:
            first_R = jnp.repeat(num_padding_B, rows // num_padding_B.shape[0])
            counts_RM = counts_RM & (places_M >= first_R[:, None])
        seen_RV = _marked(jnp.where(counts_RM, tokens_RM, vocabulary), vocabulary)
        changed_RV = jnp.where(scores_RV < 0, scores_RV * penalty, scores_RV / penalty)
        return jnp.where(seen_RV, changed_RV, scores_RV)

    return change


def _marked(tokens_RN: Array, vocabulary: int) -> Array:
    """Return (R, V), true for the tokens of each row; those beyond the vocabulary count for nothing."""
    rows_R1 = jnp.arange(tokens_RN.shape[0])[:, None]
    empty = jnp.zeros((tokens_RN.shape[0], vocabulary), bool)
    return empty.at[rows_R1, tokens_RN].set(True, mode="drop")


def no_repeated_ngrams(size: int) -> Change:
    """Ban tokens that followed an earlier occurrence of the last tokens."""

    def change(tokens_RM: Array, length: Array, scores_RV: Array) -> Array:
        num_windows = tokens_RM.shape[1] - size + 1
        if num_windows < 1:
            return scores_RV
        last_RN = lax.dynamic_slice_in_dim(tokens_RM, length + 1 - size, size - 1, axis=1)
        starts_W = jnp.arange(num_windows)
        windows_RWN = tokens_RM[:, starts_W[:, None] + jnp.arange(size)]
        matches_RW = (windows_RWN[..., :-1] == last_RN[:, None]).all(-1) & (starts_W + size <= length)
        banned_RW = jnp.where(matches_RW, windows_RWN[..., -1], scores_RV.shape[1])
        return jnp.where(_marked(banned_RW, scores_RV.shape[1]), NEVER, scores_RV)

    return change


def no_bad_words(words: Sequence[tuple[int, ...]]) -> Change:
    """Ban the last token of each word whose other tokens end the text."""

    def change(tokens_RM: Array, length: Array, scores_RV: Array) -> Array:
        for *before, last in words:
            if len(before) > tokens_RM.shape[1]:
                continue
            found_RN = lax.dynamic_slice_in_dim(tokens_RM, length - len(before), len(before), axis=1)
            ends_R = (found_RN == jnp.array(before, tokens_RM.dtype)).all(-1) & (len(before) <= length)
            scores_RV = scores_RV.at[:, last].set(jnp.where(ends_R, NEVER, scores_RV[:, last]))
        return scores_RV

    return change


def suppress(ids: Sequence[int], start: int = 0, stop: int | None = None) -> Change:
    """Ban these tokens while the text has at least `start` and fewer than `stop` tokens."""

    def change(tokens_RM: Array, length: Array, scores_RV: Array) -> Array:
        applies = (start <= length) & (True if stop is None else length < stop)
        return jnp.where(applies & is_one_of(jnp.arange(scores_RV.shape[1]), ids), NEVER, scores_RV)

    return change


def force(ids: Sequence[int], at: int) -> Change:
    """Ban all but these tokens when the text has `at` tokens."""

    def change(tokens_RM: Array, length: Array, scores_RV: Array) -> Array:
        forced_V = jnp.where(is_one_of(jnp.arange(scores_RV.shape[1]), ids), 0.0, NEVER)
        return jnp.where(length == at, forced_V, scores_RV)

    return change


def temperature(value: float) -> Change:
    """Divide scores by a temperature."""
    return lambda tokens_RM, length, scores_RV: scores_RV / value


def top_k(count: int) -> Change:
    """Keep the best tokens (Fan et al. 2018)."""

    def change(tokens_RM: Array, length: Array, scores_RV: Array) -> Array:
        worst_R1 = lax.top_k(scores_RV, min(count, scores_RV.shape[1]))[0][:, -1:]
        return jnp.where(scores_RV < worst_R1, NEVER, scores_RV)

    return change


def top_p(share: float, at_least: int) -> Change:
    """Keep the best tokens up to this total probability (Holtzman et al. 2020), and at least `at_least`."""

    def change(tokens_RM: Array, length: Array, scores_RV: Array) -> Array:
        places_RV = jnp.argsort(scores_RV, axis=-1)
        ordered_RV = jnp.take_along_axis(scores_RV, places_RV, -1)
        banned_RV = jnp.cumsum(jax.nn.softmax(ordered_RV, -1), -1) <= 1 - share
        banned_RV = banned_RV.at[:, -at_least:].set(False)
        ranks_RV = jnp.argsort(places_RV, axis=-1)
        return jnp.where(jnp.take_along_axis(banned_RV, ranks_RV, -1), NEVER, scores_RV)

    return change


def min_p(share: float, at_least: int) -> Change:
    """Keep tokens of at least this share of the best one's probability (Nguyen et al. 2024), and `at_least`."""

    def change(tokens_RM: Array, length: Array, scores_RV: Array) -> Array:
        probs_RV = jax.nn.softmax(scores_RV, -1)
        least_R1 = lax.top_k(scores_RV, min(at_least, scores_RV.shape[1]))[0][:, -1:]
        banned_RV = (probs_RV < share * probs_RV.max(-1, keepdims=True)) & (scores_RV < least_R1)
        return jnp.where(banned_RV, NEVER, scores_RV)

    return change


def _of_caller(processor: Processor) -> Change:
    return lambda tokens_RM, length, scores_RV: processor(tokens_RM, scores_RV, length)


def changes_of(
    settings: Settings, prompt_length: int, num_padding_B: Array | None, processors: Sequence[Processor]
) -> list[Change]:
    """Return the changes set by options and by the caller, in the order of transformers."""
    makers: dict[str, Callable[..., Change]] = {
        "repetition_penalty": lambda penalty: repetition_penalty(penalty, num_padding_B),
        "no_repeated_ngrams": no_repeated_ngrams,
        "no_bad_words": no_bad_words,
        "suppress": suppress,
        "force": force,
        "temperature": temperature,
        "top_k": top_k,
        "top_p": top_p,
        "min_p": min_p,
    }
    before, sampling = (
        [makers[name](*arguments) for name, arguments in part] for part in settings.changes(prompt_length)
    )
    return [*before, *map(_of_caller, processors), *sampling]
