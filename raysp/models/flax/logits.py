"""Changes of the scores of the next token in JAX: decoder/logits.py for texts of fixed capacity.

A change takes the tokens (R, M), how many of the places hold tokens, and scores (R, V), and returns scores.

Legend: R rows (beams included), M room for tokens, V vocabulary.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jax import Array, lax

from raysp.models.decoder.generation_config import Settings

Change = Callable[[Array, Array, Array], Array]

NEVER = -jnp.inf


def is_one_of(tokens: Array, ids: Sequence[int]) -> Array:
    """Return a mask of the tokens that are among these."""
    return (tokens[..., None] == jnp.array(ids, tokens.dtype)).any(-1)


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


MAKERS: dict[str, Callable[..., Change]] = {
    "no_repeated_ngrams": no_repeated_ngrams,
    "suppress": suppress,
    "force": force,
    "temperature": temperature,
    "top_k": top_k,
    "top_p": top_p,
}
LEFT_OUT: dict[str, object] = {"repetition_penalty": 1.0, "bad_words_ids": (), "min_p": 0.0, "output_scores": False}
"""Options of the PyTorch class that have no change here, and the values with which they do nothing."""


def changes_of(settings: Settings) -> list[Change]:
    """Return the changes set by options, in the order of transformers."""
    return [MAKERS[name](*arguments) for name, arguments in settings.changes(prompt_length=1)]


def check_settings(settings: Settings) -> None:
    """Raise ValueError where an option is set that Flax models do not have."""
    named = [
        f"{name}={getattr(settings, name)!r}" for name, usual in LEFT_OUT.items() if getattr(settings, name) != usual
    ]
    if settings.do_sample and settings.num_beams > 1:
        named.append(f"do_sample=True with num_beams={settings.num_beams}")
    if named:
        raise ValueError(
            f"generate of a Flax model does not support {', '.join(named)}: set other options, or use "
            "SpeechEncoderDecoderModel, which loads the same folder"
        )
