"""Columns of a corpus that labels are compared with, read and checked before any row is labelled."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import pyarrow as pa

from raysp import bounds
from raysp.corpus.shards import Shard
from raysp.corpus.sources import FOLDER, kind_named, read_table
from raysp.corpus.tables import check_columns
from raysp.errors import PlanError, ShardError
from raysp.evaluation.comparing import Task
from raysp.evaluation.scores import Key
from raysp.labelling.finished.label_columns import complaints_of_groups, keys_of, references_of
from raysp.labelling.planning.surveying import as_texts, holds_text
from raysp.sink.commit import for_each
from raysp.specs.pipeline import Shards

ID = "id"
"""Column of ids of a source without `id`."""


@dataclass(frozen=True)
class ComparedColumns:
    """Columns to read.

    Attributes:
        task: the kind of the labels.
        reference: column of the references.
        groups: columns for groups of rows.
    """

    task: Task
    reference: str
    groups: tuple[str, ...] = ()


@dataclass(frozen=True)
class References:
    """Columns of a shard, one value per row."""

    shard: Shard
    ids: Sequence[object]
    references: Sequence[str | None]
    groups: dict[str, Sequence[Key]]


def read_references(source: Shards, shards: Sequence[Shard], columns: ComparedColumns) -> list[References]:
    """Read the columns of all shards.

    Raises:
        PlanError: a column is missing or of the wrong type, there is no row, or no row has a reference.
        ShardError: a shard is damaged.
    """
    references = list(for_each(lambda shard: _read(source, shard, columns), shards))
    if not any(part.references for part in references):
        raise PlanError(f"{' and '.join(source.urls)}: found no rows; give shards with rows")
    if all(text is None for part in references for text in part.references):
        raise PlanError(
            f"{' and '.join(source.urls)}: column {columns.reference!r} is null in all rows; name the column of the "
            "references"
        )
    return references


def _read(source: Shards, shard: Shard, columns: ComparedColumns) -> References:
    schema = kind_named(shard.kind).survey(shard.url, shard.part, source.storage_options).schema
    _check(source, shard, schema, columns)
    id_column = source.id or (ID if ID in schema.names else None)
    names = [name for name in (id_column, columns.reference, *columns.groups) if name is not None]
    read = partial(read_table, storage_options=source.storage_options, audio_root=source.audio_root)
    pieces = [read(shard, piece, list(dict.fromkeys(names))) for piece in shard.pieces]
    if not pieces:
        return References(shard, (), (), dict.fromkeys(columns.groups, ()))
    table = pa.concat_tables(pieces)
    stem = shard.name.removesuffix(".parquet")
    return References(
        shard,
        keys_of(table.column(id_column)) if id_column else [f"{stem}:{row}" for row in range(table.num_rows)],
        references_of(table.column(columns.reference), columns.task, _class_names(schema, columns.reference)),
        {name: keys_of(table.column(name)) for name in columns.groups},
    )


def _check(source: Shards, shard: Shard, schema: pa.Schema, columns: ComparedColumns) -> None:
    """Raise PlanError unless a shard has the columns, with fitting types if it has rows."""
    name, has_rows = columns.reference, shard.num_rows > 0
    try:
        check_columns(
            shard.url,
            schema,
            audio=source.audio,
            others=(name, *columns.groups),
            has_rows=has_rows,
            by_path=source.audio_root is not None,
        )
    except ShardError as error:
        has_none = shard.kind == FOLDER and source.text is None
        remedy = f". For texts beside recordings, add --set source.text={name}" if has_none else ""
        raise PlanError(f"{error}{remedy}") from None
    if not has_rows:
        return
    kind: Any = schema.field(name).type
    value_type = kind.value_type if isinstance(kind, pa.DictionaryType) else kind
    named = {"recognition": "reference texts", "classification": "classes", "verification": "speakers"}[columns.task]
    is_text = columns.task == "recognition"
    if not holds_text(kind) and (is_text or not (pa.types.is_integer(value_type) or pa.types.is_boolean(value_type))):
        expected = "strings" if is_text else "strings or integers"
        raise PlanError(
            f"{shard.url}: column {name!r} holds {kind}, expected {expected}; name the column of the {named}"
            f"{as_texts(shard.kind, kind)}"
        )
    for other in columns.groups:
        for complaint in complaints_of_groups(schema, other):
            raise PlanError(f"{shard.url}: {complaint}")


def _class_names(schema: pa.Schema, column: str) -> list[str] | None:
    """Return the names of the classes of a `ClassLabel` of the `datasets` library; None for other columns."""
    try:
        features = bounds.parse_record((schema.metadata or {})[b"huggingface"])["info"]["features"]
        return list(features[column]["names"]) if features[column]["_type"] == "ClassLabel" else None
    except (KeyError, TypeError, ValueError):
        return None
