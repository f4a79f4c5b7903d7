"""Metrics of classes, against values calculated by hand."""

import numpy as np
import pytest

from raysp.evaluation.classification import compare_classes, equal_error_rates


def metrics(*arguments, **options):
    return {name: one.value for name, one in compare_classes(*arguments, **options).scores.metrics.items()}


def test_accuracy_and_macro_f1_of_three_classes():
    actual = ["a", "a", "a", "b", "b", "c"]
    predicted = ["a", "a", "b", "b", "c", "b"]
    # F1: a 2*2/(3+2), b 2*1/(2+3), c 0
    found = metrics(actual, predicted, [0.5] * 6, classes=["a", "b", "c", "never"])
    assert found == {"accuracy": 0.5, "f1": pytest.approx((4 / 5 + 2 / 5 + 0) / 3)}


def test_the_scores_of_each_class_are_listed_the_worst_first():
    found = compare_classes(["a", "a", "b"], ["a", "b", "b"], [0.9] * 3, classes=["a", "b", "never"]).classes
    assert [(one.name, one.rows, one.predicted, one.precision, one.recall) for one in found] == [
        ("a", 2, 1, 1.0, 0.5),
        ("b", 1, 2, 0.5, 1.0),
    ]
    assert [one.f1 for one in found] == pytest.approx([2 / 3, 2 / 3])
    [wrong, _] = compare_classes(["a"], ["b"], [0.9]).classes
    assert (wrong.precision, wrong.recall, wrong.f1) == (None, 0.0, 0.0)


def test_a_row_without_a_class_is_wrong():
    found = compare_classes(["a", "b"], ["a", None], [0.9, None])
    assert found.scores.metrics["accuracy"].value == 0.5
    assert found.scores.counts == {"correct": 1, "without_class": 1}
    assert found.scores.metrics["f1"].value == 0.5


@pytest.mark.parametrize(
    ("scores", "targets", "rate"),
    [
        ([0.9, 0.8, 0.2, 0.1], [1, 1, 0, 0], 0.0),
        ([0.9, 0.8, 0.7, 0.6], [1, 0, 1, 0], 0.5),
        ([0.5, 0.5, 0.5, 0.5], [1, 0, 1, 0], 0.5),
        # Accepting the ties moves false acceptances from 0 to 1/2 and false rejections from 1/2 to 0.
        ([0.9, 0.5, 0.5, 0.1], [1, 1, 0, 0], 0.25),
    ],
)
def test_the_equal_error_rate(scores, targets, rate):
    order = np.random.default_rng(0).permutation(len(scores))
    found = equal_error_rates(np.array(scores)[order], np.array(targets, bool)[order], np.ones((1, len(scores))))
    assert found == pytest.approx([rate])


def test_weights_of_the_equal_error_rate_are_repetitions():
    scores, targets = np.array([0.9, 0.8, 0.7, 0.6]), np.array([True, False, True, False])
    weights = np.array([[1.0, 2.0, 3.0, 1.0], [1.0, 0.0, 1.0, 1.0], [2.0, 0.0, 1.0, 0.0], [0.0, 1.0, 0.0, 1.0]])
    found = equal_error_rates(scores, targets, weights)
    repeated = np.repeat(np.arange(4), [1, 2, 3, 1])
    alone = equal_error_rates(scores[repeated], targets[repeated], np.ones((1, 7)))
    assert found[:2] == pytest.approx([alone[0], 0.0])
    assert np.isnan(found[2:]).all()  # no other rows, no targets


def test_two_classes_have_an_equal_error_rate_whichever_is_detected():
    actual, predicted, scores = ["no", "yes", "yes", "no"], ["no", "yes", "no", "no"], [0.9, 0.8, 0.6, 0.7]
    # Probabilities of "yes": 0.1, 0.8, 0.4, 0.3
    assert metrics(actual, predicted, scores, classes=["no", "yes"])["eer"] == 0.0
    assert metrics(actual, predicted, scores, classes=["yes", "no"])["eer"] == 0.0
    worse = metrics(actual, predicted, [0.9, 0.8, 0.9, 0.6], classes=["no", "yes"])["eer"]
    assert worse == metrics(actual, predicted, [0.9, 0.8, 0.9, 0.6], classes=["yes", "no"])["eer"] > 0


def test_the_worst_rows_are_wrong_with_the_highest_scores():
    found = compare_classes(["a", "b", "a", "b"], ["a", "a", "b", None], [0.9, 0.6, 0.8, None], worst=2).worst
    assert [(one.index, one.reference, one.hypothesis, one.score) for one in found] == [
        (2, "a", "b", 0.8),
        (1, "b", "a", 0.6),
    ]
