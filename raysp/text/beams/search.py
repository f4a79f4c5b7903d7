"""CTC prefix beam search (Graves & Jaitly 2014; Hannun et al. 2014) over all beams of all rows of a batch at once.

All that the search needs of the logits are the best tokens of each frame (`TopFrames`), which cross to the host: it
takes a hundred small steps a frame, each of which a GPU would launch. A `Fusion` adds the weights of a language model
or of hot words.

For each prefix the search keeps the probability of all its alignments so far, apart for those that end with a blank
and with its last token. Probabilities are float64 numbers, divided by the probability of the best prefix after every
frame, so a frame takes products and sums only. A row's result depends neither on the other rows nor on padding.

Prefixes are compared by a 64-bit hash of their tokens. Frames whose only likely token is the blank are left out: they
multiply the probabilities of all prefixes by the same number, and separate repeated tokens.

Shapes: B batch, T frames, V vocabulary, K kept tokens of a frame, of which a step takes those that are likely in any
row, W beams, F fields of a state.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import KW_ONLY, dataclass
from itertools import pairwise
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from raysp.text.beams.hashing import MULTIPLIER

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]
LARGEST_LOG = 230.0
"""Bound of the logarithm of a factor: its square is still a number of float64."""
LEAST_LOG_PROB = -8.0
"""Log-probability, relative to the best token of a frame, under which a token extends no prefix."""
CHUNK_FRAMES = 4096
"""Frames whose probabilities are in memory at once."""
LAST, HASH, PARENT = range(3)
"""Fields of each prefix: last token (-1: none), hash, and hash without the last token. Those of fusions follow."""


@dataclass(frozen=True)
class TopFrames:
    """The blank and the best other tokens of each frame.

    Attributes:
        blanks: (B, T) float32 log-probabilities of the blank.
        ids: (B, T, K) int32 ids of the best other tokens, the best one first.
        log_probs: (B, T, K) float32 log-probabilities of these tokens.
    """

    blanks: npt.NDArray[np.float32]
    ids: npt.NDArray[np.int32]
    log_probs: npt.NDArray[np.float32]

    def slice(self, first: int, end: int) -> "TopFrames":
        """Return some of the frames of all rows."""
        return TopFrames(self.blanks[:, first:end], self.ids[:, first:end], self.log_probs[:, first:end])

    @classmethod
    def joined(cls, batches: "Sequence[TopFrames]") -> "TopFrames":
        """Return the frames of the rows of several batches, padded with zeros to the longest."""
        if len(batches) == 1:
            return batches[0]
        most = max(batch.blanks.shape[1] for batch in batches)

        def rows(arrays: Sequence[npt.NDArray[Any]]) -> npt.NDArray[Any]:
            rest = [((0, 0), (0, most - batch.shape[1]), *((0, 0),) * (batch.ndim - 2)) for batch in arrays]
            return np.concatenate([np.pad(batch, pad) for batch, pad in zip(arrays, rest, strict=True)])

        return cls(*(rows([getattr(batch, name) for batch in batches]) for name in ("blanks", "ids", "log_probs")))

    def best(self, blank: int) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]]:
        """Return id and log-probability (B, T) of the best token of each frame, as `best_frames` of greedy decoding.

        Of equal ones that with the lower id counts.
        """
        ids, log_probs = self.ids[..., 0], self.log_probs[..., 0]
        is_blank = (self.blanks > log_probs) | ((self.blanks == log_probs) & (blank < ids))
        return np.where(is_blank, np.int32(blank), ids), np.where(is_blank, self.blanks, log_probs)


class Extensions(NamedTuple):
    """Weights of the extensions of prefixes by the tokens of a frame, as factors of their probabilities."""

    factors: Floats | None
    """(B, W, K) factors that stay; None: all are 1."""
    lifts: Floats | None
    """(B, W, K) factors of the rank in this frame only; None: all are 1."""
    carried: Any
    """Values for `advance` of the same fusion."""


class Fusion(Protocol):
    """Weights that depend on the tokens of a prefix alone, by a state of int64 fields for each prefix."""

    def start(self) -> list[int]:
        """Return the fields of the empty prefix."""
        ...

    def extend(self, states: Ints, tokens: Ints, *, has_delimiter: bool) -> Extensions:
        """Return the weights of all extensions; `has_delimiter`: whether a token of the frame separates words."""
        ...

    def lift(self, states: Ints) -> Floats | None:
        """Return the factors (B, W) of the rank of the prefixes themselves; None: all are 1."""
        ...

    def advance(self, states: Ints, chosen: "Chosen", carried: Any) -> Ints:  # noqa: ANN401 - its own
        """Return the states (B, W, F) of the chosen prefixes.

        Args:
            states: states of the prefixes that the chosen ones extend or equal.
            chosen: the chosen prefixes.
            carried: the value that `extend` returned.
        """
        ...

    def end(self, states: Ints) -> Floats:
        """Return the factors (B, W) of texts that end with these prefixes."""
        ...


class Chosen(NamedTuple):
    """The prefixes that a search keeps after a frame, all (B, W)."""

    sources: Ints
    """Beams that they extend or equal, by their places among the beams of all rows."""
    places: Ints
    """Place among the tokens of the frame of the token that extends them."""
    tokens: Ints
    """Tokens that extend the prefixes."""
    is_new: Flags
    """Whether they are extended."""


class Hypothesis(NamedTuple):
    """One text of a row."""

    ids: npt.NDArray[np.int32]
    """Tokens, without blanks."""
    score: float
    """Log of the probability of all its alignments, plus the weights of fusions."""


@dataclass(frozen=True)
class _Active:
    """The frames that extend prefixes, moved to the front of each row; frames after them change nothing."""

    tokens: Ints
    """(frames, B, K)"""
    probabilities: Floats
    blanks: Floats
    """(frames, B)"""
    is_after_gap: Flags
    """Whether frames that were left out precede."""
    has_gap: Sequence[bool]
    """Whether frames of any row that were left out precede."""
    is_active: Flags
    widths: Sequence[int]
    """Tokens of each frame that are likely in any row."""
    has_delimiter: Sequence[bool]


@dataclass
class _Beams:
    """The prefixes of all rows, the best one first."""

    blank: Floats
    """Probability of alignments that end with a blank."""
    token: Floats
    """Probability of alignments that end with the last token."""
    states: Ints
    """Fields of each prefix."""
    is_after_gap: Flags
    """Whether frames were left out since the last one."""


@dataclass(eq=False)
class BeamSearch:
    """Prefix beam search with fixed settings.

    Attributes:
        beams: number of prefixes that are kept after each frame.
        fusions: further weights of prefixes.
        delimiters: (V,) whether a token separates words.
        least_log_prob: log-probability, relative to the best token of a frame, under which one extends no prefix.
    """

    beams: int
    fusions: Sequence[Fusion] = ()
    _: KW_ONLY
    delimiters: Flags | None = None
    least_log_prob: float = LEAST_LOG_PROB

    def __post_init__(self) -> None:
        starts = [fusion.start() for fusion in self.fusions]
        edges = np.cumsum([PARENT + 1, *map(len, starts)]).tolist()
        self.fields = [slice(first, end) for first, end in pairwise(edges)]
        self.first_fields = [field for start in starts for field in start]

    def __call__(self, frames: TopFrames, num_frames: Sequence[int], *, best: int = 1) -> list[list[Hypothesis]]:
        """Return up to `best` hypotheses of each row's first `num_frames` (B,) frames, the most probable first.

        Hypotheses have different tokens. Of equal ones the one that was better before the last frame precedes.
        """
        beams = self._start(len(frames.blanks))
        history = _History()
        for first in range(0, frames.blanks.shape[1], CHUNK_FRAMES):
            chunk = frames.slice(first, first + CHUNK_FRAMES)
            active, beams.is_after_gap = self._active(chunk, np.array(num_frames) - first, beams.is_after_gap, history)
            for frame in range(len(active.tokens)):
                self._step(beams, active, frame, history)
        ends = beams.blank + beams.token
        for fusion, fields in zip(self.fusions, self.fields, strict=True):
            ends = ends * fusion.end(beams.states[..., fields])
        return history.hypotheses(ends, best)

    def _start(self, rows: int) -> _Beams:
        blank = np.zeros((rows, self.beams))
        blank[:, 0] = 1.0
        states = np.tile(np.array((-1, 0, 0, *self.first_fields), np.int64), (rows, self.beams, 1))
        # Beams without a prefix have hashes of their own, so that none of their extensions equals another prefix.
        states[..., HASH] = np.arange(1, self.beams + 1) * MULTIPLIER
        states[..., PARENT] = -np.arange(1, self.beams + 1) * MULTIPLIER
        return _Beams(blank, np.zeros_like(blank), states, np.zeros(rows, np.bool_))

    def _active(
        self, frames: TopFrames, num_frames: Ints, is_after_gap: Flags, history: "_History"
    ) -> tuple[_Active, Flags]:
        """Return the frames that extend prefixes, and whether frames were left out after the last one of each row."""
        is_valid = np.arange(frames.blanks.shape[1]) < num_frames[:, None]
        highest = np.maximum(frames.blanks, frames.log_probs[..., 0])
        is_likely = (frames.log_probs >= highest[..., None] + np.float32(self.least_log_prob)) & is_valid[..., None]
        is_active = is_likely.any(-1)  # (B, T)
        is_gap = is_valid & ~is_active
        history.gaps.append(np.where(is_gap, frames.blanks, np.float32(0)))
        counts = is_active.sum(1)
        order = np.argsort(~is_active, axis=1, kind="stable")[:, : int(counts.max(initial=0))]  # (B, active)
        gaps = np.cumsum(np.concatenate([is_after_gap[:, None], is_gap], 1), 1)  # before each frame, and in all
        before = np.take_along_axis(gaps[:, :-1], order, 1)
        used = np.arange(order.shape[1]) < counts[:, None]
        last = np.where(used, before, 0).max(1, initial=0)  # before the last frame that extends prefixes

        def ordered(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
            return np.take_along_axis(values, order.reshape(order.shape + (1,) * (values.ndim - 2)), 1).swapaxes(0, 1)

        tokens, is_likely = ordered(frames.ids).astype(np.int64), ordered(is_likely) & used.T[..., None]
        is_delimiter = np.zeros(tokens.shape, np.bool_) if self.delimiters is None else self.delimiters[tokens]
        is_after_gap = (np.diff(before, axis=1, prepend=0) > 0).T & used.T
        return _Active(
            tokens,
            np.where(is_likely, np.exp(ordered(frames.log_probs).astype(np.float64)), 0.0),
            np.where(used.T, np.exp(ordered(frames.blanks).astype(np.float64)), 1.0),
            is_after_gap,
            (is_after_gap.sum(1) > 0).tolist(),
            used.T,
            is_likely.sum(2).max(1, initial=1).tolist(),  # likely tokens are the first ones
            (is_delimiter & is_likely).any((1, 2)).tolist(),
        ), gaps[:, -1] > last

    def _step(self, beams: _Beams, active: _Active, frame: int, history: "_History") -> None:
        """Extend the prefixes by the tokens of one frame, and keep the best."""
        width, most = active.widths[frame], active.tokens.shape[2]
        tokens, p = active.tokens[frame, :, :width], active.probabilities[frame, :, None, :width]
        p_blank = active.blanks[frame, :, None]
        is_active = active.is_active[frame, :, None]
        states, rows = beams.states, len(tokens)
        both = beams.blank + beams.token
        blank, token = beams.blank, beams.token
        if active.has_gap[frame]:
            is_after_gap = active.is_after_gap[frame, :, None]
            blank, token = np.where(is_after_gap, both, blank), np.where(is_after_gap, 0.0, token)

        candidates = np.empty((rows, self.beams * (1 + width)))
        stay_token = candidates[:, : self.beams]
        extended = candidates[:, self.beams :].reshape(rows, self.beams, width)  # a view
        is_last = states[..., LAST, None] == tokens[:, None]  # (B, W, K)
        repeated = is_last.astype(np.float64)
        np.multiply(np.where(is_last, blank[..., None], both[..., None]), p, out=extended)
        stay_blank = both * p_blank
        # Each sum here and below has at most one term, so it is exact in any order.
        np.multiply(token, np.matmul(repeated, p.swapaxes(1, 2))[..., 0], out=stay_token)
        rank_lifts, carried = self._fuse(states, tokens, extended, active.has_delimiter[frame])

        # An extension that equals another beam belongs to it.
        is_parent = (states[:, None, :, HASH] == states[:, :, None, PARENT]).astype(np.float64)  # (B, W, W)
        stay_token += np.einsum("bwk,bwk->bw", is_parent @ extended, repeated)
        np.copyto(extended, -1.0, where=(is_parent.swapaxes(1, 2) @ repeated) > 0)  # never chosen

        ranks = candidates.copy()
        ranks[:, : self.beams] += stay_blank
        if rank_lifts is not None:
            ranks *= rank_lifts
        index = _best(ranks, self.beams, self.beams * (1 + most))
        chosen = self._chosen(index, tokens)
        beams.blank = np.where(chosen.is_new, 0.0, stay_blank.ravel().take(chosen.sources))
        beams.token = candidates.ravel().take(index + _firsts(candidates))
        beams.states = self._advanced(states, chosen, carried)

        scale = beams.blank[:, :1] + beams.token[:, :1]
        scale = np.where(is_active & (scale > 0), scale, 1.0)
        beams.blank /= scale
        beams.token /= scale
        history.append(chosen, scale)

    def _fuse(
        self, states: Ints, tokens: Ints, extended: Floats, has_delimiter: bool
    ) -> tuple[Floats | None, list[Any]]:
        """Multiply the extensions by their factors; return the lifts of all candidates, and the fusions' values."""
        lifts: Floats | None = None
        carried = []
        for fusion, fields in zip(self.fusions, self.fields, strict=True):
            own = states[..., fields]
            extension = fusion.extend(own, tokens, has_delimiter=has_delimiter)
            carried.append(extension.carried)
            if extension.factors is not None:
                extended *= extension.factors
            lift = fusion.lift(own)
            if extension.lifts is not None and lift is not None:
                of_fusion = np.concatenate([lift, extension.lifts.reshape(len(lift), -1)], 1)
                lifts = of_fusion if lifts is None else lifts * of_fusion
        return lifts, carried

    def _chosen(self, index: Ints, tokens: Ints) -> Chosen:
        num_rows, num_tokens = tokens.shape
        is_new = index >= self.beams
        beams, places = np.divmod(np.maximum(index - self.beams, 0), num_tokens)
        sources = np.where(is_new, beams, index) + np.arange(0, num_rows * self.beams, self.beams)[:, None]
        return Chosen(sources, places, tokens.ravel().take(places + _firsts(tokens)), is_new)

    def _advanced(self, states: Ints, chosen: Chosen, carried: Sequence[Any]) -> Ints:
        after = states.reshape(-1, states.shape[-1]).take(chosen.sources, 0)
        hashes, is_new = after[..., HASH].copy(), chosen.is_new
        np.copyto(after[..., LAST], chosen.tokens, where=is_new)
        np.copyto(after[..., HASH], hashes * MULTIPLIER + chosen.tokens + 1, where=is_new)
        np.copyto(after[..., PARENT], hashes, where=is_new)
        for fusion, fields, of_fusion in zip(self.fusions, self.fields, carried, strict=True):
            after[..., fields] = fusion.advance(after[..., fields], chosen, of_fusion)
        return after


def _firsts(values: npt.NDArray[Any]) -> Ints:
    """Return the places (B, 1) of the first values of rows among the values of all rows."""
    return np.arange(0, values.size, values.shape[1])[:, None]


def _best(ranks: Floats, number: int, most: int) -> Ints:
    """Return the places of the highest values of each row (B, N), the highest first; of equal ones the first.

    The last bits of the values are replaced by their places, as many as `most` values need, so that there are no ties
    and the order does not depend on N.
    """
    places = (1 << (most - 1).bit_length()) - 1
    keys = (ranks.view(np.int64) & ~places) | (places - np.arange(ranks.shape[1]))  # positive numbers as their bits
    keys.sort(axis=1)
    return places - (keys[:, : -number - 1 : -1] & places)


class _History:
    """Decisions of a search in each frame."""

    def __init__(self) -> None:
        self.sources: list[Ints] = []
        self.tokens: list[Ints] = []
        self.scales: list[Floats] = []
        self.gaps: list[npt.NDArray[np.float32]] = []
        """(B, T) log-probabilities of the blanks of frames that were left out, else 0."""

    def append(self, chosen: Chosen, scale: Floats) -> None:
        """Add a frame."""
        self.sources.append(chosen.sources)
        self.tokens.append(np.where(chosen.is_new, chosen.tokens, -1))
        self.scales.append(scale[:, 0])

    def hypotheses(self, scores: Floats, best: int) -> list[list[Hypothesis]]:
        """Return the best hypotheses of each row, from the scores (B, W) of its beams."""
        order = np.argsort(-scores, axis=1, kind="stable")[:, :best]
        ids = list(self._ids(order))
        scales = np.stack(self.scales, 1).tolist() if self.scales else [[]] * len(scores)
        gaps = np.concatenate(self.gaps, 1).tolist() if self.gaps else [[]] * len(scores)
        by_row = []
        for row, (row_scales, row_gaps) in enumerate(zip(scales, gaps, strict=True)):
            # Sums are rounded once, so that zeros of padding change no bit.
            base = math.fsum([*map(math.log, row_scales), *row_gaps])
            kept = zip(ids[row], scores[row, order[row]].tolist(), strict=True)
            by_row.append([Hypothesis(tokens, math.log(end) + base) for tokens, end in kept if end > 0])
        return by_row

    def _ids(self, order: Ints) -> Iterator[list[npt.NDArray[np.int32]]]:
        """Yield the tokens of the given beams (B, n) of each row, followed back from the last frame."""
        tokens = np.empty((len(self.sources), *order.shape), np.int32)
        beams = order + np.arange(len(order))[:, None] * (self.sources[0].shape[1] if self.sources else 0)
        for frame in range(len(self.sources) - 1, -1, -1):
            tokens[frame] = self.tokens[frame].ravel()[beams]
            beams = self.sources[frame].ravel()[beams]
        for row in range(len(order)):
            yield [ids[ids >= 0] for ids in tokens[:, row].T]
