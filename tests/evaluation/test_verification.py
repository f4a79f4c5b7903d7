"""Equal error rates of pairs of rows, against a sweep over all thresholds and values calculated by hand."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raysp.evaluation import verification
from raysp.evaluation.classification import compare_classes
from raysp.evaluation.intervals import Bootstrap
from raysp.evaluation.scores import units_of
from raysp.evaluation.verification import PairMeasures, compare_known_speakers, compare_speakers

NO_DRAWS = Bootstrap(draws=0)
# Of length 1 or 2, so that all cosines are multiples of a quarter, without rounding.
DIRECTIONS = [
    *(tuple(sign if place == axis else 0 for place in range(4)) for axis in range(4) for sign in (1, -1)),
    *itertools.product((1, -1), repeat=4),
]
ROWS = st.lists(st.tuples(st.sampled_from("abcd"), st.sampled_from(DIRECTIONS), st.integers(0, 2)), max_size=12)


def rate_of(scores, targets):
    """Compute the equal error rate by a sweep over all thresholds, counting all pairs at each; None if undefined."""
    if not any(targets) or all(targets):
        return None
    before = (0.0, 1.0)
    for threshold in sorted(set(scores), reverse=True):
        accepted = [score >= threshold for score in scores]
        false_accepted = [one for one, target in zip(accepted, targets, strict=True) if not target]
        right_accepted = [one for one, target in zip(accepted, targets, strict=True) if target]
        after = sum(false_accepted) / len(false_accepted), 1 - sum(right_accepted) / len(right_accepted)
        if after[0] >= after[1]:
            part = (before[1] - before[0]) / ((before[1] - before[0]) + (after[0] - after[1]))
            return before[0] + part * (after[0] - before[0])
        before = after
    raise AssertionError("all pairs are accepted at the lowest threshold")


def rate_of_pairs(rows):
    """Compute the rate of all pairs of rows, each a speaker, a vector and (unit, copy); no pair is of two copies."""
    scores, targets = [], []
    for (one, first, unit), (other, second, another) in itertools.combinations(rows, 2):
        if unit[0] == another[0] and unit[1] != another[1]:
            continue
        scores.append(np.dot(first, second) / (np.linalg.norm(first) * np.linalg.norm(second)))
        targets.append(one == other)
    return rate_of(scores, targets)


def eer(speakers, vectors, columns=None, **options):
    found = compare_speakers(speakers, [np.array(one, np.float32) for one in vectors], columns, **options)
    return found.scores.metrics["eer"]


def voices(num_speakers, num_rows, *, noise, seed=0, size=16):
    """Make rows of speakers whose vectors are around directions of their own."""
    random = np.random.default_rng(seed)
    numbers = np.repeat(np.arange(num_speakers), num_rows)
    vectors = random.normal(size=(num_speakers, size))[numbers] + noise * random.normal(size=(len(numbers), size))
    return [f"s{number}" for number in numbers], [*vectors.astype(np.float32)]


@given(ROWS)
def test_it_is_that_of_a_sweep_over_all_thresholds(rows):
    found = eer([name for name, _, _ in rows], [vector for _, vector, _ in rows], bootstrap=NO_DRAWS).value
    expected = rate_of_pairs([(name, vector, (row, 0)) for row, (name, vector, _) in enumerate(rows)])
    assert found == (None if expected is None else pytest.approx(expected, abs=1e-12))


@given(ROWS, st.sampled_from(["rows", "speakers", "others"]), st.data())
def test_weights_are_repetitions_whose_copies_are_not_compared_with_each_other(rows, kind, data):
    names = [name for name, _, _ in rows]
    units = units_of({"rows": None, "speakers": names, "others": [other for _, _, other in rows]}[kind], len(rows))
    weights = np.array(data.draw(st.lists(st.integers(0, 3), min_size=len(rows), max_size=len(rows))))[units]
    measures = PairMeasures(
        verification._of_length_1([np.array(vector) for _, vector, _ in rows])[0],
        units_of(names, len(rows)),
        units,
        seed=0,
    )
    [[found]] = measures(weights.astype(float).reshape(1, -1))
    copies = [
        (name, vector, (unit, copy))
        for (name, vector, _), unit, times in zip(rows, units, weights, strict=True)
        for copy in range(times)
    ]
    expected = rate_of_pairs(copies)
    assert np.isnan(found) if expected is None else found == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    ("speakers", "degrees", "rate"),
    [
        ("aabb", [0, 10, 90, 100], 0.0),
        ("abab", [0, 90, 180, 270], 1.0),
        # Angles of target pairs are 15 and 30, those of the others 5, 10, 25 and 40: accepting up to 15 degrees takes
        # two of the four others and leaves one of the two targets.
        ("abab", [0, 10, 15, 40], 0.5),
        ("aaaa", [0, 1, 2, 3], None),
        ("abcd", [0, 1, 2, 3], None),
    ],
)
def test_values_calculated_by_hand(speakers, degrees, rate):
    vectors = [(np.cos(np.radians(one)), np.sin(np.radians(one))) for one in degrees]
    found = eer([*speakers], vectors)
    assert found.value == rate
    assert (found.low is None) == (rate is None)


@pytest.mark.parametrize("missing", [None, np.zeros(16, np.float32), np.full(16, np.nan, np.float32)])
def test_rows_without_a_vector_are_in_no_pair_and_counted(missing):
    speakers, vectors = voices(4, 5, noise=1.0)
    found = compare_speakers([*speakers, "s0", "s9"], [*vectors, missing, missing])
    without = compare_speakers(speakers, vectors)
    assert found.scores.metrics["eer"].value == without.scores.metrics["eer"].value
    assert found.scores.counts == {**without.scores.counts, "without_vector": 2}
    assert found.scores.described("eer").endswith("): 40 target pairs, 150 non-target pairs, 2 rows without a vector")
    assert without.scores.described("eer").endswith("): 40 target pairs, 150 non-target pairs")


class TestSpeakersOfATraining:
    def compared(self, speakers, vectors, predictions, **options):
        scores = [0.9 - 0.01 * row for row in range(len(predictions))]
        return compare_known_speakers(
            speakers, vectors, predictions, scores, classes=("s0", "s1", "s2"), bootstrap=NO_DRAWS, **options
        )

    def test_of_known_speakers_all_metrics_are_those_of_classes_and_of_pairs(self):
        speakers, vectors = voices(3, 4, noise=1.0)
        predictions = [*speakers[:9], "s0", "s1", "s2"]
        found = self.compared(speakers, vectors, predictions)
        of_classes = compare_classes(speakers, predictions, [0.9] * 12, classes=["s0", "s1", "s2"], bootstrap=NO_DRAWS)
        pairs = compare_speakers(speakers, vectors, bootstrap=NO_DRAWS).scores
        assert [*found.scores.metrics] == ["eer", "accuracy", "f1"]
        assert found.scores.metrics == {**pairs.metrics, **of_classes.scores.metrics}
        assert found.scores.counts == {**pairs.counts, "of_known_speakers": 12, **of_classes.scores.counts}
        assert found.classes == of_classes.classes
        assert [one.index for one in found.worst] == [9, 10]
        assert found.scores.described("accuracy") == "83.33% (-): 10 of 12 rows"
