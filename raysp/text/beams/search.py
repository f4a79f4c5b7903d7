"""CTC prefix beam search (Graves & Jaitly 2014; Hannun et al. 2014) over all beams of all rows of a batch at once.

All that the search needs of the logits are the best tokens of each frame (`TopFrames`). A `Fusion` adds the weights of
a language model or of hot words.

For each prefix the search keeps the probability of all its alignments so far, apart for those that end with a blank
and with its last token. Probabilities are float64 numbers that are divided by that of the best prefix after every
frame, so a frame takes products and sums only. A row's result depends neither on the other rows nor on padding.

Prefixes are compared by a 64-bit hash of their tokens. Frames whose only likely token is the blank are left out: they
multiply the probabilities of all prefixes by the same number, and separate repeated tokens.

Shapes: B batch, T frames, V vocabulary, K kept tokens of a frame, W beams, F fields of a state.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from raysp.crossing import constant, fetch
from raysp.text.beams.hashing import MULTIPLIER
from raysp.text.greedy_ctc import BestFrames

KEPT_TOKENS = 16
"""Tokens of a frame that a search extends prefixes by, besides the blank."""
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
        ids: (B, T, K) int64 ids of the best other tokens, the best one first.
        log_probs: (B, T, K) float32 log-probabilities of these tokens.
    """

    blanks: Tensor
    ids: Tensor
    log_probs: Tensor

    def slice(self, first: int, end: int) -> "TopFrames":
        """Return some of the frames of all rows."""
        return TopFrames(self.blanks[:, first:end], self.ids[:, first:end], self.log_probs[:, first:end])

    def best(self, blank: int) -> BestFrames:
        """Return the best token of each frame; of equal ones that with the lower id, as `argmax` does."""
        ids, log_probs = self.ids[..., 0], self.log_probs[..., 0]
        is_blank = (self.blanks > log_probs) | ((self.blanks == log_probs) & (blank < ids))
        return BestFrames(torch.where(is_blank, blank, ids), torch.where(is_blank, self.blanks, log_probs))


def top_frames(logits: Tensor, *, blank: int, kept: int = KEPT_TOKENS) -> TopFrames:
    """Return the blank and the best `kept` other tokens of each frame of `logits` (B, T, V).

    Log-probabilities are computed in float32, as those of `raysp.text.greedy_ctc.best_frames`.
    """
    logits = logits.float()
    best = logits.max(-1, keepdim=True).values
    log_sums = (logits - best).exp().sum(-1, keepdim=True).log()
    others = logits.clone()
    others[..., blank] = -torch.inf
    ids = _highest(others, min(kept, logits.shape[-1] - 1))
    blanks = logits[..., blank : blank + 1]
    return TopFrames((blanks - best - log_sums)[..., 0], ids, others.gather(-1, ids) - best - log_sums)


def _highest(values: Tensor, number: int) -> Tensor:
    """Return the places of the highest float32 values of the last axis, the highest first; of equal ones the first."""
    bits = (values + 0.0).view(torch.int32).long()  # 0.0 for -0.0
    ordered = torch.where(bits < 0, bits ^ 0x7FFFFFFF, bits)  # as the numbers
    last = values.shape[-1] - 1
    backwards = last - torch.arange(last + 1, device=values.device)
    return last - (((ordered << 32) | backwards).topk(number, dim=-1).values & 0xFFFFFFFF)


class Extensions(NamedTuple):
    """Weights of the extensions of prefixes by the tokens of a frame, as factors of their probabilities."""

    factors: Tensor | None
    """(B, W, K) float64 factors that stay; None: all are 1."""
    lifts: Tensor | None
    """(B, W, K) float64 factors of the rank in this frame only; None: all are 1."""
    carried: Tensor | None
    """Values for `advance`."""


class Fusion(Protocol):
    """Weights that depend on the tokens of a prefix alone, by a state of int64 fields for each prefix."""

    def start(self) -> list[int]:
        """Return the fields of the empty prefix."""
        ...

    def extend(self, states: Tensor, tokens: Tensor, *, has_delimiter: bool) -> Extensions:
        """Return the weights of all extensions; `has_delimiter`: whether a token of the frame separates words."""
        ...

    def lift(self, states: Tensor) -> Tensor | None:
        """Return the factors (B, W) of the rank of the prefixes themselves; None: all are 1."""
        ...

    def advance(self, states: Tensor, chosen: "Chosen", carried: Tensor | None) -> Tensor:
        """Return the states (B, W, F) of the chosen prefixes.

        Args:
            states: states of the prefixes that the chosen ones extend or equal.
            chosen: the chosen prefixes.
            carried: the value that `extend` returned.
        """
        ...

    def end(self, states: Tensor) -> Tensor:
        """Return the factors (B, W) of texts that end with these prefixes."""
        ...


class Chosen(NamedTuple):
    """The prefixes that a search keeps after a frame, all (B, W)."""

    sources: Tensor
    """Beams that they extend or equal."""
    places: Tensor
    """Place among the tokens of the frame of the token that extends them."""
    tokens: Tensor
    """This token."""
    is_new: Tensor
    """Whether they are extended."""


class Hypothesis(NamedTuple):
    """One text of a row."""

    ids: npt.NDArray[np.int32]
    """Tokens, without blanks."""
    score: float
    """Log of the probability of all its alignments, plus the weights of fusions."""


@dataclass(frozen=True)
class _Active:
    """The frames that extend prefixes, moved to the front of each row; frames behind them change nothing."""

    tokens: Tensor
    probabilities: Tensor
    blanks: Tensor
    is_after_gap: Tensor
    """Whether frames that were left out precede."""
    is_active: Tensor
    has_delimiter: Sequence[bool]


@dataclass
class _Beams:
    """The prefixes of all rows, the best one first."""

    blank: Tensor
    """Probability of alignments that end with a blank."""
    token: Tensor
    """Probability of alignments that end with the last token."""
    states: Tensor
    """Fields of each prefix."""
    is_after_gap: Tensor
    """Whether frames were left out since the last one."""


class BeamSearch:
    """Prefix beam search with fixed settings.

    Args:
        beams: number of prefixes that are kept after each frame.
        fusions: further weights of prefixes.
        delimiters: (V,) whether a token separates words.
        least_log_prob: log-probability, relative to the best token of a frame, under which one extends no prefix.
    """

    def __init__(
        self,
        beams: int,
        fusions: Sequence[Fusion] = (),
        *,
        delimiters: Tensor | None = None,
        least_log_prob: float = LEAST_LOG_PROB,
    ) -> None:
        self.beams = beams
        self.fusions = tuple(fusions)
        self.delimiters = delimiters
        self.least_log_prob = least_log_prob
        starts = [one.start() for one in self.fusions]
        edges = np.cumsum([PARENT + 1, *map(len, starts)]).tolist()
        self.fields = [slice(first, end) for first, end in pairwise(edges)]
        self.first_fields = [field for start in starts for field in start]

    def __call__(self, frames: TopFrames, num_frames: Tensor, *, best: int = 1) -> list[list[Hypothesis]]:
        """Return up to `best` hypotheses of each row's first `num_frames` (B,) frames, the most probable first.

        Hypotheses have different tokens. Of equal ones the one that was better before the last frame precedes.
        """
        beams = self._start(len(frames.blanks), frames.blanks.device)
        history = _History()
        for first in range(0, frames.blanks.shape[1], CHUNK_FRAMES):
            chunk = frames.slice(first, first + CHUNK_FRAMES)
            active, beams.is_after_gap = self._active(chunk, num_frames - first, beams.is_after_gap, history)
            for frame in range(len(active.tokens)):
                self._step(beams, active, frame, history)
        ends = beams.blank + beams.token
        for fusion, fields in zip(self.fusions, self.fields, strict=True):
            ends = ends * fusion.end(beams.states[..., fields])
        return history.hypotheses(ends, best)

    def _start(self, rows: int, device: torch.device) -> _Beams:
        blank = torch.zeros(rows, self.beams, dtype=torch.float64, device=device)
        blank[:, 0] = 1.0
        states = constant((-1, 0, 0, *self.first_fields), device).repeat(rows, self.beams, 1)
        # Beams without a prefix have hashes of their own, so that none of their extensions equals another prefix.
        states[..., HASH] = torch.arange(1, self.beams + 1, device=device) * MULTIPLIER
        states[..., PARENT] = -torch.arange(1, self.beams + 1, device=device) * MULTIPLIER
        is_after_gap = torch.zeros(rows, dtype=torch.bool, device=device)
        return _Beams(blank, torch.zeros_like(blank), states, is_after_gap)

    def _active(
        self, frames: TopFrames, num_frames: Tensor, is_after_gap: Tensor, history: "_History"
    ) -> tuple[_Active, Tensor]:
        """Return the frames that extend prefixes, and whether frames were left out after the last one of each row."""
        device = frames.blanks.device
        num_all = frames.blanks.shape[1]
        is_valid = torch.arange(num_all, device=device) < num_frames[:, None]
        highest = torch.maximum(frames.blanks, frames.log_probs[..., 0])
        is_likely = (frames.log_probs >= highest[..., None] + self.least_log_prob) & is_valid[..., None]
        is_active = is_likely.any(-1)  # (B, T)
        is_gap = is_valid & ~is_active
        history.gaps.append(torch.where(is_gap, frames.blanks.double(), 0.0))
        counts = is_active.sum(1)
        whole_order = (~is_active).to(torch.uint8).argsort(dim=1, stable=True)
        # One wait for both: the number of frames that extend prefixes, and which of them have a separator of words.
        all_counts, has_delimiter = fetch(counts, self._with_delimiter(frames.ids, is_likely, whole_order))
        longest = int(all_counts.max(initial=0))
        order = whole_order[:, :longest]  # (B, active)
        gaps = torch.cat([is_after_gap[:, None].long(), is_gap.long()], 1).cumsum(1)  # before each frame
        before = gaps[:, :-1].gather(1, order)
        is_after_gap = before > torch.cat([torch.zeros_like(before[:, :1]), before[:, :-1]], 1)
        last = before.gather(1, (counts - 1).clamp_min(0)[:, None])[:, 0] if longest else torch.zeros_like(counts)
        is_left = gaps[:, -1] > torch.where(counts > 0, last, 0)
        used = torch.arange(longest, device=device) < counts[:, None]
        places = order[..., None].expand(-1, -1, frames.ids.shape[-1])
        probabilities = torch.where(is_likely, frames.log_probs.double().exp(), 0.0).gather(1, places)
        tokens = frames.ids.gather(1, places)
        blanks = torch.where(used, frames.blanks.double().exp().gather(1, order), 1.0)
        return _Active(
            tokens.transpose(0, 1).contiguous(),
            torch.where(used[..., None], probabilities, 0.0).transpose(0, 1).contiguous(),
            blanks.transpose(0, 1).contiguous(),
            (is_after_gap & used).transpose(0, 1).contiguous(),
            used.transpose(0, 1).contiguous(),
            has_delimiter[:longest].tolist(),
        ), is_left

    def _with_delimiter(self, ids: Tensor, is_likely: Tensor, order: Tensor) -> Tensor:
        """Return for each frame, in the order of each row, whether a separator of words is likely in any row."""
        if self.delimiters is None:
            return torch.zeros(ids.shape[1], dtype=torch.bool, device=ids.device)
        is_found = (self.delimiters[ids] & is_likely).any(2)
        return is_found.gather(1, order).any(0)

    def _step(self, beams: _Beams, active: _Active, frame: int, history: "_History") -> None:
        """Extend the prefixes by the tokens of one frame, and keep the best."""
        tokens, p, p_blank = active.tokens[frame], active.probabilities[frame], active.blanks[frame]
        is_after_gap, is_active = active.is_after_gap[frame, :, None], active.is_active[frame, :, None]
        states = beams.states
        both = beams.blank + beams.token
        blank = torch.where(is_after_gap, both, beams.blank)
        token = torch.where(is_after_gap, 0.0, beams.token)

        is_last = states[..., LAST, None] == tokens[:, None]  # (B, W, K)
        extended = torch.where(is_last, blank[..., None], both[..., None]) * p[:, None]
        stay_blank = both * p_blank[:, None]
        stay_token = token * (is_last * p[:, None]).sum(-1)
        extended, rank_lifts, carried = self._fused(states, tokens, extended, active.has_delimiter[frame])

        # An extension that equals another beam belongs to it. Each sum below has at most one term.
        is_parent = (states[:, None, :, HASH] == states[:, :, None, PARENT]).double()  # (B, W, W)
        repeated = is_last.double()
        stay_token = stay_token + (torch.bmm(is_parent, extended) * repeated).sum(-1)
        is_merged = torch.bmm(is_parent.transpose(1, 2), repeated) > 0
        extended = extended.masked_fill(is_merged, -1.0)  # never chosen

        candidates = torch.cat([stay_token, extended.flatten(1)], 1)  # (B, W + W * K)
        ranks = torch.cat([stay_blank + stay_token, extended.flatten(1)], 1)
        if rank_lifts is not None:
            ranks = ranks * rank_lifts
        index = _best(ranks, self.beams)
        chosen = self._chosen(index, tokens)
        stayed = stay_blank.gather(1, chosen.sources)
        beams.blank = torch.where(chosen.is_new, 0.0, stayed)
        beams.token = candidates.gather(1, index)
        beams.states = self._advanced(states, chosen, carried)

        scale = beams.blank[:, :1] + beams.token[:, :1]
        scale = torch.where(is_active & (scale > 0), scale, 1.0)
        beams.blank = beams.blank / scale
        beams.token = beams.token / scale
        history.append(chosen, scale)

    def _fused(
        self, states: Tensor, tokens: Tensor, extended: Tensor, has_delimiter: bool
    ) -> tuple[Tensor, Tensor | None, list[Tensor | None]]:
        """Return the extensions times their factors, the lifts of all candidates, and what fusions carry."""
        lifts: Tensor | None = None
        carried = []
        for fusion, fields in zip(self.fusions, self.fields, strict=True):
            own = states[..., fields]
            found = fusion.extend(own, tokens, has_delimiter=has_delimiter)
            carried.append(found.carried)
            if found.factors is not None:
                extended = extended * found.factors
            lift = fusion.lift(own)
            if found.lifts is not None and lift is not None:
                one = torch.cat([lift, found.lifts.flatten(1)], 1)
                lifts = one if lifts is None else lifts * one
        return extended, lifts, carried

    def _chosen(self, index: Tensor, tokens: Tensor) -> Chosen:
        num_tokens = tokens.shape[1]
        is_new = index >= self.beams
        extension = (index - self.beams).clamp_min(0)
        places = extension % num_tokens
        sources = torch.where(is_new, extension.div(num_tokens, rounding_mode="floor"), index)
        return Chosen(sources, places, tokens.gather(1, places), is_new)

    def _advanced(self, states: Tensor, chosen: Chosen, carried: Sequence[Tensor | None]) -> Tensor:
        before = states.gather(1, chosen.sources[..., None].expand(-1, -1, states.shape[-1]))
        last, hashes, parents = (before[..., field] for field in (LAST, HASH, PARENT))
        after = [
            torch.where(chosen.is_new, chosen.tokens, last)[..., None],
            torch.where(chosen.is_new, hashes * MULTIPLIER + chosen.tokens + 1, hashes)[..., None],
            torch.where(chosen.is_new, hashes, parents)[..., None],
        ]
        after += [
            fusion.advance(before[..., fields], chosen, one)
            for fusion, fields, one in zip(self.fusions, self.fields, carried, strict=True)
        ]
        return torch.cat(after, -1)


def _best(ranks: Tensor, number: int) -> Tensor:
    """Return the places of the highest values of each row (B, N), the highest first; of equal ones the first.

    The last bits of the values are replaced by their places, so that there are no ties, which `topk` breaks at will.
    """
    num_values = ranks.shape[1]
    places = (1 << (num_values - 1).bit_length()) - 1
    backwards = torch.arange(num_values, device=ranks.device).neg_().add_(places)
    keys = (ranks.view(torch.int64) & ~places) | backwards  # positive numbers are ordered as their bits
    return places - (keys.topk(number, dim=1).values & places)


class _History:
    """What a search decided in each frame."""

    def __init__(self) -> None:
        self.sources: list[Tensor] = []
        self.tokens: list[Tensor] = []
        self.scales: list[Tensor] = []
        self.gaps: list[Tensor] = []
        """(B, T) log-probabilities of the blanks of frames that were left out, else 0."""

    def append(self, chosen: Chosen, scale: Tensor) -> None:
        """Add a frame."""
        self.sources.append(chosen.sources.to(torch.int16))
        self.tokens.append(torch.where(chosen.is_new, chosen.tokens, -1).int())
        self.scales.append(scale[:, 0])

    def hypotheses(self, scores: Tensor, best: int) -> list[list[Hypothesis]]:
        """Return the best hypotheses of each row, from the scores (B, W) of its beams."""
        steps = [torch.stack(one) for one in (self.sources, self.tokens, self.scales) if one]
        ends, gaps, *of_steps = fetch(scores, torch.cat(self.gaps, 1) if self.gaps else scores[:, :0], *steps)
        order = np.argsort(-ends, axis=1, kind="stable")[:, :best]
        ids = list(_ids(order, *of_steps[:2])) if steps else [[np.empty(0, np.int32)] * order.shape[1]] * len(order)
        scales = of_steps[2].T.tolist() if steps else [[]] * len(ends)
        found = []
        for row, (row_scales, row_gaps) in enumerate(zip(scales, gaps.tolist(), strict=True)):
            # Sums are rounded once, so that zeros of padding change no bit.
            base = math.fsum([*map(math.log, row_scales), *row_gaps])
            kept = zip(ids[row], ends[row, order[row]].tolist(), strict=True)
            found.append([Hypothesis(one, math.log(end) + base) for one, end in kept if end > 0])
        return found


def _ids(
    order: npt.NDArray[np.int64], sources: npt.NDArray[np.int16], tokens: npt.NDArray[np.int32]
) -> Iterator[list[npt.NDArray[np.int32]]]:
    """Yield the tokens of the given beams (B, n) of each row, followed back from the last frame."""
    rows = np.arange(len(order))[:, None]
    found = np.empty((len(sources), *order.shape), np.int32)
    beams = order
    for frame in range(len(sources) - 1, -1, -1):
        found[frame] = tokens[frame][rows, beams]
        beams = sources[frame][rows, beams]
    for row in range(len(order)):
        yield [one[one >= 0] for one in found[:, row].T]
