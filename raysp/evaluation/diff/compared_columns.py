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
        (Cursor(side.tables(side.shards[name], [*names])), Cursor(side.left_out(side.shards[name], [*names])))
        for side, names in zip((a, b), columns, strict=True)
    )
    for table, end in stretches(labels_a, rest_a, 0, a.shards[name].num_rows):
        yield table, side_by_side(labels_b.until(end), rest_b.until(end))


def _holds_vectors(kind: pa.DataType) -> bool:
    """Return whether a column has vectors: of a row, a frame or a layer."""
    while pa.types.is_list(kind) or (pa.types.is_fixed_size_list(kind) and pa.types.is_nested(kind.value_type)):
        kind = kind.value_type
    return pa.types.is_fixed_size_list(kind) and pa.types.is_floating(kind.value_type)


def columns_to_compare(a: Labelling, b: Labelling, column: str | None) -> tuple[list[Compared], dict[str, str]]:
    """Return the comparable columns of both labellings, and the other columns with the reason.

    Raises:
        PlanError: there is no such column, or `column` is not among them.
    """
    not_compared: dict[str, str] = {}
    compared: list[Compared] = []
    for name in dict.fromkeys([*a.outputs, *b.outputs]):
        if reason := _complaint(a, b, name):
            not_compared[name] = reason
        else:
            kind = kind_of(a.schema, name)
            compared.append(Compared(name, kind, f"{name}{SCORES_SUFFIX}" if kind == "class" else None))
    if column is not None:
        return [_chosen(column, compared, not_compared, f"{a.url} and {b.url}")], {}
    if not compared:
        raise PlanError(
            f"{a.url} and {b.url}: no output column but vectors is in both: found {_listed(a.outputs)} and "
            f"{_listed(b.outputs)}; compare labellings with the same outputs"
        )
    return compared, not_compared


def _complaint(a: Labelling, b: Labelling, name: str) -> str | None:
    """Return the reason why a column cannot be compared; None if it can."""
    for side, other in (("A", b), ("B", a)):
        if name not in other.outputs:
            return f"only in {side}"
    types = [labelling.schema.field(name).type for labelling in (a, b)]
    if any(_holds_vectors(kind) for kind in types):
        return "vectors"
    is_same = kind_of(a.schema, name) == kind_of(b.schema, name)
    return None if is_same else f"{types[0]} in A, {types[1]} in B"


def _chosen(column: str, compared: Sequence[Compared], not_compared: Mapping[str, str], where: str) -> Compared:
    for candidate in compared:
        if candidate.name == column:
            return candidate
    reason = f"cannot be compared: {not_compared[column]}" if column in not_compared else "is in neither"
    names = _listed([candidate.name for candidate in compared])
    raise PlanError(f"{where}: the output column {column!r} {reason}; both have {names}")


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names) or "no output columns"


def source_of_group(a: Labelling, b: Labelling, column: str) -> Labelling:
    """Return the labelling whose label shards hold a column by which rows are grouped: A if both do.

    Raises:
        PlanError: neither has it, or it holds no single values.
    """
    for labelling in (a, b):
        if column in labelling.schema.names:
            for complaint in complaints_of_groups(labelling.schema, column):
                raise PlanError(f"{labelling.url}: {complaint}")
            return labelling
    names = ", ".join(dict.fromkeys([*a.schema.names, *b.schema.names, SECONDS]))
    raise PlanError(
        f"{a.url} and {b.url}: neither has a column {column!r}; their columns are {names}. Columns of the source are "
        "there if the pipeline names them in Parquet(keep=[...])"
    )


def reference_column(a: Labelling, b: Labelling) -> tuple[Labelling, str] | None:
    """Return the column of reference texts, and the labelling to read it from; None if they have none in common."""
    sides = [side for side in (a, b) if side.reference in side.schema.names]
    names = {side.reference for side in sides}
    if len(names) != 1 or not holds_text(sides[0].schema.field(str(sides[0].reference)).type):
        return None
    return sides[0], str(sides[0].reference)
