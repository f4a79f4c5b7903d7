"""Evaluations of steps for tests of what reads them."""

from collections.abc import Sequence
from dataclasses import replace

from raysp.evaluation.intervals import Bootstrap
from raysp.evaluation.recognition import compare_texts
from raysp.evaluation.scores import Columns, Comparison, Key, WorstRow
from raysp.training.sink.evaluation_records import StepEvaluation

REFERENCES = ["one two three", "four five", "six", "seven eight nine zero"]
SPEAKERS: Sequence[Key] = ["ann", "ben", None, "ann"]


def an_evaluation(hypotheses: Sequence[str] = ("one three", "four", "six", "zero"), **fields: object) -> StepEvaluation:
    """Make the evaluation of four rows; `fields` replace those of the evaluation."""
    columns = Columns(seconds=[2.5, 0.5, 0.4, 12.0], by={"speaker": SPEAKERS})
    compared = compare_texts(REFERENCES, hypotheses, columns, bootstrap=Bootstrap(draws=50))
    made = StepEvaluation("wer", compared.scores, compared.by, _worst(compared), loss=0.25, normalisation="letters")
    return replace(made, **fields)


def _worst(compared: Comparison) -> tuple[WorstRow, ...]:
    """Place the worst rows in a shard."""
    return tuple(
        WorstRow(
            f"u{one.index}", "a.parquet", one.index, 1.0, one.reference, one.hypothesis, one.errors, None, one.edits
        )
        for one in compared.worst
    )
