"""Descriptions of example error rows with the id of each row. Ids are read for these rows only."""

import logging
from collections.abc import Iterable

from raysp.corpus.shards import Piece, Shard
from raysp.corpus.sources import kind_of, read_table
from raysp.errors import RayspError
from raysp.labelling.engine.run_progress import Example
from raysp.specs.pipeline import Pipeline

logger = logging.getLogger(__name__)

MOST_BYTES = 64 * 1024 * 1024
"""Largest shard whose ids are read, if its kind stores them among the recordings, as Arrow does."""


def describe(examples: Iterable[Example], shards: Iterable[Shard], pipeline: Pipeline) -> tuple[str, ...]:
    """Describe error rows by shard, row, id and reason.

    Args:
        examples: error rows of a run.
        shards: shards of the run.
        pipeline: pipeline of the run, for the id column and storage options.
    """
    listed = list(examples)
    wanted = {one.shard for one in listed}
    by_name = {shard.name: shard for shard in shards if shard.name in wanted}
    return tuple(_describe(one, by_name.get(one.shard), pipeline) for one in listed)


def _describe(one: Example, shard: Shard | None, pipeline: Pipeline) -> str:
    found = None if shard is None else _id_of(shard, one.row, pipeline)
    named = "" if found is None else f" ({found:.200})"
    return f"{one.shard} row {one.row}{named}: {one.error_type}: {one.message}"


def _id_of(shard: Shard, row: int, pipeline: Pipeline) -> str | None:
    """Return the id of a row; None if it has none or it cannot be read."""
    column = pipeline.source.id
    is_costly = not kind_of(shard).reads_columns_alone and shard.num_bytes > MOST_BYTES
    if column is None or is_costly:  # None: ids are <shard>:<row>
        return None
    try:
        ids = read_table(shard, Piece(row, row + 1), [column], pipeline.source.storage_options).column(column)
        value = ids[0].as_py() if len(ids) else None
    except (RayspError, OSError, ValueError) as error:
        logger.debug("%s row %d: its id cannot be read: %s", shard.name, row, error)
        return None
    return None if value is None else f"{column} {value!r}"
