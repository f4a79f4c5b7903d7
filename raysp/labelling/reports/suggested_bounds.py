"""Suggested bounds of columns of numbers: what a `Keep` by quantiles of a finished sink keeps, by group."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import isfinite
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from raysp.columns import OK, SECONDS, STATUS
from raysp.errors import PlanError, SpecError, about
from raysp.labelling.finished.finished_labels import Labelling
from raysp.labelling.finished.number_columns import check_numbers, numbers_in
from raysp.labelling.planning.trust import open_recorded
from raysp.labelling.reports.quantile_bins import QuantileBins
from raysp.ops.step_ops import column_of
from raysp.specs.pipeline import Pipeline
from raysp.storage.options import GivenOptions
from raysp.storage.store import Store
from raysp.words import Brief
from raysp.work import SinkRequest

QUANTILES = (0.01, 0.05, 0.1, 0.25)
MOST_GROUPS = 1000
LOWER, UPPER = ">=", "<="
HIGH_IS_GOOD = frozenset(
    {"score", "snr", "bandwidth", "speech_share", "script_share", "unique_words", "signal", "background", "overall"}
)
LOW_IS_GOOD = frozenset(
    {"noise", "clipped", "wer", "cer", "edits", "repetition", "repeats", "compression", "no_speech", "unread"}
    | {"unread_share", "longest_word", "longest_ratio", "phrases"}
)
_LIMITS = {LOWER: "min_seconds", UPPER: "max_seconds"}
GroupValue = str | int | bool | None
Condition = tuple[str, str, float | int | str | bool]


@dataclass(frozen=True)
class Bounds:
    """Bounds of a column that leave out a share of the rows of a group, at most."""

    column: str
    group: GroupValue
    """Value of the column of groups; None: all rows, or those of its null."""
    quantile: float
    """Share of the rows with a value that is left out, at most."""
    where: tuple[Condition, ...]
    """Conditions for `Keep`, with the condition of the group; empty if none can be stated."""
    rows: int
    """Rows that meet them."""
    seconds: float
    of_rows: int
    """All rows of the group that are ok."""
    of_seconds: float

    @property
    def keep(self) -> str:
        """Step of a pipeline; empty without conditions."""
        limits = {_LIMITS[compare]: value for name, compare, value in self.where if name == SECONDS}
        conditions = [condition for condition in self.where if condition[0] != SECONDS]
        fields = {**limits, **({"where": conditions} if conditions else {})}
        return f"raysp.Keep({', '.join(f'{name}={value!r}' for name, value in fields.items())})" if fields else ""


@dataclass(frozen=True, repr=False)
class Suggestion(Brief):
    """Bounds of columns, by quantiles and groups."""

    sink: str
    bounds: tuple[Bounds, ...]


def suggest(
    sink: str | Store,
    columns: Sequence[str],
    *,
    quantiles: Sequence[float] | None = None,
    group: str | None = None,
    storage_options: GivenOptions | None = None,
    pipeline: Pipeline | None = None,
    trust: bool = False,
) -> Suggestion:
    """Return bounds of columns of numbers by the quantiles of a sink, with the rows and hours that each keeps.

    Rows that are ok in finished shards count. The columns are read once; memory does not grow with the rows. A bound
    has four significant digits, is at most 1/1000 of its amount from the exact quantile (type 1 of Hyndman and Fan
    1996) on the side that keeps more, and what it keeps is counted exactly. Null meets no condition.

    A bound is a lower one where high values are good (scores, `snr`), an upper one where low values are good (`noise`,
    `wer`). Other columns have both, each with half of the share.

    Args:
        sink: url or store of the sink.
        columns: columns of numbers; a field of a struct after a dot.
        quantiles: shares of the rows with a value that are left out, at most; None: 0.01, 0.05, 0.1 and 0.25.
        group: column of texts, integers or booleans; each of its values has bounds of its own.
        storage_options: options to reach the sink; None: options of `pipeline`, or with `trust` the recorded ones.
        pipeline: pipeline that made the labels; only its storage options are used.
        trust: use the recorded storage options.

    Raises:
        SpecError: no column is given, or a quantile is not between 0 and 1.
        PlanError: there is no sink of labels, or no such column; or `group` has more than 1,000 values.
        StoreError: a label shard cannot be read.
    """
    if not columns:
        raise SpecError("suggest: no column is given; expected columns of numbers, such as pred_score")
    quantiles = QUANTILES if quantiles is None else quantiles
    if wrong := [quantile for quantile in quantiles if not 0 < quantile < 1]:
        raise SpecError(f"quantile: found {wrong[0]!r}, expected a number between 0 and 1")
    labelling = Labelling.of(*open_recorded(SinkRequest(sink, storage_options, pipeline, trust)))
    if not labelling.done:
        raise PlanError(f"{labelling.url}: no shard is finished, so there are no values; finish its run")
    columns = tuple(dict.fromkeys(columns))
    for column in columns:
        check_numbers(labelling.url, labelling.schema, "suggest", column)
    if group is not None:
        _groups_of(labelling.schema.empty_table(), group, labelling.url)
    groups = _read(labelling, columns, group)
    bounds = (
        values.bounds(column, value, quantile, group)
        for column in columns
        for value, values in sorted(groups.items(), key=lambda item: (item[0] is None, str(item[0])))
        for quantile in quantiles
    )
    return Suggestion(labelling.url, tuple(bounds))


class _Group:
    """Values of the rows of a group."""

    def __init__(self) -> None:
        self.rows, self.seconds = 0, 0.0
        self._bins: defaultdict[tuple[str, str], QuantileBins] = defaultdict(QuantileBins)

    def add(self, table: pa.Table, columns: Sequence[str]) -> None:
        """Add label rows."""
        seconds = np.nan_to_num(numbers_in(table.column(SECONDS)))
        self.rows, self.seconds = self.rows + len(seconds), self.seconds + float(seconds.sum())
        for column in columns:
            values = numbers_in(column_of(table, column))
            has_value = ~np.isnan(values)
            for side in _sides(column):
                signed = values[has_value] if side == LOWER else -values[has_value]
                self._bins[column, side].add(signed, seconds[has_value])

    def bounds(self, column: str, value: GroupValue, quantile: float, group: str | None) -> Bounds:
        """Return the bounds of a column; without values no row is kept."""
        sides = _sides(column)
        bins = [self._bins[column, side] for side in sides]
        number, weight = bins[0].number, bins[0].weight
        kept = [of_side.quantile(Fraction(str(quantile)) / len(sides)) for of_side in bins] if number else []
        where: list[Condition] = [] if group is None or value is None else [(group, "==", value)]
        for side, (bound, _, _) in zip(sides, kept, strict=False):
            where.append((column, side, bound + 0.0 if side == LOWER else 0.0 - bound))  # 0.0 for -0.0
        is_stated = number and all(isfinite(bound) for bound, _, _ in kept) and (value is None) == (group is None)
        return Bounds(
            column=column,
            group=value,
            quantile=quantile,
            where=tuple(where) if is_stated else (),
            rows=number - sum(number - of_side.number for of_side in kept),
            seconds=weight - sum(weight - of_side.weight for of_side in kept),
            of_rows=self.rows,
            of_seconds=self.seconds,
        )


def _sides(column: str) -> tuple[str, ...]:
    """Return the comparisons of a column that keep good rows, by the last word of its name."""
    name = column.rpartition(".")[2]
    if name in HIGH_IS_GOOD or name.endswith("_score"):
        return (LOWER,)
    return (UPPER,) if name in LOW_IS_GOOD else (LOWER, UPPER)


def _read(labelling: Labelling, columns: Sequence[str], group: str | None) -> dict[GroupValue, _Group]:
    """Return the values of the rows that are ok, by group."""
    groups: defaultdict[GroupValue, _Group] = defaultdict(_Group)
    for table in _tables(labelling, [*columns, *([group] if group else [])]):
        ok = table.filter(pc.equal(table.column(STATUS), pa.scalar(OK)))
        if group is None:
            groups[None].add(ok, columns)
            continue
        values = _groups_of(ok, group, labelling.url)
        for value in pc.unique(values).to_pylist():
            is_of = pc.is_null(values) if value is None else pc.equal(values, pa.scalar(value, values.type))
            groups[value].add(ok.filter(is_of), columns)
        if len(groups) > MOST_GROUPS:
            raise PlanError(
                f"{labelling.url}: group={group!r} has more than {MOST_GROUPS:,} values, the largest number allowed; "
                "group by another column"
            )
    return groups


def _tables(labelling: Labelling, columns: Sequence[str]) -> Iterator[pa.Table]:
    names = labelling.schema.names
    read = [STATUS, SECONDS, *(name if name in names else name.partition(".")[0] for name in columns)]
    for shard in labelling.finished_shards:
        yield from labelling.tables(shard, [*dict.fromkeys(read)])


def _groups_of(table: pa.Table, group: str, url: str) -> "pa.ChunkedArray[Any]":
    with about(f"{url}: group={group!r}", PlanError, ValueError):
        values = column_of(table, group)
    kind = values.type.value_type if isinstance(values.type, pa.DictionaryType) else values.type
    types = pa.types
    if not any(fits(kind) for fits in (types.is_string, types.is_large_string, types.is_integer, types.is_boolean)):
        raise PlanError(f"{url}: group={group!r}: found {kind}, expected texts, integers or booleans")
    return values.cast(kind)
