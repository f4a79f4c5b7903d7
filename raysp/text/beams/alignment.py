"""The most probable alignment of tokens with frames (Viterbi 1967), for times and scores of the tokens."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

MARGIN = 60.0
"""Difference of log-probability to the best partial alignment beyond which others are dropped; see `align`."""


class Alignment(NamedTuple):
    """Frames of each token (N,), and its log-probability in the best of them."""

    first_frames: npt.NDArray[np.int32]
    last_frames: npt.NDArray[np.int32]
    scores: npt.NDArray[np.float32]


class Emissions(NamedTuple):
    """The blank and some other tokens of each frame of one row."""

    blanks: npt.NDArray[np.float32]
    """(T,) log-probabilities of the blank."""
    ids: npt.NDArray[np.int64]
    """(T, K) token ids."""
    log_probs: npt.NDArray[np.float32]
    """(T, K) their log-probabilities; of other tokens minus infinity."""


def align(emissions: Emissions, tokens: npt.NDArray[np.int32], *, vocab_size: int) -> Alignment:
    """Return the most probable alignment of a row of tokens without blanks.

    Partial alignments far less probable than the best one are dropped, so that time and memory grow with frames alone.
    If none is left that has all tokens, all are kept.

    Raises:
        ValueError: the tokens have no alignment with the frames.
    """
    for margin in (MARGIN, np.inf):
        path = _path(emissions, tokens, vocab_size, margin)
        if path is not None:
            return _runs(path, emissions, tokens)
    raise ValueError(f"{len(tokens)} tokens have no alignment with {len(emissions.blanks)} frames")


def _path(
    emissions: Emissions, tokens: npt.NDArray[np.int32], vocab_size: int, margin: float
) -> npt.NDArray[np.int64] | None:
    """Return the state of each frame: 2 n + 1 for token n, even numbers for the blanks around them; None: no path."""
    num_states = 2 * int(tokens.size) + 1
    labels = np.full(num_states, vocab_size)
    labels[1::2] = tokens
    may_skip = np.zeros(num_states, bool)  # the blank before a token, if it differs from the one before
    may_skip[1:2] = True  # from the begin
    may_skip[3::2] = tokens[1:] != tokens[:-1]
    in_frame = np.full(vocab_size + 1, -np.inf)
    low, scores = -1, np.zeros(1)  # of the states from `low`; -1 is the begin
    moves: list[tuple[int, npt.NDArray[np.int8]]] = []
    for blank, ids, log_probs in zip(emissions.blanks, emissions.ids, emissions.log_probs, strict=True):
        in_frame[ids] = log_probs
        in_frame[vocab_size] = blank
        first = max(low, 0)
        end = min(num_states, low + len(scores) + 2)
        padded = np.full(end - first + 2, -np.inf)  # from state `first` - 2
        padded[low - first + 2 : low - first + 2 + len(scores)] = scores[: end - low]
        ways = np.stack([padded[2:], padded[1:-1], np.where(may_skip[first:end], padded[:-2], -np.inf)])
        move = ways.argmax(0)
        new = ways.max(0) + in_frame[labels[first:end]]
        in_frame[ids] = -np.inf
        highest = new.max()
        if highest == -np.inf:
            return None
        kept = np.flatnonzero(new >= highest - margin)
        moves.append((first, move.astype(np.int8)))
        low, scores = first + int(kept[0]), new[int(kept[0]) : int(kept[-1]) + 1]
    return _back(moves, scores, low, num_states)


def _back(
    moves: list[tuple[int, npt.NDArray[np.int8]]], scores: npt.NDArray[np.float64], low: int, num_states: int
) -> npt.NDArray[np.int64] | None:
    """Follow the moves back from the better of the last two states."""
    ends = [state for state in (num_states - 1, num_states - 2) if low <= state < low + len(scores)]
    ends = [state for state in ends if scores[state - low] > -np.inf]
    if not ends:
        return None
    state = max(ends, key=lambda one: float(scores[one - low]))
    path = np.empty(len(moves), np.int64)
    for frame in range(len(moves) - 1, -1, -1):
        path[frame] = state
        first, move = moves[frame]
        state -= int(move[state - first])
    return path


def _runs(path: npt.NDArray[np.int64], emissions: Emissions, tokens: npt.NDArray[np.int32]) -> Alignment:
    frames = np.flatnonzero(path % 2)
    numbers = path[frames] // 2  # of the token of each of these frames
    starts = np.searchsorted(numbers, np.arange(len(tokens)))
    ends = np.searchsorted(numbers, np.arange(len(tokens)), side="right")
    is_token = emissions.ids[frames] == tokens[numbers][:, None]
    log_probs = emissions.log_probs[frames][is_token]
    return Alignment(
        frames[starts].astype(np.int32),
        frames[ends - 1].astype(np.int32),
        np.maximum.reduceat(log_probs, starts) if len(starts) else np.empty(0, np.float32),
    )
