"""Rows of an evaluation: references joined with label rows, by their places."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from raysp.columns import ERROR, OK, SKIPPED
from raysp.evaluation.evaluate.evaluation_result import RowCounts
from raysp.evaluation.evaluate.references import References
from raysp.evaluation.scores import Key, Mismatch, WorstRow
from raysp.evaluation.verification import Vector
from raysp.labelling.finished.label_columns import vectors_of


@dataclass(frozen=True)
class EvaluatedRows:
    """Rows with a reference and a label, and the counts of all rows."""

    counts: RowCounts
    references: Sequence[str]
    hypotheses: Sequence[str | None]
    """Texts or classes; None for embeddings."""
    scores: Sequence[float | None]
    """Probability of each class; None for other labels."""
    vectors: Sequence[Vector | None]
    """Embeddings; None for texts and classes."""
    seconds: Sequence[float]
    groups: dict[str, list[Key]]
    ids: Sequence[object]
    places: Sequence[tuple[str, int]]
    """Shard and row."""

    def worst(self, mismatch: Mismatch) -> WorstRow:
        """Return a mismatch with the id and the place of its row."""
        return mismatch.at(self.ids[mismatch.index], *self.places[mismatch.index], self.seconds[mismatch.index])


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
    return EvaluatedRows(
        counts=_counts(references, failed, reasons),
        references=[str(texts[row]) for row in chosen],
        hypotheses=[hypotheses[row] for row in chosen],
        scores=[scores[row] for row in chosen],
        vectors=[None if vectors is None else vectors[row] for row in chosen],
        seconds=[seconds[row] for row in chosen],
        groups={name: [values[row] for row in chosen] for name, values in groups.items()},
        ids=[ids[row] for row in chosen],
        places=[places[row] for row in chosen],
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
