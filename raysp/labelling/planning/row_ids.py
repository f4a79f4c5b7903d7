"""Ids of rows: the column "id" where the source has one, else the places of rows (docs/decisions/076)."""

from collections.abc import Collection, Sequence
from dataclasses import replace

import pyarrow as pa

from raysp.corpus import sources
from raysp.errors import ShardError, StoreError
from raysp.labelling.planning.label_shards import Found
from raysp.sink.run_record import RunRecord
from raysp.specs.pipeline import USUAL_ID, Pipeline, Shards


def with_ids(source: Shards, found: Sequence[Found], recorded: Collection[str] = ()) -> Shards:
    """Return a source whose `id` is None if it has the usual value and there is no such column.

    The first shard that can be read decides, if possible one of an earlier plan of the sink: shards that are added do
    not change the ids of a source.

    Args:
        source: the source.
        found: its shards, as listed.
        recorded: names of shards of earlier plans.
    """
    if source.id != USUAL_ID:
        return source
    schema = _first_schema(source, sorted(found, key=lambda one: one.name not in recorded))
    return source if schema is None or USUAL_ID in schema.names else replace(source, id=None)


def with_recorded_ids(pipeline: Pipeline, record: RunRecord) -> Pipeline:
    """Return a pipeline with an `id` of None if it has the usual value and the sink's labels were made without ids."""
    source = pipeline.source
    is_numbered = source.id == USUAL_ID and record.parts.get("source.id", USUAL_ID) is None
    return replace(pipeline, source=replace(source, id=None)) if is_numbered else pipeline


def _first_schema(source: Shards, found: Sequence[Found]) -> pa.Schema | None:
    """Return the columns of the first shard that can be read; None if rows have ids in any case, or no shard can."""
    for one in found:
        if one.unreadable:
            continue
        if sources.kind_named(one.kind).has_ids:
            return None
        try:
            return sources.survey(one.kind, one.url, one.part, source.storage_options, (USUAL_ID,)).schema
        except (ShardError, StoreError):
            continue  # the survey of all shards reports it
    return None
