"""Error rows of committed shards, done once more: which they are, and how their results take their place.

Results of a retry are staged under a name of their own, made of the label shard that is retried: so leftovers of the
first labelling are never taken for them, and an interrupted retry goes on only while that label shard is still there.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from raysp.errors import ChangedError, PlanError
from raysp.io.shards import Shard
from raysp.io.store import Store, open_store
from raysp.pipeline import Pipeline, file_parts
from raysp.planning import Corpus, Plan, Resources, Retry, Todo, hash_pipeline, settle
from raysp.sink import commit, failing, footer, layout, plan_record, run_record, stage
from raysp.sink.commit import RESULT_SCHEMA, LabelShard
from raysp.sink.label_rows import Cursor, in_order, read_labels, read_rest, side_by_side
from raysp.sink.opening import unstaged
from raysp.sink.receipts import ShardReceipt
from raysp.specs import from_json


def recorded_pipeline(url: str, storage_options: Mapping[str, object] | None = None) -> Pipeline:
    """Make the pipeline again that a sink was labelled by, with the sink where it is now.

    Raises:
        PlanError: there is no sink at the place.
        SpecError: a step or function of it cannot be imported here.
    """
    store = open_store(url, storage_options)
    record = run_record.load(store)
    if record is None:
        raise PlanError(f"{store.url}: no sink of raysp (it has no {layout.RUN}); give the folder that a run wrote to")
    pipeline = from_json(record.pipeline)
    if not isinstance(pipeline, Pipeline):
        raise PlanError(f"{store.url}/{layout.RUN}: holds a {type(pipeline).__name__}, expected a Pipeline")
    options = pipeline.sink.storage_options if storage_options is None else storage_options
    return replace(pipeline, sink=replace(pipeline.sink, url=url, storage_options=options))


def plan_retry(pipeline: Pipeline, resources: Resources) -> Plan:
    """Plan to do the error rows of all committed shards again; the source is not listed.

    Raises:
        PlanError, ChangedError: the pipeline does not fit the resources, or is not the one that made the labels.
        CheckpointError: the checkpoint cannot be run.
    """
    store = open_store(pipeline.sink.url, pipeline.sink.storage_options)
    settings = settle(pipeline, resources)
    parts, fingerprint = hash_pipeline(pipeline, settings)
    record = run_record.load(store)
    if record is not None:
        files = file_parts(pipeline)
        run_record.check_same(store.url, record, fingerprint=fingerprint, parts=parts, file_parts=files)
    shards = plan_record.load(store)
    todo = tuple(find_error_rows(store, shards, fingerprint))
    corpus = Corpus(tuple(one.shard for one in todo))
    return Plan(pipeline, settings, parts, fingerprint, corpus, frozenset(), todo, resources)


def find_error_rows(store: Store, shards: Sequence[Shard], fingerprint: str) -> Iterator[Todo]:
    """Find the error rows of all label shards of this very input and pipeline, and what of them is not staged yet."""

    def find(shard: Shard) -> Retry | None:
        try:
            found = footer.read_expected(store, shard, fingerprint) if store.stat(shard.name) else None
        except ChangedError:
            return None
        return _retry(store, shard, fingerprint) if found and found.error else None

    retries = {shard: retry for shard, retry in zip(shards, commit.for_each(find, shards), strict=True) if retry}
    wanted = {shard.name: (shard.input_id, retry.stage_id) for shard, retry in retries.items()}
    staged = stage.staged_as(store, wanted)
    for shard, retry in retries.items():
        pieces = unstaged(shard, staged.get(shard.name, {}))
        yield Todo(shard, tuple(piece for piece in pieces if retry.of(piece)), retry)


def recommit(
    store: Store,
    shard: Shard,
    retry: Retry,
    *,
    fingerprint: str,
    source_columns: commit.SourceColumns,
    output_schema: pa.Schema,
    rows: commit.Rows = "all",
    compression: commit.Compression = "zstd",
    metadata: Mapping[str, str] | None = None,
    join: stage.Join | None = None,
    file_id: str = "",
) -> ShardReceipt:
    """Put the staged results of retried rows in their places; all other rows stay as they are, value for value.

    Arguments are those of `commit.commit`.

    Raises:
        RunError: the label shard is no longer the one that was to be retried, or results are missing.
    """
    label_shard = LabelShard(
        shard,
        fingerprint,
        source_columns,
        output_schema,
        rows,
        compression,
        metadata or {},
        join,
        file_id,
        replace=True,
    )
    if stage_id(store, shard.name, fingerprint) != retry.stage_id:
        # As a rule it is this very commit that was tried twice; if not, the rest is for the next retry.
        receipt = footer.read_expected(store, shard, fingerprint)
    else:
        written = commit.write(store, label_shard, _merged(store, label_shard, retry))
        receipt = written or footer.read_expected(store, shard, fingerprint)
    with failing.passing("stage_removed"):
        stage.remove(store, shard.name, (shard.input_id, retry.stage_id))
    return receipt


def stage_id(store: Store, shard: str, fingerprint: str) -> str:
    """Hash which label shard is retried."""
    entry = store.stat(shard)
    known = (entry.num_bytes, entry.version) if entry else None
    return hashlib.sha256(f"retry\0{fingerprint}\0{known}".encode()).hexdigest()[:16]


def _retry(store: Store, shard: Shard, fingerprint: str) -> Retry | None:
    """Name the rows that are neither labelled nor skipped, in the label shard or beside it."""
    known = stage_id(store, shard.name, fingerprint)
    settled = np.zeros(shard.num_rows, bool)
    for table in chain(read_labels(store, shard, ["row", "status"]), read_rest(store, shard)):
        fine = pc.not_equal(table.column("status"), pa.scalar("error"))
        settled[table.column("row").filter(fine).to_numpy()] = True
    rows = tuple(np.flatnonzero(~settled).tolist())
    return Retry(known, rows) if rows else None


def _merged(store: Store, label_shard: LabelShard, retry: Retry) -> Iterator[pa.Table]:
    """Yield the label shard's rows in their order, with the new results in their places."""
    shard = label_shard.shard
    labels = Cursor(read_labels(store, shard))
    rest = Cursor(read_rest(store, shard))
    for piece in shard.pieces:
        old = side_by_side(labels.until(piece.end), rest.until(piece.end))
        rows = retry.of(piece)
        if rows:
            table, order = stage.open_piece(
                store, shard.name, piece, shard.input_id, retry.stage_id, label_shard.join, rows=rows
            )
            source = commit.read_source(label_shard, piece).take([row - piece.first for row in rows])
            results = table.take(order).select([*RESULT_SCHEMA.names, *label_shard.output_schema.names])
            new = pa.Table.from_arrays([*source.columns, *results.columns], schema=old.schema)
            stays = pc.invert(pc.is_in(old.column("row"), value_set=pa.array(rows, pa.int64())))
            old = in_order(pa.concat_tables([old.filter(stays), new]))
        yield old
