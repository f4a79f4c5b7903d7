"""Rows of an evaluation: references joined with label rows, by their places."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from raysp.columns import ERROR, OK, SKIPPED
from raysp.evaluation.comparing import LabelledRows
from raysp.evaluation.evaluate.evaluation_result import RowCounts
from raysp.evaluation.evaluate.references import References
from raysp.evaluation.scores import Columns, Mismatch, WorstRow
from raysp.labelling.finished.label_columns import vectors_of


@dataclass(frozen=True)
class EvaluatedRows:
    """Rows with a reference and a label, and the counts of all rows."""

    counts: RowCounts
    labelled: LabelledRows
    columns: Columns
    """Columns of groups; all are in `by`."""
    ids: Sequence[object]
    places: Sequence[tuple[str, int]]
    """Shard and row."""

    def worst(self, mismatch: Mismatch) -> WorstRow:
        """Return a mismatch with the id and the place of its row."""
        row, seconds = mismatch.index, self.columns.seconds
        return mismatch.at(self.ids[row], *self.places[row], None if seconds is None else seconds[row])


def join(
    references: Sequence[References], labels: pa.Table, failed: Collection[str], outputs: Sequence[str]
) -> EvaluatedRows:
    """Join references with labels.

    Args:
        references: references of all shards, in order.
        labels: label rows of the shards that did not fail, in the same order.
        failed: names of the shards that failed.
        outputs: columns of hypotheses, and of their scores if there are any; or the column of embeddings.
    """
    parts = [part for part in references if part.shard.name not in failed]
    texts = [text for part in parts for text in part.references]
    if labels.num_rows != len(texts):
        raise ValueError(f"found {labels.num_rows} label rows for {len(texts)} rows")
    first, second = (*outputs, None)[:2]
    vectors = vectors_of(labels.column(str(first))) if first in _vector_columns(labels) else None
    status, kinds, seconds, hypotheses, scores = (
        _values(labels, name)
        for name in ("status", "error_type", "seconds", first if vectors is None else None, second)
    )
    chosen = [row for row, text in enumerate(texts) if text is not None and status[row] == OK]
    ids = [id_ for part in parts for id_ in part.ids]
    places = [(part.shard.name, row) for part in parts for row in range(len(part.references))]
    groups = {name: [key for part in parts for key in part.groups[name]] for name in references[0].groups}
    reasons = Counter((status[row], kinds[row]) for row, text in enumerate(texts) if text is not None)

    def of_chosen(values: Sequence[Any]) -> list[Any]:
        return [values[row] for row in chosen]

    columns = (texts, hypotheses, scores, vectors or [None] * len(texts))
    return EvaluatedRows(
        counts=_counts(references, failed, reasons),
        labelled=LabelledRows(*map(of_chosen, columns)),
        columns=Columns(seconds, groups).of(np.array(chosen, np.int64)),
        ids=of_chosen(ids),
        places=of_chosen(places),
    )


def _values(labels: pa.Table, name: str | None) -> Sequence[Any]:
    """Return the values of a column of labels; None for each row if there is no such column."""
    if name is None or not labels.num_rows:
        return [None] * labels.num_rows
    return labels.column(name).to_pylist()


def _vector_columns(labels: pa.Table) -> list[str | None]:
    return [field.name for field in labels.schema if pa.types.is_fixed_size_list(field.type)]


def _counts(
    references: Sequence[References], failed: Collection[str], reasons: Mapping[tuple[str, str], int]
) -> RowCounts:
    """Return the counts of all rows; `reasons` counts labelled rows with a reference by status and reason."""
    rows = [(part.shard.name in failed, text is not None) for part in references for text in part.references]
    return RowCounts(
        total=len(rows),
        compared=sum(number for (status, _), number in reasons.items() if status == OK),
        without_reference=sum(not has_reference for _, has_reference in rows),
        skipped=_by_kind(reasons, SKIPPED),
        errors=_by_kind(reasons, ERROR),
        uncommitted=sum(has_failed and has_reference for has_failed, has_reference in rows),
    )


def _by_kind(reasons: Mapping[tuple[str, str], int], status: str) -> dict[str, int]:
    """Return the rows of a status by reason, the most frequent first."""
    numbers = {kind: number for (row_status, kind), number in reasons.items() if row_status == status}
    return dict(sorted(numbers.items(), key=lambda item: -item[1]))
