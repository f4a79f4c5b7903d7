"""Metrics and their intervals, against theory, sweeps over all thresholds and values calculated by hand.

Evaluations of chosen label rows (`evaluate/test_rows.py`) show those of texts.
"""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raysp.evaluation import verification
from raysp.evaluation.classification import compare_classes
from raysp.evaluation.intervals import Bootstrap, intervals
from raysp.evaluation.scores import units_of
from raysp.evaluation.verification import PairMeasures, compare_speakers

NO_DRAWS = Bootstrap(draws=0)


class TestIntervals:
    VALUES = np.random.default_rng(5).normal(3.0, 2.0, 400)

    @staticmethod
    def mean_of(values):
        return lambda weights: (weights @ values / weights.sum(1))[:, None]

    def test_an_interval_of_a_mean_is_that_of_the_normal_distribution_for_each_seed(self):
        mean, rows = self.mean_of(self.VALUES), np.arange(400)
        (low,), (high,) = first = intervals(mean, rows, Bootstrap())
        spread = 1.96 * self.VALUES.std() / np.sqrt(400)
        assert low == pytest.approx(self.VALUES.mean() - spread, abs=0.1 * spread)
        assert high == pytest.approx(self.VALUES.mean() + spread, abs=0.1 * spread)
        assert np.array_equal(first, intervals(mean, rows, Bootstrap()))
        assert not np.array_equal(first, intervals(mean, rows, Bootstrap(seed=1)))

    def test_rows_of_a_unit_are_drawn_together_so_that_equal_ones_add_nothing(self):
        few = self.VALUES[:20]
        alone = intervals(self.mean_of(few), np.arange(20), Bootstrap())
        repeated = self.mean_of(np.repeat(few, 20))
        assert intervals(repeated, np.repeat(np.arange(20), 20), Bootstrap()) == pytest.approx(alone)
        assert np.ptp(intervals(repeated, np.arange(400), Bootstrap())) < 0.4 * np.ptp(alone)

    @pytest.mark.parametrize(("units", "draws"), [([], 1000), ([0, 0, 0], 1000), ([0, 1], 0)])
    def test_fewer_than_two_units_and_no_draws_have_no_interval(self, units, draws):
        assert intervals(self.mean_of(np.ones(len(units))), np.array(units, np.int64), Bootstrap(draws)) is None

    def test_draws_that_do_not_define_a_metric_are_left_out(self):
        def measure(weights):
            first = np.where(weights[:, 0] > 0, weights[:, 0], np.nan)
            return np.stack([first, np.full(len(first), np.nan)], axis=1)

        ends = intervals(measure, np.arange(2), Bootstrap())
        assert ends[:, 0].tolist() == [1.0, 2.0]
        assert np.isnan(ends[:, 1]).all()


class TestClasses:
    def test_accuracy_f1_each_class_and_the_worst_rows(self):
        actual, predicted = ["a", "a", "a", "b", "b", "c", "c"], ["a", "a", "b", "b", "c", "b", None]
        scores = [0.5, 0.5, 0.6, 0.5, 0.9, 0.7, None]
        found = compare_classes(actual, predicted, scores, classes=["a", "b", "c", "never"], worst=2)
        # F1: a 2*2/(3+2), b 2*1/(2+3), c 0
        metrics = {name: one.value for name, one in found.scores.metrics.items()}
        assert metrics == {"accuracy": pytest.approx(3 / 7), "f1": pytest.approx((4 / 5 + 2 / 5 + 0) / 3)}
        assert found.scores.counts == {"correct": 3, "without_class": 1}
        assert [(one.name, one.rows, one.predicted, one.precision, one.recall) for one in found.classes] == [
            ("c", 2, 1, 0.0, 0.0),
            ("b", 2, 3, pytest.approx(1 / 3), 0.5),
            ("a", 3, 2, 1.0, pytest.approx(2 / 3)),
        ]
        assert [(one.index, one.reference, one.hypothesis, one.score) for one in found.worst] == [
            (4, "b", "c", 0.9),
            (5, "c", "b", 0.7),
        ]

    def test_two_classes_have_an_equal_error_rate_whichever_is_detected(self):
        def eer(scores, *classes):
            actual, predicted = ["no", "yes", "yes", "no"], ["no", "yes", "no", "no"]
            return compare_classes(actual, predicted, scores, classes=classes).scores.metrics["eer"].value

        # Probabilities of "yes": 0.1, 0.8, 0.4, 0.3
        assert eer([0.9, 0.8, 0.6, 0.7], "no", "yes") == eer([0.9, 0.8, 0.6, 0.7], "yes", "no") == 0.0
        assert eer([0.9, 0.8, 0.9, 0.6], "no", "yes") == eer([0.9, 0.8, 0.9, 0.6], "yes", "no") > 0


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


def of_speakers(speakers, vectors, **options):
    return compare_speakers(speakers, [np.array(one, np.float32) for one in vectors], **options)


class TestSpeakers:
    @given(ROWS)
    def test_the_rate_is_that_of_a_sweep_over_all_thresholds(self, rows):
        found = of_speakers([name for name, _, _ in rows], [vector for _, vector, _ in rows], bootstrap=NO_DRAWS)
        expected = rate_of_pairs([(name, vector, (row, 0)) for row, (name, vector, _) in enumerate(rows)])
        found = found.scores.metrics["eer"].value
        assert found == (None if expected is None else pytest.approx(expected, abs=1e-12))

    @given(ROWS, st.sampled_from(["rows", "speakers", "others"]), st.data())
    def test_weights_are_repetitions_whose_copies_are_not_compared_with_each_other(self, rows, kind, data):
        names = [name for name, _, _ in rows]
        units = units_of({"rows": None, "speakers": names, "others": [other for _, _, other in rows]}[kind], len(rows))
        weights = np.array(data.draw(st.lists(st.integers(0, 3), min_size=len(rows), max_size=len(rows))))[units]
        vectors = verification._of_length_1([np.array(vector) for _, vector, _ in rows])[0]
        measures = PairMeasures(vectors, units_of(names, len(rows)), units, seed=0)
        [[found]] = measures(weights.astype(float).reshape(1, -1))
        copies = [
            (name, vector, (unit, copy))
            for (name, vector, _), unit, times in zip(rows, units, weights, strict=True)
            for copy in range(times)
        ]
        expected = rate_of_pairs(copies)
        assert np.isnan(found) if expected is None else found == pytest.approx(expected, abs=1e-12)
