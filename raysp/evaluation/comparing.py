"""Comparison of labels with references, by the kind of the labels: texts, classes or speakers."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

from raysp.evaluation.classification import compare_classes
from raysp.evaluation.intervals import Bootstrap
from raysp.evaluation.recognition import compare_texts
from raysp.evaluation.scores import Columns, Comparison
from raysp.evaluation.verification import Vector, compare_known_speakers, compare_speakers
from raysp.text.error_rates import DEFAULT, Normalisation

Task = Literal["recognition", "classification", "verification"]
"""Kind of the labels: the reference is a text, a class or a speaker."""


class LabelledRows(NamedTuple):
    """Rows with a reference and a label, one value of each sequence per row."""

    references: Sequence[str]
    hypotheses: Sequence[str | None]
    """Texts, classes, or the most probable of the speakers that a model knows; None without."""
    scores: Sequence[float | None]
    """Probability of each class; None for texts."""
    vectors: Sequence[Vector | None]
    """Embeddings; None for texts and classes."""


def compare_labels(
    task: Task,
    rows: LabelledRows,
    columns: Columns,
    *,
    classes: Sequence[str] = (),
    normalise: str | Normalisation = DEFAULT,
    bootstrap: Bootstrap | None = None,
    worst: int,
) -> Comparison:
    """Return the metrics of labels.

    Args:
        task: the kind of the labels.
        rows: the rows.
        columns: durations, columns for groups, and units of the bootstrap.
        classes: the classes, or the speakers that a model knows; without any, speakers have the equal error rate alone.
        normalise: normalisation of texts.
        bootstrap: number of draws, and seed; None: the usual ones.
        worst: number of wrong rows to return.
    """
    references, hypotheses, scores, vectors = rows
    if task == "recognition":
        texts = [text or "" for text in hypotheses]
        return compare_texts(references, texts, columns, normalise=normalise, bootstrap=bootstrap, worst=worst)
    if task == "classification":
        return compare_classes(
            references, hypotheses, scores, columns, classes=classes, bootstrap=bootstrap, worst=worst
        )
    if not classes:
        return compare_speakers(references, vectors, columns, bootstrap=bootstrap)
    return compare_known_speakers(
        references, vectors, hypotheses, scores, columns, classes=classes, bootstrap=bootstrap, worst=worst
    )
