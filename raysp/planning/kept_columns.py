"""Columns that a label shard carries over from its shard."""

import pyarrow as pa

from raysp.corpus.shards import Piece, Shard
from raysp.corpus.sources import read_table
from raysp.sink.word_errors import TextColumns
from raysp.specs.pipeline import Pipeline


def read_source_columns(pipeline: Pipeline, shard: Shard, piece: Piece) -> pa.Table:
    """Read the columns that a label shard carries over: `id`, then the kept columns, with the source's values."""
    source = pipeline.source
    columns = [*([source.id] if source.id else []), *pipeline.kept]
    table = read_table(shard, piece, list(dict.fromkeys(columns)), source.storage_options) if columns else None
    if source.id and table is not None:
        ids = table.column(source.id)
    else:
        stem = shard.name.removesuffix(".parquet")
        ids = pa.chunked_array([pa.array([f"{stem}:{row}" for row in range(piece.first, piece.end)], pa.string())])
    kept = {name: table.column(name) for name in pipeline.kept} if table is not None else {}
    return pa.table({"id": ids, **kept})


def text_columns(pipeline: Pipeline) -> TextColumns | None:
    """Return the columns of the reference and of the first transcript; None if either is missing."""
    reference = pipeline.source.text
    transcript = next((output.text_column for output in pipeline.label.outputs if output.text_column), None)
    return TextColumns(reference, transcript) if reference and transcript else None
