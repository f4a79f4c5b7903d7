"""Rows of an evaluation: references joined with label rows, by their places."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import pyarrow as pa

from raysp.columns import ERROR, OK, SKIPPED
from raysp.evaluation.evaluate.evaluation_result import RowCounts
from raysp.evaluation.evaluate.references import References
from raysp.evaluation.scores import Key, Mismatch, WorstRow
from raysp.evaluation.verification import Vector


@dataclass(frozen=True)
class EvaluatedRows:
    """Rows with a reference and a label, and the counts of the others."""

    counts: RowCounts
    references: Sequence[str]
    hypotheses: Sequence[str | None]
    """Texts or classes; None for embeddings."""
    scores: Sequence[float | None]
    """Probability of each class; None for others."""
    vectors: Sequence[Vector | None]
    """Embeddings; None for texts and classes."""
    seconds: Sequence[float]
    others: dict[str, list[Key]]
    ids: Sequence[object]
    places: Sequence[tuple[str, int]]
    """Shard and row."""

    def worst(self, found: Mismatch) -> WorstRow:
        """Return a mismatch with the id and the place of its row."""
        return found.at(self.ids[found.index], *self.places[found.index], self.seconds[found.index])


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
    shards = [one for one in references if one.shard.name not in failed]
    given = [text for one in shards for text in one.references]
    if labels.num_rows != len(given):
        raise ValueError(f"found {labels.num_rows} label rows for {len(given)} rows")
    first, second = (*outputs, None)[:2]
    vectors = _vectors(labels, first)
    status, kinds, seconds, hypotheses, scores = (
        _values(labels, name)
        for name in ("status", "error_type", "seconds", first if vectors is None else None, second)
    )
    chosen = [row for row, text in enumerate(given) if text is not None and status[row] == OK]
    ids = [one for shard in shards for one in shard.ids]
    places = [(shard.shard.name, row) for shard in shards for row in range(len(shard.references))]
    others = {name: [one for shard in shards for one in shard.others[name]] for name in references[0].others}
    reasons = Counter((status[row], kinds[row]) for row, text in enumerate(given) if text is not None)
    return EvaluatedRows(
        counts=_counts(references, failed, reasons),
        references=[str(given[row]) for row in chosen],
        hypotheses=[hypotheses[row] for row in chosen],
        scores=[scores[row] for row in chosen],
        vectors=[None if vectors is None else vectors[row] for row in chosen],
        seconds=[seconds[row] for row in chosen],
        others={name: [values[row] for row in chosen] for name, values in others.items()},
        ids=[ids[row] for row in chosen],
        places=[places[row] for row in chosen],
    )


def _values(labels: pa.Table, name: str | None) -> Sequence[Any]:
    """Return the values of a column of labels; None for each row if there is no such column."""
    if name is None or not labels.num_rows:
        return [None] * labels.num_rows
    return labels.column(name).to_pylist()


def _vectors(labels: pa.Table, name: str | None) -> Sequence[Vector | None] | None:
    """Return the vectors of a column of labels, each a part of one array; None if it holds texts or classes."""
    if name not in labels.column_names or not pa.types.is_fixed_size_list(labels.schema.field(name).type):
        return None
    column = cast("pa.FixedSizeListArray[Any, Any]", labels.column(name).combine_chunks())
    numbers = column.flatten().to_numpy(zero_copy_only=False)  # without those of null rows
    found = iter(numbers.reshape(-1, column.type.list_size))
    return [next(found) if is_valid else None for is_valid in column.is_valid().to_pylist()]


def _counts(
    references: Sequence[References], failed: Collection[str], reasons: Mapping[tuple[str, str], int]
) -> RowCounts:
    """Return the counts of all rows, from those of labelled rows with a reference by status and reason."""
    given = [(one.shard.name in failed, text is not None) for one in references for text in one.references]
    return RowCounts(
        total=len(given),
        compared=sum(number for (status, _), number in reasons.items() if status == OK),
        without_reference=sum(not has_reference for _, has_reference in given),
        skipped=_by_kind(reasons, SKIPPED),
        errors=_by_kind(reasons, ERROR),
        uncommitted=sum(has_failed and has_reference for has_failed, has_reference in given),
    )


def _by_kind(reasons: Mapping[tuple[str, str], int], status: str) -> dict[str, int]:
    """Return the rows of a status by reason, the most frequent first."""
    found = {kind: number for (one, kind), number in reasons.items() if one == status}
    return dict(sorted(found.items(), key=lambda item: -item[1]))
