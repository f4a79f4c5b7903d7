"""Rows of an evaluation: references joined with label rows, by their places."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from raysp.columns import ERROR, OK, SKIPPED
from raysp.engine.evaluating.result import RowCounts
from raysp.evaluation.scores import Key, Mismatch, WorstRow
from raysp.planning.references import References


@dataclass(frozen=True)
class EvaluatedRows:
    """Rows with a reference and a label, and the counts of the others."""

    counts: RowCounts
    references: Sequence[str]
    hypotheses: Sequence[str | None]
    scores: Sequence[float | None]
    """Probability of each class; None for texts."""
    seconds: Sequence[float]
    others: dict[str, list[Key]]
    ids: Sequence[object]
    places: Sequence[tuple[str, int]]
    """Shard and row."""

    def worst(self, found: Mismatch) -> WorstRow:
        """Return a mismatch with the id and the place of its row."""
        shard, row = self.places[found.index]
        return WorstRow(
            id=self.ids[found.index],
            shard=shard,
            row=row,
            seconds=self.seconds[found.index],
            reference=found.reference,
            hypothesis=found.hypothesis,
            errors=found.errors,
            score=found.score,
            edits=found.edits,
        )


def join(
    references: Sequence[References], labels: pa.Table, failed: Collection[str], outputs: Sequence[str]
) -> EvaluatedRows:
    """Join references with labels.

    Args:
        references: references of all shards, in order.
        labels: label rows of the shards that did not fail, in the same order.
        failed: names of the shards that failed.
        outputs: columns of hypotheses, and of their scores if there are any.
    """
    shards = [one for one in references if one.shard.name not in failed]
    given = [text for one in shards for text in one.references]
    if labels.num_rows != len(given):
        raise ValueError(f"found {labels.num_rows} label rows for {len(given)} rows")
    status, kinds, seconds, hypotheses, scores = (
        _values(labels, name) for name in ("status", "error_type", "seconds", *(*outputs, None)[:2])
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
