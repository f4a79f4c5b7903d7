"""Comparison of two labellings of a corpus, shard by shard: no audio is read, and no Ray started."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from raysp.columns import OK
from raysp.errors import refuse_unused
from raysp.evaluation.diff.column_comparison import Both, Comparer, comparer
from raysp.evaluation.diff.compared_columns import (
    Compared,
    columns_to_compare,
    reference_column,
    rows_of_both,
    source_of_group,
)
from raysp.evaluation.diff.diff_result import ColumnDifference, LabelDiff, RowMatch, Side
from raysp.evaluation.intervals import Intervals
from raysp.evaluation.limits import Limit, limits_of
from raysp.evaluation.scores import HIGHER_IS_BETTER, SECONDS, Columns, Key
from raysp.labelling.finished.finished_labels import Labelling
from raysp.labelling.finished.label_columns import keys_of
from raysp.labelling.finished.labellings import match, open_all
from raysp.sink.receipts import texts_of
from raysp.specs.pipeline import Parquet
from raysp.specs.text_rules import Text, normalisation_of
from raysp.storage.options import GivenOptions
from raysp.text.error_rates import DEFAULT, Normalised

METRICS = ("wer", "cer", "agreement", "wer_change", "cer_change")
"""Metrics that limits are for."""


def diff(
    a: str | Parquet,
    b: str | Parquet,
    storage_options: GivenOptions | None = None,
    *,
    column: str | None = None,
    by: Sequence[str] = (),
    over: str | None = None,
    normalise: str | Text | None = None,
    fail_above: Mapping[str, float] | None = None,
    fail_below: Mapping[str, float] | None = None,
    worst: int = 10,
    trust: bool = False,
) -> LabelDiff:
    """Compare two labellings of a corpus, A and B, row by row. Only the two sinks are read.

    Rows are matched by the name of their shard and their number in it. Shards that only one sink has, that are not
    finished in both, or that were made from other input are listed and not compared. Output columns are compared for
    the rows that are ok in both. If the label shards hold the reference texts, the error rates of A and B against them
    are computed too, and their difference with the interval of a paired bootstrap.

    Args:
        a: url of a sink; or a `Parquet`, for its storage options.
        b: the same for the other sink.
        storage_options: options to reach the sinks without options of their own; None: with `trust` the recorded ones
            of each.
        column: output column to compare; None: all that both have.
        by: columns of the label shards; the metrics are also computed for the rows of each of their values. "seconds"
            stands for bands of duration, which are always computed.
        over: column of the units of the bootstrap, such as speakers; None: rows are drawn.
        normalise: "none", "lower", "letters" (default), "whisper-english" or "whisper-basic"; or rules. Refused if no
            texts are compared.
        fail_above: limits of `wer`, `cer`, `wer_change` and `cer_change`; if one is exceeded, `exit_code` is 1.
        fail_below: limits of `agreement`.
        worst: number of rows to list, the largest differences first.
        trust: use the recorded storage options.

    Raises:
        SpecError: an argument is invalid for any data.
        PlanError: one is not a sink of labels, both are the same, or they have no finished shard, or no such column, in
            common.
        StoreError: a label shard cannot be read.
    """
    normalised = normalisation_of(DEFAULT if normalise is None else normalise)
    limits = limits_of(fail_above, fail_below, METRICS)
    first, second = open_all((a, b), storage_options, trust=trust)
    shards = match(first, second)
    compared, not_compared = columns_to_compare(first, second, column)
    has_texts = any(output.kind == "text" for output in compared)
    if not has_texts:
        names = ", ".join(output.name for output in compared)
        refuse_unused({"normalise": normalise}, f"it normalises texts, and {names} holds none; leave it out")
    reading = _Reading(first, second, compared, [name for name in by if name != SECONDS], over)
    reference = reading.reference[1] if reading.reference else None
    comparers = [comparer(output, normalised, worst, reference) for output in compared]
    for name in shards.compared:
        reading.add(name, comparers)
    differences = tuple(comparison.result(reading.columns()) for comparison in comparers)
    return LabelDiff(
        a=_side(first),
        b=_side(second),
        shards=shards,
        rows=reading.counts.match(),
        seconds=sum(reading.seconds),
        columns=differences,
        not_compared=not_compared,
        normalisation=Normalised(normalised.name, normalised.description) if has_texts else None,
        intervals=Intervals(over),
        limits=tuple(_limit(limit, differences) for limit in limits),
    )


@dataclass
class _Counts:
    """Rows by their outcome in both labellings."""

    total: int = 0
    common: int = 0
    by_outcome: Counter[tuple[str | None, str | None]] = field(default_factory=Counter)
    """Rows by the error types in A and B; None: ok."""

    def match(self) -> RowMatch:
        """Return the counts."""
        outcomes = self.by_outcome.most_common()
        return RowMatch(
            total=self.total,
            compared=self.by_outcome[None, None],
            only_a={b: rows for (a, b), rows in outcomes if a is None and b is not None},
            only_b={a: rows for (a, b), rows in outcomes if a is not None and b is None},
            neither=sum(rows for (a, b), rows in outcomes if a is not None and b is not None),
            absent=self.total - self.common,
        )


class _Reading:
    """Rows of both sinks as they are read, with the columns of all that are compared."""

    def __init__(
        self, a: Labelling, b: Labelling, compared: Sequence[Compared], by: Sequence[str], over: str | None
    ) -> None:
        self._sides = (a, b)
        self._by, self._over = by, over
        self._groups = {name: source_of_group(a, b, name) for name in [*by, *([over] if over else [])]}
        has_texts = any(column.kind == "text" for column in compared)
        self.reference = reference_column(a, b) if has_texts else None
        self._names = self._columns_of(a, compared), self._columns_of(b, compared)
        self._group_values: dict[str, list[Key]] = {name: [] for name in self._groups}
        self._distinct: dict[Key, Key] = {}
        self.seconds: list[float] = []
        self.counts = _Counts()

    def _columns_of(self, side: Labelling, compared: Sequence[Compared]) -> list[str]:
        names = ["id", "row", "seconds", "status", "error_type", *(column.name for column in compared)]
        names += [column.scores for column in compared if column.scores is not None]
        names += [name for name, holder in self._groups.items() if holder is side]
        names += [name for holder, name in [self.reference or (None, "")] if holder is side]
        return list(dict.fromkeys(names))

    def add(self, shard: str, comparers: Sequence[Comparer]) -> None:
        """Compare the rows of a shard."""
        a, b = self._sides
        self.counts.total += a.shards[shard].num_rows
        for tables in rows_of_both(a, b, shard, self._names):
            ours, theirs = self._ok_in_both(*_same_rows(*tables))
            if not ours.num_rows:
                continue
            sides = {id(a): ours, id(b): theirs}
            for name, holder in self._groups.items():
                keys = keys_of(sides[id(holder)].column(name))
                self._group_values[name] += [self._distinct.setdefault(key, key) for key in keys]
            self.seconds += [seconds or 0.0 for seconds in ours.column("seconds").to_pylist()]
            references = None
            if self.reference:
                holder, name = self.reference
                references = texts_of(sides[id(holder)].column(name))
            for comparison in comparers:
                comparison.add(Both(shard, ours, theirs, references))

    def _ok_in_both(self, a: pa.Table, b: pa.Table) -> tuple[pa.Table, pa.Table]:
        """Return the rows that are ok in both tables, and count all."""
        ours, theirs = _outcomes(a), _outcomes(b)
        self.counts.common += a.num_rows
        self.counts.by_outcome.update(zip(ours, theirs, strict=True))
        is_ok = pa.array([pair == (None, None) for pair in zip(ours, theirs, strict=True)], pa.bool_())
        return a.filter(is_ok), b.filter(is_ok)

    def columns(self) -> Columns:
        """Return the columns of the compared rows."""
        by = {name: self._group_values[name] for name in self._by}
        return Columns(self.seconds, by, self._group_values[self._over] if self._over else None)


def _same_rows(a: pa.Table, b: pa.Table) -> tuple[pa.Table, pa.Table]:
    """Return the rows with the same numbers; a left-out row whose file was removed is in one of them only."""
    ours, theirs = (table.column("row").to_numpy() for table in (a, b))
    if np.array_equal(ours, theirs):
        return a, b
    _, places, places_b = np.intersect1d(ours, theirs, return_indices=True)
    return a.unify_dictionaries().take(places), b.unify_dictionaries().take(places_b)


def _outcomes(table: pa.Table) -> list[str | None]:
    """Return None for rows that are ok, else their error type, or their reason of skipping."""
    pairs = zip(table.column("status").to_pylist(), table.column("error_type").to_pylist(), strict=True)
    return [None if status == OK else str(kind or status) for status, kind in pairs]


def _side(labelling: Labelling) -> Side:
    return Side(labelling.url, labelling.record.fingerprint, labelling.checkpoint, labelling.record.checkpoint_digest)


def _limit(limit: Limit, differences: Sequence[ColumnDifference]) -> Limit:
    """Return a limit compared with the worst value of a metric in all columns that have it."""
    # Columns of numbers do not count: two checkpoints always differ in them.
    columns = [column for column in differences if column.kind != "number"]
    scores = [column.scores for column in columns] + [column.against.scores for column in columns if column.against]
    values = [scores_.metrics[limit.metric].value for scores_ in scores if limit.metric in scores_.metrics]
    defined = [value for value in values if value is not None]
    worst = min if HIGHER_IS_BETTER[limit.metric] else max
    return limit.compared(worst(defined, default=None))
