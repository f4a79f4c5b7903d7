"""The two sinks of a comparison: their finished shards, which of these have the same input, and the columns of both."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import pyarrow as pa

from raysp.corpus.shards import Shard
from raysp.errors import PlanError
from raysp.evaluation.scores import SECONDS
from raysp.labelling.finished.finished_labels import Labelling, place_of_sink
from raysp.labelling.planning.references import complaints_of_groups
from raysp.labelling.planning.surveying import holds_text
from raysp.sink.label_rows import Cursor, side_by_side, stretches
from raysp.specs.pipeline import Parquet
from raysp.storage.options import GivenOptions
from raysp.words import count, listed

Kind = Literal["text", "class", "number", "value"]
"""How a column is compared: by word errors, by class, by difference, or by equality alone."""
TEXT_SUFFIX, SCORES_SUFFIX = "_text", "_scores"


@dataclass(frozen=True)
class ShardMatch:
    """Names of the shards of two sinks, by whether they can be compared."""

    compared: tuple[str, ...]
    only_a: tuple[str, ...]
    """Shards that B's plan lacks."""
    only_b: tuple[str, ...]
    other_input: tuple[str, ...]
    """Shards that were made from different files, or from different versions of a file."""
    unfinished_a: tuple[str, ...]
    unfinished_b: tuple[str, ...]
    foreign_a: Mapping[str, str]
    """Those of `unfinished_a` with a damaged or foreign file in the place of their label shard, with the reason."""
    foreign_b: Mapping[str, str]


def open_both(
    a: str | Parquet, b: str | Parquet, storage_options: GivenOptions | None, *, trust: bool
) -> tuple[Labelling, Labelling]:
    """Open two sinks.

    Raises:
        PlanError: one is not a sink of label shards, or both are the same.
    """
    first, second = (Labelling.open(place, storage_options, trust=trust) for place in (a, b))
    refuse_same_sinks([first, second])
    return first, second


def refuse_same_sinks(labellings: Sequence[Labelling]) -> None:
    """Raise PlanError if two labellings are of one sink."""
    for index, one in enumerate(labellings):
        if any(place_of_sink(one.url) == place_of_sink(other.url) for other in labellings[:index]):
            raise PlanError(f"{one.url}: found the same sink twice; give the sinks of labellings of one corpus")


def match(a: Labelling, b: Labelling) -> ShardMatch:
    """Return the shards of two sinks that can be compared.

    Raises:
        PlanError: no shard can be compared.
    """
    common = [name for name in a.shards if name in b.shards]
    other = [name for name in common if not _is_same_input(a.shards[name], b.shards[name])]
    finished = [name for name in common if name in a.done & b.done]
    found = ShardMatch(
        compared=tuple(name for name in finished if name not in other),
        only_a=tuple(name for name in a.shards if name not in b.shards),
        only_b=tuple(name for name in b.shards if name not in a.shards),
        other_input=tuple(other),
        unfinished_a=a.unfinished,
        unfinished_b=b.unfinished,
        foreign_a=a.foreign,
        foreign_b=b.foreign,
    )
    if not found.compared:
        raise PlanError(f"{a.url} and {b.url} have no finished shard in common: {_reason(a, b, found)}")
    return found


def _reason(a: Labelling, b: Labelling, found: ShardMatch) -> str:
    if found.other_input:
        name = found.other_input[0]
        return (
            f"{count(len(found.other_input), 'shard')} that both name, such as {name}, were made from other input "
            f"({_input(a.shards[name])}; {_input(b.shards[name])}); label the same files with both pipelines"
        )
    if common := a.shards.keys() & b.shards.keys():
        foreign = [reason for one in (a, b) for name, reason in one.foreign.items() if name in common]
        if foreign:
            return str(listed(foreign, 1))
        return (
            f"{count(len(found.unfinished_a), 'shard')} of the first and {len(found.unfinished_b):,} of the second are "
            "not finished; finish their runs: `raysp run` again continues them"
        )
    names = " and ".join(
        f"{count(len(one.shards), 'shard')}{f' such as {next(iter(one.shards))}' if one.shards else ''}"
        for one in (a, b)
    )
    return f"found {names}; label the same shards in both, with the same source.root"


def _input(shard: Shard) -> str:
    return f"{shard.url}, {count(shard.num_bytes, 'byte')}, version {shard.version}"


def _is_same_input(a: Shard, b: Shard) -> bool:
    """Return whether two shards were made from the same file; the input id also has the labels beside a shard."""
    same_file = (a.num_bytes, a.version, a.num_rows, a.part) == (b.num_bytes, b.version, b.num_rows, b.part)
    return same_file and (a.input_id == b.input_id or a.labels_version != b.labels_version)


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


@dataclass(frozen=True)
class Compared:
    """A column that is compared."""

    name: str
    kind: Kind
    scores: str | None = None
    """Column of the probabilities of classes."""


def kind_of(schema: pa.Schema, name: str) -> Kind:
    """Return the kind of comparison of a column, from its type, its name and the columns beside it."""
    kind = schema.field(name).type
    if holds_text(kind):
        if name.endswith(TEXT_SUFFIX):
            return "text"
        return "class" if f"{name}{SCORES_SUFFIX}" in schema.names else "value"
    return "number" if pa.types.is_integer(kind) or pa.types.is_floating(kind) else "value"


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
