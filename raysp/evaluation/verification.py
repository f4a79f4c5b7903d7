"""Equal error rate of speaker verification: cosines of the embeddings of pairs of rows.

A pair of rows of one speaker is a target pair, one of two speakers a non-target pair.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from raysp.evaluation.classification import NO_CLASS, ClassMeasures, compare_classes, equal_error_rates
from raysp.evaluation.equal_rows import Bools
from raysp.evaluation.intervals import Bootstrap, Floats, Ints
from raysp.evaluation.scores import Columns, Comparison, compare, of_rows, units_of

Vector = npt.NDArray[np.floating[Any]]
Vectors = npt.NDArray[np.float32]

MOST_PAIRS = 20_000
"""Most pairs of a kind that are compared; of more, this number is drawn by the seed of the bootstrap."""
PAIRS_AT_ONCE = 4096
"""Pairs whose vectors are in memory at once."""
PAIR_WEIGHTS_AT_ONCE = 2**18
"""Weights of pairs in memory at once; more of them are slower, since they leave the cache."""
NO_VECTOR = -1
"""Number in place of the speaker of a row without a vector."""


class _Pairs(NamedTuple):
    """Compared pairs, the highest cosines first."""

    left_P: Ints
    right_P: Ints
    is_target_P: Bools
    is_within_P: Bools
    """Whether both rows are of one unit of the bootstrap."""
    cosines_P: Floats


@dataclass(frozen=True)
class PairMeasures:
    """Equal error rate of the cosines of pairs of rows.

    The weight of a pair is the product of the weights of its rows, since each drawn copy of a row is compared with each
    of the other. A pair within a unit of the bootstrap, such as a speaker, has the weight of the unit: its rows are
    drawn together, and copies of a unit are not compared with each other (docs/decisions/023).

    Attributes:
        vectors_NE: vectors of length 1.
        speakers_N: numbers of the speakers; `NO_VECTOR` for rows that are in no pair.
        units_N: numbers of the units of the bootstrap.
        seed: seed of the pairs that are drawn if there are more than `MOST_PAIRS` of a kind.
    """

    vectors_NE: Vectors
    speakers_N: Ints
    units_N: Ints
    seed: int

    names = ("eer",)

    def __call__(self, weights_DN: Floats) -> Floats:
        """Return the rate of each weighting; NaN without pairs of both kinds."""
        pairs = self._pairs
        at_once = max(1, PAIR_WEIGHTS_AT_ONCE // max(1, len(pairs.cosines_P)))
        parts = (weights_DN[first : first + at_once] for first in range(0, len(weights_DN), at_once))
        rates = [equal_error_rates(pairs.cosines_P, pairs.is_target_P, self._weights(part)) for part in parts]
        return np.concatenate(rates)[:, None]

    def counts(self) -> dict[str, int]:
        """Return the number of speakers, of compared pairs of both kinds, and of rows without a vector."""
        speakers, targets = np.unique(self.speakers_N), int(self._pairs.is_target_P.sum())
        return {
            "speakers": int((speakers != NO_VECTOR).sum()),
            "target_pairs": targets,
            "non_target_pairs": len(self._pairs.is_target_P) - targets,
            "without_vector": int((self.speakers_N == NO_VECTOR).sum()),
        }

    @cached_property
    def _pairs(self) -> _Pairs:
        rows = np.flatnonzero(self.speakers_N != NO_VECTOR)
        rows = rows[np.argsort(self.speakers_N[rows], kind="stable")]
        targets, non_targets = _drawn_pairs(self.speakers_N[rows], np.random.default_rng(self.seed))
        left, right = (rows[side] for side in np.concatenate([targets, non_targets], axis=1))
        is_target = np.arange(len(left)) < targets.shape[1]
        cosines = _cosines(self.vectors_NE, left, right)
        order = np.argsort(-cosines, kind="stable")
        is_within = self.units_N[left] == self.units_N[right]
        return _Pairs(left[order], right[order], is_target[order], is_within[order], cosines[order])

    def _weights(self, weights_DN: Floats) -> Floats:
        """Return the weights of the pairs, (D, P)."""
        left_DP, right_DP = (np.take(weights_DN, side, axis=1) for side in (self._pairs.left_P, self._pairs.right_P))
        return np.where(self._pairs.is_within_P, left_DP, left_DP * right_DP)


@dataclass(frozen=True)
class SpeakerMeasures:
    """Equal error rate of all rows, and accuracy and macro F1 of rows whose speaker a model knows.

    Attributes:
        pairs: measures of pairs of rows.
        classes: numbers of the right and of the predicted speakers; `NO_CLASS` for unknown ones.
    """

    pairs: PairMeasures
    classes: ClassMeasures

    names = ("eer", "accuracy", "f1")

    def __call__(self, weights_DN: Floats) -> Floats:
        """Return the metrics of each weighting."""
        return np.concatenate([self.pairs(weights_DN), self.classes(weights_DN * self._is_known)], axis=1)

    def counts(self) -> dict[str, int]:
        """Return the numbers behind both, and the rows of known speakers."""
        known_rows = np.flatnonzero(self._is_known)
        of_known = of_rows(self.classes, known_rows).counts()
        return {**self.pairs.counts(), "of_known_speakers": len(known_rows), **of_known}

    @property
    def _is_known(self) -> Bools:
        is_known_N: Bools = self.classes.actual_N != NO_CLASS
        return is_known_N


def compare_speakers(
    speakers: Sequence[str],
    vectors: Sequence[Vector | None],
    columns: Columns | None = None,
    *,
    bootstrap: Bootstrap | None = None,
) -> Comparison:
    """Return the equal error rate of the cosines of pairs of rows.

    All pairs are compared, but at most `MOST_PAIRS` of one speaker and as many of two: the same ones for the same rows
    in the same order. A group has the pairs within it.

    Args:
        speakers: speaker of each of N rows.
        vectors: embeddings of one length; None for rows without one, which are in no pair. Vectors that are not
            finite and zeros count as None.
        columns: durations, columns for groups, and units of the bootstrap.
        bootstrap: number of draws, and seed of draws and pairs.
    """
    columns, bootstrap = columns or Columns(), bootstrap or Bootstrap()
    measures = _measures_of_pairs(speakers, vectors, columns, bootstrap)
    return compare(measures, len(speakers), columns, bootstrap)


def compare_known_speakers(
    speakers: Sequence[str],
    vectors: Sequence[Vector | None],
    predictions: Sequence[str | None],
    scores: Sequence[float | None],
    columns: Columns | None = None,
    *,
    classes: Sequence[str],
    bootstrap: Bootstrap | None = None,
    worst: int = 10,
) -> Comparison:
    """Return the equal error rate of all rows, and accuracy and macro F1 of the rows of known speakers.

    Args:
        speakers: as for `compare_speakers`, as are `vectors`, `columns` and `bootstrap`.
        vectors: embeddings.
        predictions: the most probable of the known speakers for each row; a missing one is None, and wrong.
        scores: probability of each predicted speaker.
        columns: further columns.
        classes: the known speakers.
        bootstrap: draws.
        worst: number of wrong rows of known speakers to return, the highest scores first.
    """
    columns, bootstrap = columns or Columns(), bootstrap or Bootstrap()
    numbers = {name: number for number, name in enumerate(classes)}
    actual = np.array([numbers.get(name, NO_CLASS) for name in speakers], np.int64)
    predicted = np.array([NO_CLASS if name is None else numbers[name] for name in predictions], np.int64)
    known_rows = np.flatnonzero(actual != NO_CLASS).tolist()
    of_known = compare_classes(
        [speakers[row] for row in known_rows],
        [predictions[row] for row in known_rows],
        [scores[row] for row in known_rows],
        classes=classes,
        bootstrap=Bootstrap(draws=0),
        worst=worst,
    )
    pairs = _measures_of_pairs(speakers, vectors, columns, bootstrap)
    measures = SpeakerMeasures(pairs, ClassMeasures(actual, predicted, len(classes)))
    worst_rows = [replace(row, index=known_rows[row.index]) for row in of_known.worst]
    return compare(measures, len(speakers), columns, bootstrap, worst=worst_rows, classes=of_known.classes)


def _measures_of_pairs(
    speakers: Sequence[str], vectors: Sequence[Vector | None], columns: Columns, bootstrap: Bootstrap
) -> PairMeasures:
    if len(speakers) != len(vectors):
        raise ValueError(f"expected as many vectors as speakers, found {len(vectors)} and {len(speakers)}")
    numbers = {name: number for number, name in enumerate(dict.fromkeys(speakers))}
    vectors_NE, has_vector_N = _of_length_1(vectors)
    speakers_N = np.where(has_vector_N, np.array([numbers[name] for name in speakers], np.int64), NO_VECTOR)
    return PairMeasures(vectors_NE, speakers_N, units_of(columns.over, len(speakers)), bootstrap.seed)


def _of_length_1(vectors: Sequence[Vector | None]) -> tuple[Vectors, Bools]:
    """Return vectors scaled to length 1, (N, E), and whether each row has one; zeros for rows without."""
    size = next((len(vector) for vector in vectors if vector is not None), 0)
    vectors_NE, has_vector_N = np.zeros((len(vectors), size), np.float32), np.zeros(len(vectors), bool)
    for row, vector in enumerate(vectors):
        # In float64, in which squares of float32 values do not overflow.
        length = 0.0 if vector is None else float(np.linalg.norm(np.asarray(vector, np.float64)))
        if vector is not None and 0 < length < np.inf:
            vectors_NE[row], has_vector_N[row] = vector / length, True
    return vectors_NE, has_vector_N


def _drawn_pairs(speakers_N: Ints, random: np.random.Generator) -> tuple[Ints, Ints]:
    """Return target and non-target pairs of rows that are sorted by speaker, (2, P) each."""
    places_N, end_N = np.arange(len(speakers_N)), np.searchsorted(speakers_N, speakers_N, side="right")
    return _some_of(places_N + 1, end_N, random), _some_of(end_N, np.full_like(end_N, len(end_N)), random)


def _some_of(first_N: Ints, end_N: Ints, random: np.random.Generator) -> Ints:
    """Return pairs (2, P) of each row with rows `first <= row < end`, at most `MOST_PAIRS` drawn at random."""
    counts_N = end_N - first_N
    last_N = np.cumsum(counts_N)  # pairs are numbered, and the pairs of a row are neighbours
    total = int(last_N[-1]) if len(last_N) else 0
    numbers_P = np.arange(total) if total <= MOST_PAIRS else random.choice(total, MOST_PAIRS, replace=False)
    left_P = np.searchsorted(last_N, numbers_P, side="right")
    return np.stack([left_P, first_N[left_P] + numbers_P - (last_N - counts_N)[left_P]])


def _cosines(vectors_NE: Vectors, left_P: Ints, right_P: Ints) -> Floats:
    parts = (slice(first, first + PAIRS_AT_ONCE) for first in range(0, len(left_P), PAIRS_AT_ONCE))
    cosines = [np.einsum("pe,pe->p", vectors_NE[left_P[part]], vectors_NE[right_P[part]]) for part in parts]
    return np.concatenate([np.empty(0), *cosines])
