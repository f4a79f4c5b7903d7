"""A plain Viterbi search for the best path of a text, over log-probabilities (T, V) of transformers."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from tests.published.layout import Layout

MOST_LETTERS = 2


def text_of(layout: Layout) -> str:
    """Return a text of two words of letters, or of four phonemes, of a layout."""
    letters = [
        token for token in _vocabulary(layout) if token.isalpha() and (_is_of_phonemes(layout) or len(token) == 1)
    ]
    chosen = letters[: 2 * MOST_LETTERS]
    if _is_of_phonemes(layout):
        return " ".join(chosen)
    return f"{''.join(chosen[:MOST_LETTERS])} {''.join(chosen[MOST_LETTERS:])}"


def aligned(layout: Layout, log_probs: npt.NDArray[np.float64], blank: int) -> tuple[Any, float]:
    """Return the first and end frame of each letter of the text, and the score of the alignment."""
    vocabulary, text = _vocabulary(layout), text_of(layout)
    named = layout.tokenizer.get("word_delimiter_token", "|")
    delimiter = None if named is None else vocabulary.get(named)
    if _is_of_phonemes(layout):
        ids, is_letter = [vocabulary[one] for one in text.split()], [True] * len(text.split())
    else:
        words = [[vocabulary[one] for one in word] for word in text.split()]
        between = [] if delimiter is None else [delimiter]
        ids = [*words[0], *between, *words[1]]
        is_letter = [*[True] * len(words[0]), *[False] * len(between), *[True] * len(words[1])]
    scores = _scores(log_probs, ids, blank, delimiter)
    path = _best_path(scores, ids)
    places = [np.flatnonzero(path == 2 * place + 1) for place, letter in enumerate(is_letter) if letter]
    spent = scores[np.arange(len(path)), path].sum() - log_probs.max(1).sum()
    return [(one[0], one[-1] + 1) for one in places], float(spent) / len(ids)


def _scores(
    log_probs: npt.NDArray[np.float64], ids: list[int], blank: int, delimiter: int | None
) -> npt.NDArray[np.float64]:
    """Return scores (T, S) of pauses and tokens in turn; beside a separator, and at both ends, a pause may be one."""
    scores = np.empty((len(log_probs), 2 * len(ids) + 1))
    scores[:, 1::2] = log_probs[:, ids]
    scores[:, ::2] = log_probs[:, [blank]]
    if delimiter is not None:
        beside = [0, len(ids), *(place + more for place, one in enumerate(ids) if one == delimiter for more in (0, 1))]
        for place in beside:
            scores[:, 2 * place] = np.maximum(scores[:, 2 * place], log_probs[:, delimiter])
    return scores


def _best_path(scores: npt.NDArray[np.float64], ids: list[int]) -> npt.NDArray[np.int64]:
    """Return the state of each frame."""
    num_frames, num_states = scores.shape
    best, came = np.full(scores.shape, -np.inf), np.zeros(scores.shape, np.int64)
    best[0, :2] = scores[0, :2]
    for frame in range(1, num_frames):
        for state in range(num_states):
            may_skip = state % 2 and state > 1 and ids[state // 2] != ids[state // 2 - 1]
            before = [state, *([state - 1] if state else []), *([state - 2] if may_skip else [])]
            came[frame, state] = max(before, key=lambda one: best[frame - 1, one])
            best[frame, state] = best[frame - 1, came[frame, state]] + scores[frame, state]
    path = [max((num_states - 1, num_states - 2), key=lambda one: best[-1, one])]
    for frame in range(num_frames - 1, 0, -1):
        path.append(came[frame, path[-1]])
    return np.array(path[::-1])


def _is_of_phonemes(layout: Layout) -> bool:
    return "phone_delimiter_token" in layout.tokenizer


def _vocabulary(layout: Layout) -> Mapping[str, int]:
    """Return the tokens of a layout, of its own language if it has several."""
    vocab: Mapping[str, Any] = layout.vocab
    return vocab[layout.tokenizer["target_lang"]] if isinstance(next(iter(vocab.values())), dict) else vocab
