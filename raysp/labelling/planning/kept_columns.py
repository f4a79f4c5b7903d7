"""Columns that a label shard carries over from its shard."""

from typing import Any

import pyarrow as pa

from raysp.corpus.shards import Piece, Shard, one_line
from raysp.corpus.sources import read_table
from raysp.corpus.widening import WITHOUT_TYPE, cast_column
from raysp.errors import ShardError
from raysp.specs.pipeline import Pipeline


def read_source_columns(pipeline: Pipeline, shard: Shard, piece: Piece, carried: pa.Schema | None = None) -> pa.Table:
    """Read the columns that a label shard carries over: `id`, then the kept columns, with the source's values.

    Args:
        pipeline: the pipeline.
        shard: the shard.
        piece: the piece of it.
        carried: types of the columns in the sink; the others keep the type that they have in the shard, or are strings
            where the shard has no values.

    Raises:
        ShardError: the shard is damaged or changed, or a value does not fit the type of its column.
    """
    source = pipeline.source
    columns = [*([source.id] if source.id else []), *pipeline.kept]
    table = read_table(shard, piece, list(dict.fromkeys(columns)), source.storage_options) if columns else None
    if source.id and table is not None:
        ids = table.column(source.id)
    else:
        stem = shard.name.removesuffix(".parquet")
        ids = pa.chunked_array([pa.array([f"{stem}:{row}" for row in range(piece.first, piece.end)], pa.string())])
    kept = {name: table.column(name) for name in pipeline.kept} if table is not None else {}
    columns_by_name = {"id": ids, **kept}
    known = {field.name: field.type for field in carried or ()}
    for name, column in columns_by_name.items():
        kind = known.get(name, WITHOUT_TYPE if pa.types.is_null(column.type) else column.type)
        columns_by_name[name] = _cast(shard, column, name, kind)
    return pa.table(columns_by_name)


def _cast(shard: Shard, column: "pa.ChunkedArray[Any]", name: str, kind: pa.DataType) -> "pa.ChunkedArray[Any]":
    try:
        return cast_column(column, kind)
    except pa.ArrowException as error:
        raise ShardError(
            f"{shard.url}: column {name!r} is {column.type}, and the label shards of the sink hold {kind}: "
            f"{one_line(error)}. Write the shard again with that type"
        ) from error
