"""Columns that an evaluation compares, and the limits of its metrics."""

from collections.abc import Mapping
from dataclasses import dataclass

from raysp.errors import SpecError, refuse_unused
from raysp.evaluation.comparing import Task
from raysp.evaluation.evaluate.references import ComparedColumns
from raysp.evaluation.limits import Limit
from raysp.specs.pipeline import Shards
from raysp.specs.text_rules import Text
from raysp.text.error_rates import Normalisation

METRICS: Mapping[Task, tuple[str, ...]] = {
    "recognition": ("wer", "cer"),
    "classification": ("accuracy", "f1", "eer"),
    "verification": ("eer",),
}
WORST = 10
"""Number of worst rows."""


@dataclass(frozen=True)
class Question:
    """Columns that an evaluation compares, and the rules of the comparison."""

    columns: ComparedColumns
    by: tuple[str, ...]
    over: str | None
    rules: Normalisation
    limits: tuple[Limit, ...]
    worst: int


def check_options(task: Task, normalise: str | Text | None, worst: int | None) -> None:
    """Raise SpecError if an option does not apply to what is compared."""
    if task != "recognition":
        refuse_unused({"normalise": normalise}, "it normalises texts, and none are compared; leave it out")
    if task == "verification":
        refuse_unused({"worst": worst}, "pairs of speakers have no worst rows; leave it out")


def task_of(source: Shards, text: str | None, label: str | None, speaker: str | None) -> tuple[Task, str]:
    """Return the task of the comparison, and the column of the references."""
    columns = {"text": text, "label": label, "speaker": speaker}
    arguments = [f"{name}={column!r}" for name, column in columns.items() if column is not None]
    if len(arguments) > 1:
        raise SpecError(f"found {' and '.join(arguments)}; give one of them")
    if label is not None:
        return "classification", label
    if speaker is not None:
        return "verification", speaker
    if (text := text or source.text) is None:
        raise SpecError(
            "found none of text, label and speaker; name the column of the reference texts, of the classes or of the "
            "speakers"
        )
    return "recognition", text
