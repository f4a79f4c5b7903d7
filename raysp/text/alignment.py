"""Forced alignment with CTC (Graves et al. 2006): the most likely path of given tokens through the frames.

At each frame, a path is in one of 2 L + 1 states: the L tokens, each between two blanks. It stays, advances by one
state, or skips the blank between two different tokens. All rows of a batch advance together, frame by frame, on the
host; how a state was reached takes two bits. A row's path does not depend on the other rows of its batch, nor on
padding.

A row with more than `EXACT_CELLS` pairs of frame and state is aligned alone, within a beam: after every `CHUNK` frames,
states before the first and after the last one whose score is within a beam of the best are dropped. So time and
memory grow with the frames, not with frames times tokens.

Shapes: B batch, T frames, V vocabulary, L tokens of a row, S states, C frames of a chunk, W states of a chunk.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from operator import itemgetter

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from raysp.text.targets import frames_needed

CHUNK = 64
"""Frames between two looks at which states may be dropped."""
EXACT_CELLS = 2**24
"""Pairs of frame and state up to which a row's path is the best of all."""
BATCH_CELLS = 2**26
"""Pairs of frame and state of rows that are aligned together: 16 MB."""
MOST_CELLS = 2**30
"""Pairs of frame and state that are kept of a row: 256 MB. A row that needs more has no path."""
WIDTH = 4 * CHUNK
"""Unit of the number of states within a beam."""
BEAMS = (1000.0, 16000.0)
"""Log-probability below the best path at which states are dropped in rows of more than `EXACT_CELLS`; the second one if
the path within the first may not be the best of all: it is if it is at most the beam below the best tokens of all
frames, since a path through a dropped state is lower.
"""
AROUND, BETWEEN = 0.25, 1.0
"""Log-probability of a frame of other speech, relative to its best token: around the tokens, and between two of them.

Speech between tokens costs more, so that they stay together where a token alone would also fit elsewhere.
"""
WITHIN = 1.0
"""Highest log-probability of a frame of a wildcard, relative to its best token: it may have pauses between its letters.

Less would let it take words around it, and more would cut it (docs/decisions/025).
"""
FLOOR = -1000.0
"""Lowest log-probability of a token in a frame, relative to the frame's best token: there always is a path."""
STATES_BACK = (0, 1, 2, 2)
"""States between a state and that before it, by code: bit 0 advancing beats staying, bit 1 skipping beats both."""

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Target:
    """Tokens to align with the frames of a row.

    Attributes:
        ids: L token ids, without blanks.
        gaps: for the blank before each token and after the last one, L + 1 values, whether frames of any other speech
            may be there; None: nowhere.
        separator: token between words, which stands for the blank too before the first token, after the last one and
            beside another separator; None: there is none.
        wildcard: token that stands for any speech, whose log-probability is the highest of all tokens but pauses; None:
            there is none.
    """

    ids: Sequence[int]
    gaps: Sequence[bool] | None = None
    separator: int | None = None
    wildcard: int | None = None

    @property
    def num_spelt(self) -> int:
        """Tokens that are no wildcard; 0 if all of them are separators."""
        spelt = [token for token in self.ids if token != self.wildcard]
        return len(spelt) if any(token != self.separator for token in spelt) else 0

    @property
    def pauses(self) -> list[bool]:
        """Whether the blank before each token, and that after the last one, may be the separator."""
        is_edge = [True, *(token == self.separator for token in self.ids), True]
        return [self.separator is not None and any(pair) for pair in pairwise(is_edge)]


@dataclass(frozen=True)
class Alignment:
    """The best path of a row's tokens.

    Attributes:
        first_frames: (L,) first frame of each token.
        last_frames: (L,) last frame of each token.
        token_scores: (L,) log-probability of each token in its best frame.
        score: log-probability of the path relative to the best token in each frame, by token: 0 for a path that no
            other text surpasses. Frames of other speech and of wildcards count as 0, and wildcards not as tokens; None
            if all tokens are wildcards.
    """

    first_frames: Ints
    last_frames: Ints
    token_scores: Floats
    score: float | None


def align(
    log_probs_BTV: Tensor,
    num_frames: Sequence[int],
    targets: Sequence[Target],
    *,
    blank: int,
    best: Tensor | None = None,
) -> list[Alignment | None]:
    """Return the best path of each row's tokens.

    Args:
        log_probs_BTV: float32 log-probabilities.
        num_frames: frames of each row; the others are padding.
        targets: tokens of each row.
        blank: id of the blank.
        best: (B, T) log-probability of the best token of each frame; None: the highest of `log_probs_BTV`.

    Returns:
        For each row its path; None if there are no tokens, or if they need more frames than the row has, or more memory
        than `MOST_CELLS`.
    """
    best_BT = log_probs_BTV.amax(-1) if best is None else best
    alignments: list[Alignment | None] = [None] * len(targets)
    fitting = [row for row, target in enumerate(targets) if target.ids and frames_needed(target.ids) <= num_frames[row]]
    for rows in _groups(fitting, num_frames, targets):
        most_frames = max(num_frames[row] for row in rows)
        part_BTV, part_BT = log_probs_BTV[rows, :most_frames], best_BT[rows, :most_frames]
        trellis = _Trellis(part_BTV, part_BT, [targets[row] for row in rows], blank)
        if num_frames[rows[0]] * _num_states(targets[rows[0]]) > EXACT_CELLS:
            alignments[rows[0]] = _within_beams(trellis, num_frames[rows[0]])
            continue
        paths = trellis.paths([num_frames[row] for row in rows], None)
        for row, (alignment, _) in zip(rows, trellis.alignments(paths), strict=True):
            alignments[row] = alignment
    return alignments


def _within_beams(trellis: "_Trellis", num_frames: int) -> Alignment | None:
    """Return the best path of one row within the first beam that has the best of all, else within the last one."""
    best: tuple[Alignment | None, float] = None, -np.inf
    for beam in BEAMS:
        [aligned] = trellis.alignments(trellis.paths([num_frames], beam))
        best = max(best, aligned, key=itemgetter(1))
        if best[1] >= -beam:
            break
    return best[0]


def _num_states(target: Target) -> int:
    return 2 * len(target.ids) + 1


def _groups(rows: Sequence[int], num_frames: Sequence[int], targets: Sequence[Target]) -> Iterator[list[int]]:
    """Yield rows to align together: neighbours in the number of states, up to `BATCH_CELLS` with padding."""
    group: list[int] = []
    most_frames = 0
    for row in sorted(rows, key=lambda row: _num_states(targets[row])):
        most_frames = max(most_frames, num_frames[row])
        num_states = _num_states(targets[row])
        is_long = num_frames[row] * num_states > EXACT_CELLS
        if group and (is_long or (len(group) + 1) * most_frames * num_states > BATCH_CELLS):
            yield group
            group, most_frames = [], num_frames[row]
        group.append(row)
        if is_long:
            yield group
            group, most_frames = [], 0
    if group:
        yield group


@dataclass
class _Steps:
    """How the states of a path were reached: for each chunk, the number of states back, in two bits each."""

    chunks: list[npt.NDArray[np.uint8]] = field(default_factory=list)
    """(C / 4, B, W) each."""
    offsets: list[int] = field(default_factory=list)
    """First state of each chunk."""

    def path(self, row: int, num_frames: int, end: int) -> Ints:
        """Return the state of a row's path at each frame (T,), from its last one."""
        back = [STATES_BACK[byte >> shift & 3] for shift in (0, 2, 4, 6) for byte in range(256)]
        states = [0] * num_frames
        state = end
        for number in reversed(range(len(self.chunks))):
            packed, offset, first = self.chunks[number][:, row], self.offsets[number], number * CHUNK
            width, steps = packed.shape[1], packed.tobytes()
            for place in reversed(range(min(CHUNK, num_frames - first))):
                states[first + place] = state
                state -= back[(place & 3) << 8 | steps[(place >> 2) * width + state - offset]]
        return np.array(states)


class _Trellis:
    """States of a batch of rows; `best_BT` are the log-probabilities of the best token of each frame."""

    def __init__(self, log_probs_BTV: Tensor, best_BT: Tensor, targets: Sequence[Target], blank: int) -> None:
        self.log_probs_BTV = _with_pauses(log_probs_BTV, targets, blank)
        self.best_BT = best_BT
        self.num_tokens = [len(target.ids) for target in targets]
        self.num_spelt = [target.num_spelt for target in targets]
        num_states = 2 * max(self.num_tokens) + 1
        tokens = np.full((len(targets), num_states), blank)
        floors = np.full((len(targets), num_states), FLOOR, np.float32)
        for row, target in enumerate(targets):
            tokens[row, 1 : 2 * len(target.ids) : 2] = target.ids
            tokens[row, : 2 * len(target.ids) + 1 : 2][target.pauses] = self.log_probs_BTV.shape[-1] - 1
            if target.gaps is not None:
                costs = np.array([AROUND, *(BETWEEN for _ in target.ids[1:]), AROUND])
                floors[row, : 2 * len(target.ids) + 1 : 2] = np.where(target.gaps, -costs, FLOOR)
            floors[row, tokens[row] == target.wildcard] = -WITHIN
        skips = np.full(tokens.shape, -np.inf, np.float32)
        skips[:, 1] = 0.0
        skips[:, 3::2][tokens[:, 3::2] != tokens[:, 1:-2:2]] = 0.0
        self.tokens_BS, self.skips_BS, self.floors_BS = map(torch.from_numpy, (tokens, skips, floors))

    def paths(self, num_frames: Sequence[int], beam: float | None) -> list[Ints | None]:
        """Return the state of each row's path at each frame (T,); None if no path ends in time."""
        num_rows, num_states = self.tokens_BS.shape
        steps, ends = _Steps(), _Ends(num_frames, self.num_tokens)
        low, high = 0, num_states if beam is None else min(num_states, WIDTH)
        before_BS = self.skips_BS.new_full((num_rows, 2 + high), -np.inf)  # of states from low - 2
        before_BS[:, 1] = 0.0
        chunk = _Chunk(before_BS)
        num_cells = 0
        for first in range(0, max(num_frames), CHUNK):
            chunk = chunk.after(before_BS)
            chunk.advance(self._emitted(first, slice(low, high)), self.skips_BS[:, low:high])
            steps.chunks.append(chunk.packed_steps().numpy())
            steps.offsets.append(low)
            ends.look(chunk.scores_CBS, first, low)
            num_cells += CHUNK * (high - low)
            if beam is None:
                before_BS = chunk.scores_CBS[-1]
            elif num_cells > MOST_CELLS:
                return [None] * num_rows
            else:
                before_BS, low, high = _narrowed(chunk.scores_CBS[-1], low, beam, num_states)
        return [None if end is None else steps.path(row, num_frames[row], end) for row, end in enumerate(ends.states)]

    def _emitted(self, first: int, states: slice) -> Tensor:
        """Return the log-probability of each state in each frame of a chunk (C, B, W), relative to the best token."""
        log_probs_CBV = self.log_probs_BTV[:, first : first + CHUNK].transpose(0, 1)
        emitted_CBS = log_probs_CBV.gather(-1, self.tokens_BS[:, states].expand(len(log_probs_CBV), -1, -1))
        emitted_CBS.sub_(self.best_BT[:, first : first + CHUNK].T[:, :, None])
        return torch.maximum(emitted_CBS, self.floors_BS[:, states], out=emitted_CBS)

    def alignments(self, paths: Sequence[Ints | None]) -> Iterator[tuple[Alignment | None, float]]:
        """Yield the alignment of each path, and its log-probability relative to the best token of each frame."""
        states = np.zeros(self.best_BT.shape, np.int64)
        for row, path in enumerate(paths):
            if path is not None:
                states[row, : len(path)] = path
        states_BT = torch.from_numpy(states)
        ids_BT = self.tokens_BS.gather(1, states_BT)
        log_probs_BT = self.log_probs_BTV.gather(-1, ids_BT[:, :, None])[:, :, 0]
        floors_BT = self.floors_BS.gather(1, states_BT)
        costs_BT = torch.minimum(self.best_BT - log_probs_BT, -floors_BT)
        is_foreign_BT = (floors_BT > FLOOR) & ((costs_BT >= -floors_BT) | (states_BT % 2 == 1))
        log_probs, costs, is_foreign = (tensor.numpy() for tensor in (log_probs_BT, costs_BT.double(), is_foreign_BT))
        for row, path in enumerate(paths):
            if path is None:
                yield None, -np.inf
            else:
                num_frames = len(path)
                of_row = costs[row, :num_frames]
                of_tokens = np.where(is_foreign[row, :num_frames], 0.0, of_row)
                score = 0.0 - float(of_tokens.sum()) / self.num_spelt[row] if self.num_spelt[row] else None
                yield _alignment(path, log_probs[row, :num_frames], score, self.num_tokens[row]), -float(of_row.sum())


def _with_pauses(log_probs_BTV: Tensor, targets: Sequence[Target], blank: int) -> Tensor:
    """Append the log-probability of a pause, the separator or the blank, if a row has a separator."""
    if all(target.separator is None for target in targets):
        return log_probs_BTV
    ids = np.array([blank if target.separator is None else target.separator for target in targets], np.int64)
    ids_BT1 = torch.from_numpy(ids)[:, None, None].expand(-1, log_probs_BTV.shape[1], 1)
    pauses_BT1 = torch.maximum(log_probs_BTV.gather(-1, ids_BT1), log_probs_BTV[..., blank, None])
    return torch.cat([log_probs_BTV, pauses_BT1], -1)


class _Chunk:
    """Scores of states in the frames of a chunk; frames after the last one cost nothing.

    `before_BS` (B, 2 + W) are the scores before the first frame, of states from two before the first.
    """

    def __init__(self, before_BS: Tensor) -> None:
        self.scores_CBS = before_BS.new_full((CHUNK + 1, *before_BS.shape), -np.inf)
        self.emitted_CBS = before_BS.new_zeros(CHUNK, len(before_BS), before_BS.shape[1] - 2)
        self.by_skips_CBS, self.by_others_CBS = (torch.empty_like(self.emitted_CBS) for _ in range(2))
        self.advanced_CBS, self.stayed_CBS = self.scores_CBS[:-1, :, 1:-1], self.scores_CBS[:-1, :, 2:]
        before = (self.scores_CBS[:-1, :, :-2], self.advanced_CBS, self.stayed_CBS)
        parts = (*before, self.by_skips_CBS, self.by_others_CBS, self.emitted_CBS, self.scores_CBS[1:, :, 2:])
        self.frames = list(zip(*(part.unbind() for part in parts), strict=True))  # views take longer than sums
        self.best_BS = torch.empty_like(self.emitted_CBS[0])

    def after(self, before_BS: Tensor) -> "_Chunk":
        """Return the chunk that follows these scores; it takes the place of this one if it has as many states."""
        chunk = self if before_BS.shape == self.scores_CBS.shape[1:] else _Chunk(before_BS)
        torch.sub(before_BS, before_BS.amax(1, keepdim=True), out=chunk.scores_CBS[0])  # small numbers keep digits
        return chunk

    def advance(self, emitted_CBS: Tensor, skips_BS: Tensor) -> None:
        """Compute the scores of all frames, from their log-probabilities."""
        self.emitted_CBS[: len(emitted_CBS)] = emitted_CBS
        self.emitted_CBS[len(emitted_CBS) :] = 0.0
        best_BS = self.best_BS
        for skipped_BS, advanced_BS, stayed_BS, by_skips_BS, by_others_BS, emitted_BS, reached_BS in self.frames:
            torch.add(skipped_BS, skips_BS, out=by_skips_BS)
            torch.maximum(advanced_BS, stayed_BS, out=by_others_BS)
            torch.maximum(by_skips_BS, by_others_BS, out=best_BS)
            torch.add(best_BS, emitted_BS, out=reached_BS)

    def packed_steps(self) -> Tensor:
        """Return the best move to each state (C / 4, B, W), the shortest of equal ones: four `STATES_BACK` a byte."""
        codes_CBS = (self.advanced_CBS > self.stayed_CBS).view(torch.uint8)
        codes_CBS = codes_CBS.add_((self.by_skips_CBS > self.by_others_CBS).view(torch.uint8), alpha=2)
        packed = codes_CBS[0::4]
        for place in range(1, 4):
            packed = packed.add(codes_CBS[place::4], alpha=4**place)
        return packed


class _Ends:
    """Scores of the two states in which a row may end, at its last frame."""

    def __init__(self, num_frames: Sequence[int], num_tokens: Sequence[int]) -> None:
        self.last_frames = np.array(num_frames) - 1
        self.tokens = np.array(num_tokens)
        self.states: list[int | None] = [None] * len(num_tokens)
        """State in which each row ends; None if it cannot be reached."""

    def look(self, scores_CBS: Tensor, first: int, low: int) -> None:
        """Find the states of rows that end in a chunk."""
        places = self.last_frames - first
        [rows] = np.nonzero((places >= 0) & (places < len(scores_CBS) - 1))
        last = 2 * self.tokens[rows] - low + 2
        if not len(rows) or (last >= scores_CBS.shape[2]).any() or (last < 3).any():
            return  # the end is outside of the beam
        scores = scores_CBS.numpy()
        of_blanks, of_tokens = (scores[places[rows] + 1, rows, end] for end in (last, last - 1))
        for row, blank, token in zip(rows.tolist(), of_blanks.tolist(), of_tokens.tolist(), strict=True):
            if max(blank, token) > -np.inf:
                self.states[row] = int(2 * self.tokens[row]) - (token > blank)


def _narrowed(scores_BS: Tensor, low: int, beam: float, num_states: int) -> tuple[Tensor, int, int]:
    """Return the scores of the states that are kept of one row, the first of them, and the end after a chunk."""
    [scores] = scores_BS[:, 2:]
    near = np.flatnonzero(~(scores < scores.max() - beam).numpy())
    first, last = low + int(near[0]), low + int(near[-1])
    widths = -(-(last + 1 + 2 * CHUNK - first) // WIDTH)  # a path advances by up to two states a frame
    high = min(num_states, first + widths * WIDTH)
    kept_BS = scores_BS.new_full((1, 2 + high - first), -np.inf)
    kept_BS[0, 2 : 2 + last + 1 - first] = scores[first - low : last + 1 - low]
    return kept_BS, first, high


def _alignment(path: Ints, log_probs: Floats, score: float | None, num_tokens: int) -> Alignment:
    """Return the alignment of a path, from the log-probability of its state in each frame."""
    states = 2 * np.arange(num_tokens) + 1
    first, end = np.searchsorted(path, states, "left"), np.searchsorted(path, states, "right")
    of_tokens = np.where(path % 2 == 1, log_probs, -np.inf).astype(np.float32)
    return Alignment(first, end - 1, np.maximum.reduceat(of_tokens, first), score)
