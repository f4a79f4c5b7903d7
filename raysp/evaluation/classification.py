"""Accuracy, macro F1 and equal error rate of predicted classes."""

from collections.abc import Sequence
from dataclasses import dataclass
from operator import attrgetter

import numpy as np
import numpy.typing as npt

from raysp.evaluation.intervals import Bootstrap, Floats, Ints, ratios
from raysp.evaluation.scores import ClassScores, Columns, Comparison, Mismatch, compare

NO_CLASS = -1
"""Number in place of the class of a row without one."""


@dataclass(frozen=True)
class ClassMeasures:
    """Metrics of predicted classes.

    `accuracy` is the share of rows with the right class; `f1` the mean F1 of the classes that occur, in the
    references or among the predictions. `eer` is the equal error rate of a detector of one of two classes.

    Attributes:
        actual_N: numbers of the classes.
        predicted_N: numbers of the predicted classes; `NO_CLASS` for a row without one.
        num_classes: number of classes.
        scores_N: score of the second of two classes; None for any other number of classes.
    """

    actual_N: Ints
    predicted_N: Ints
    num_classes: int
    scores_N: Floats | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the metrics."""
        return ("accuracy", "f1", *(() if self.scores_N is None else ("eer",)))

    def __call__(self, weights_DN: Floats) -> Floats:
        """Return the metrics of each weighting."""
        accuracy_D = ratios(weights_DN @ (self.actual_N == self.predicted_N), weights_DN.sum(1))
        metrics = [accuracy_D, macro_f1(*self.totals(weights_DN))]
        if self.scores_N is not None:
            metrics.append(equal_error_rates(self.scores_N, self.actual_N == 1, weights_DN))
        return np.stack(metrics, axis=1)

    def counts(self) -> dict[str, int]:
        """Return the number of rows with the right class, and of rows without a predicted class."""
        correct, without = self.actual_N == self.predicted_N, self.predicted_N == NO_CLASS
        return {"correct": int(correct.sum()), "without_class": int(without.sum())}

    def totals(self, weights_DN: Floats) -> tuple[Floats, Floats, Floats]:
        """Return weights of rows (D, C): by true class, by predicted class, and where both agree."""
        return (
            self._sums(weights_DN, self.actual_N),
            self._sums(weights_DN, self.predicted_N),
            self._sums(weights_DN, np.where(self.actual_N == self.predicted_N, self.actual_N, NO_CLASS)),
        )

    def _sums(self, weights_DN: Floats, classes_N: Ints) -> Floats:
        """Return the sums of weights by class, (D, C), without rows of `NO_CLASS`."""
        draws, kept = len(weights_DN), classes_N != NO_CLASS
        places = classes_N[kept] + self.num_classes * np.arange(draws)[:, None]
        weights = weights_DN[:, kept].ravel()
        sums: Floats = np.bincount(places.ravel(), weights, minlength=draws * self.num_classes).astype(np.float64)
        return sums.reshape(draws, self.num_classes)


def macro_f1(actual_DC: Floats, predicted_DC: Floats, right_DC: Floats) -> Floats:
    """Return the mean F1 (D,) of the classes that occur, from the weights that `totals` returns."""
    both_DC = actual_DC + predicted_DC
    f1_DC = np.nan_to_num(ratios(2 * right_DC, both_DC))
    return ratios(f1_DC.sum(1), (both_DC > 0).sum(1))


def equal_error_rates(scores_N: Floats, is_target_N: npt.NDArray[np.bool_], weights_DN: Floats) -> Floats:
    """Return the rate at which false acceptances equal false rejections, for each weighting.

    Between thresholds, both rates are interpolated linearly. NaN without targets, or without other rows.

    Args:
        scores_N: score of each row; targets should have higher ones.
        is_target_N: whether a row is a target.
        weights_DN: weights of the rows.
    """
    order = np.argsort(-scores_N, kind="stable")
    ends = np.flatnonzero(np.diff(scores_N[order], append=np.nan))  # the last row of each score
    accepted = []
    for chosen_N in (~is_target_N, is_target_N):
        sums_DN = np.cumsum((weights_DN * chosen_N)[:, order], axis=1)
        shares_DT = ratios(sums_DN[:, ends], (weights_DN * chosen_N).sum(1, keepdims=True))
        accepted.append(np.pad(shares_DT, ((0, 0), (1, 0))))
    return _crossing(accepted[0], 1 - accepted[1])


def _crossing(rising_DT: Floats, falling_DT: Floats) -> Floats:
    """Return the value at which two curves meet, the first from 0 to 1, the second from 1 to 0; else NaN."""
    gap_DT = rising_DT - falling_DT
    rows, after_D = np.arange(len(gap_DT)), np.argmax(gap_DT >= 0, axis=1)
    before_D = np.maximum(after_D - 1, 0)
    before = gap_DT[rows, before_D]
    part_D = ratios(-before, gap_DT[rows, after_D] - before)
    met_D: Floats = rising_DT[rows, before_D] + part_D * (rising_DT[rows, after_D] - rising_DT[rows, before_D])
    return met_D


def compare_classes(
    references: Sequence[str],
    predictions: Sequence[str | None],
    scores: Sequence[float | None],
    columns: Columns | None = None,
    *,
    classes: Sequence[str] = (),
    bootstrap: Bootstrap | None = None,
    worst: int = 10,
) -> Comparison:
    """Return accuracy and macro F1 of predicted classes, and for two classes the equal error rate.

    Args:
        references: the N right classes.
        predictions: the N predicted classes; a missing one is None, and wrong.
        scores: probability of each predicted class.
        columns: durations, columns for groups, and units of the bootstrap.
        classes: the classes of the checkpoint. If there are two, and no other one among the references, the equal error
            rate is computed.
        bootstrap: number of draws, and seed.
        worst: number of wrong rows to return, the highest scores first.
    """
    if not len(references) == len(predictions) == len(scores):
        lengths = f"{len(references)} references, {len(predictions)} predictions and {len(scores)} scores"
        raise ValueError(f"found {lengths}, expected as many")
    further = sorted({name for name in (*references, *predictions) if name is not None}.difference(classes))
    names = [*classes, *further]
    numbers = {name: number for number, name in enumerate(names)}
    actual = np.array([numbers[name] for name in references], np.int64)
    predicted = np.array([NO_CLASS if name is None else numbers[name] for name in predictions], np.int64)
    detected = _scores_of_second(predicted, scores) if len(names) == 2 == len(classes) else None
    measures = ClassMeasures(actual, predicted, len(names), detected)
    wrong, of_classes = _worst(references, predictions, scores, worst), _class_scores(measures, names, len(actual))
    return compare(measures, len(actual), columns, bootstrap, worst=wrong, classes=of_classes)


def _scores_of_second(predicted_N: Ints, scores: Sequence[float | None]) -> Floats:
    """Return the probability of the second of two classes; 0.5 for rows without a class."""
    scores_N = np.array([0.5 if score is None else score for score in scores], np.float64)
    return np.where(predicted_N == 0, 1 - scores_N, scores_N)


def _class_scores(measures: ClassMeasures, names: Sequence[str], num_rows: int) -> tuple[ClassScores, ...]:
    """Return the scores of the classes that occur, the lowest F1 first."""
    totals = (sums[0] for sums in measures.totals(np.ones((1, num_rows))))
    scores = [
        ClassScores(
            name,
            int(actual),
            int(predicted),
            precision=right / predicted if predicted else None,
            recall=right / actual if actual else None,
            f1=2 * right / (actual + predicted),
        )
        for name, actual, predicted, right in zip(names, *(total.tolist() for total in totals), strict=True)
        if actual + predicted
    ]
    return tuple(sorted(scores, key=attrgetter("f1", "name")))


def _worst(
    references: Sequence[str], predictions: Sequence[str | None], scores: Sequence[float | None], most: int
) -> tuple[Mismatch, ...]:
    wrong = [row for row, (right, label) in enumerate(zip(references, predictions, strict=True)) if right != label]
    chosen = sorted(wrong, key=lambda row: -(scores[row] or 0.0))[:most]
    return tuple(Mismatch(row, references[row], predictions[row], errors=1, score=scores[row]) for row in chosen)
