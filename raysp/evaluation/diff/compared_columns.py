"""Columns of two labellings that are compared, and their rows side by side."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa

from raysp.errors import PlanError
from raysp.evaluation.scores import SECONDS
from raysp.labelling.finished.finished_labels import Labelling
from raysp.labelling.finished.label_columns import SCORES_SUFFIX, Kind, complaints_of_groups, kind_of
from raysp.labelling.planning.surveying import holds_text
from raysp.sink.label_rows import Cursor, side_by_side, stretches


@dataclass(frozen=True)
class Compared:
    """A column that is compared."""

    name: str
    kind: Kind
    scores: str | None = None
    """Column of the probabilities of classes."""


def rows_of_both(
    a: Labelling, b: Labelling, name: str, columns: tuple[Sequence[str], Sequence[str]]
) -> Iterator[tuple[pa.Table, pa.Table]]:
    """Yield the rows of a shard from both sinks in batches that end at the same row; rows left out are included."""
    (labels_a, rest_a), (labels_b, rest_b) = (
        (Cursor(one.tables(one.shards[name], [*names])), Cursor(one.left_out(one.shards[name], [*names])))
        for one, names in zip((a, b), columns, strict=True)
    )
    for table, end in stretches(labels_a, rest_a, 0, a.shards[name].num_rows):
        yield table, side_by_side(labels_b.until(end), rest_b.until(end))


def _holds_vectors(kind: pa.DataType) -> bool:
    """Return whether a column has vectors: of a row, a frame or a layer."""
    while pa.types.is_list(kind) or (pa.types.is_fixed_size_list(kind) and pa.types.is_nested(kind.value_type)):
        kind = kind.value_type
    return pa.types.is_fixed_size_list(kind) and pa.types.is_floating(kind.value_type)


def columns_to_compare(a: Labelling, b: Labelling, column: str | None) -> tuple[list[Compared], dict[str, str]]:
    """Return the columns that both labellings have, and the others with the reason why they are not compared.

    Raises:
        PlanError: there is no such column, or `column` is not among them.
    """
    others: dict[str, str] = {}
    found: list[Compared] = []
    for name in dict.fromkeys([*a.outputs, *b.outputs]):
        if reason := _complaint(a, b, name):
            others[name] = reason
        else:
            kind = kind_of(a.schema, name)
            found.append(Compared(name, kind, f"{name}{SCORES_SUFFIX}" if kind == "class" else None))
    if column is not None:
        return [_chosen(column, found, others, f"{a.url} and {b.url}")], {}
    if not found:
        raise PlanError(
            f"{a.url} and {b.url}: no output column but vectors is in both: found {_listed(a.outputs)} and "
            f"{_listed(b.outputs)}; compare labellings with the same outputs"
        )
    return found, others


def _complaint(a: Labelling, b: Labelling, name: str) -> str | None:
    """Return the reason why a column cannot be compared; None if it can."""
    for one, other in (("A", b), ("B", a)):
        if name not in other.outputs:
            return f"only in {one}"
    types = [one.schema.field(name).type for one in (a, b)]
    if any(_holds_vectors(kind) for kind in types):
        return "vectors"
    is_same = kind_of(a.schema, name) == kind_of(b.schema, name)
    return None if is_same else f"{types[0]} in A, {types[1]} in B"


def _chosen(column: str, found: Sequence[Compared], others: Mapping[str, str], where: str) -> Compared:
    for one in found:
        if one.name == column:
            return one
    reason = f"cannot be compared: {others[column]}" if column in others else "is in neither"
    names = _listed([one.name for one in found])
    raise PlanError(f"{where}: the output column {column!r} {reason}; both have {names}")


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names) or "no output columns"


def source_of_group(a: Labelling, b: Labelling, column: str) -> Labelling:
    """Return the labelling whose label shards hold a column by which rows are grouped: A if both do.

    Raises:
        PlanError: neither has it, or it holds no single values.
    """
    for one in (a, b):
        if column in one.schema.names:
            for complaint in complaints_of_groups(one.schema, column):
                raise PlanError(f"{one.url}: {complaint}")
            return one
    held = ", ".join(dict.fromkeys([*a.schema.names, *b.schema.names, SECONDS]))
    raise PlanError(
        f"{a.url} and {b.url}: neither has a column {column!r}; their columns are {held}. Columns of the source are "
        "there if the pipeline names them in Parquet(keep=[...])"
    )


def reference_column(a: Labelling, b: Labelling) -> tuple[Labelling, str] | None:
    """Return the column of reference texts, and the labelling to read it from; None if they have none in common."""
    held = [one for one in (a, b) if one.reference is not None and one.reference in one.schema.names]
    names = {one.reference for one in held}
    if len(names) != 1 or not holds_text(held[0].schema.field(str(held[0].reference)).type):
        return None
    return held[0], str(held[0].reference)
