"""Error rows of committed shards, done once more: which they are, and how their results take their place.

Each attempt stages its results under an id of its own, so that nothing else is ever taken for them: neither leftovers
of the first labelling, nor what an attempt that was interrupted or given up has staged. An attempt replaces only the
very label shard that it was planned for; one that comes late finds another, and changes nothing.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from typing import cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from raysp.corpus.shards import Piece, Shard
from raysp.errors import ChangedError, SpecError
from raysp.planning import Corpus, Plan, Resources, Retry, Todo, hash_pipeline, pinned, settle
from raysp.planning.places import with_absolute_paths
from raysp.sink import commit, failing, footer, plan_record, run_record, stage
from raysp.sink.commit import RESULT_SCHEMA, LabelShard
from raysp.sink.label_rows import Cursor, in_order, read_labels, read_rest, stretches
from raysp.sink.receipts import ShardReceipt
from raysp.sink.recordings import Hashes, Versions
from raysp.sink.trust import read_recorded, refusal
from raysp.sink.word_errors import TextColumns
from raysp.specs.pipeline import Parquet, Pipeline, file_parts, read_code, with_overrides
from raysp.specs.values import override, to_json
from raysp.storage.store import Store, open_store

SETTINGS = ("source.audio_root", "source.storage_options", "sink.storage_options", "steps.N.pool", "max_error_rate")
"""What a retry may set: nothing that rows with a label depend on."""
_SETTABLE = re.compile("|".join(name.replace(".", r"\.").replace("N", r"\d+") for name in SETTINGS))


def recorded_pipeline(
    url: str,
    storage_options: Mapping[str, object] | None = None,
    *,
    pipeline: Pipeline | None = None,
    trust: bool = False,
    settings: Sequence[str] = (),
) -> Pipeline:
    """Return the pipeline that a sink was labelled by, with the sink where it is now.

    Arguments are those of `read_recorded`; `settings` are values to change, as `PATH=VALUE`.

    Raises:
        PlanError: there is no sink at the place.
        TrustError: its record, or its plan, names what is not used on its word.
        SpecError: a step or function of it cannot be imported here, or a setting is none of `SETTINGS`.
    """
    options = _with_sink_options(settings, storage_options, pipeline)
    recorded = read_recorded(url, options, pipeline=pipeline, trust=trust)
    made = with_overrides(recorded.trusted_pipeline(), settings)
    if outside := recorded.outside(plan_record.load(recorded.store)):
        raise refusal(recorded.store.url, [f"a shard at {one!r}" for one in outside])
    return made


def _with_sink_options(
    settings: Sequence[str], storage_options: Mapping[str, object] | None, pipeline: Pipeline | None
) -> Mapping[str, object] | None:
    """Return how to reach a sink, of whose options some may be set.

    Raises:
        SpecError: a setting is none of `SETTINGS`.
    """
    options = pipeline.sink.storage_options if storage_options is None and pipeline else storage_options
    for setting in settings:
        path, _, text = setting.partition("=")
        field = _SETTABLE.match(path)
        if field is None or path[field.end() :][:1] not in ("", "."):
            raise SpecError(
                f"--set {path}: a retry sets only {', '.join(SETTINGS)}, for rows that have a label stay as they are; "
                "to change labels use `raysp run PIPELINE --set ... --relabel`"
            )
        if path.startswith("sink."):
            sink = override(Parquet("sink", storage_options=options or {}), path.removeprefix("sink."), text)
            options = cast("Parquet", sink).storage_options
    return options


def plan_retry(pipeline: Pipeline, resources: Resources) -> Plan:
    """Plan to do the error rows of all committed shards again; the source is not listed.

    Raises:
        PlanError, ChangedError: the pipeline does not fit the resources, or is not the one that made the labels.
        CheckpointError: the checkpoint cannot be run.
    """
    pipeline = pinned(with_absolute_paths(pipeline))
    store = open_store(pipeline.sink.url, pipeline.sink.storage_options)
    record = run_record.load(store)
    settings = settle(pipeline, resources, record.resolved if record else None)
    code = read_code(pipeline)
    parts, fingerprint = hash_pipeline(pipeline, settings, code, record.parts if record else None)
    if record is not None:
        files = file_parts(pipeline)
        run_record.check_same(
            store.url, record, fingerprint=fingerprint, parts=parts, file_parts=files, pipeline=to_json(pipeline)
        )
    shards = plan_record.load(store)
    todo = tuple(find_error_rows(store, shards, fingerprint))
    corpus = Corpus(tuple(one.shard for one in todo))
    return Plan(pipeline, settings, parts, fingerprint, corpus, frozenset(), todo, resources, code=code)


def find_error_rows(store: Store, shards: Sequence[Shard], fingerprint: str) -> Iterator[Todo]:
    """Find the error rows of all label shards of this very input and pipeline.

    Each call begins an attempt of its own: what others have staged is not used, for it may hold the same errors.
    """

    def find(shard: Shard) -> Retry | None:
        if store.stat(shard.name) is None:
            return None
        try:
            found = footer.read(store, shard.name)
            receipt = footer.expect(store, found, shard, fingerprint)
        except ChangedError:
            return None
        return _retry(store, shard, found.write_id) if receipt.error else None

    retries = {shard: retry for shard, retry in zip(shards, commit.for_each(find, shards), strict=True) if retry}
    for shard, retry in retries.items():
        yield Todo(shard, tuple(piece for piece in shard.pieces if retry.of(piece)), retry)


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
    versions: Versions | None = None,
    texts: TextColumns | None = None,
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
        versions=versions,
        stage_id=retry.stage_id,
        texts=texts,
    )
    expected, before = store.stat(shard.name), footer.read(store, shard.name)
    if expected is None or before.write_id != retry.write_id:
        # As a rule it is this very commit that was tried twice; if not, the rest is for the next retry.
        receipt = footer.read_expected(store, shard, fingerprint)
    else:
        hashes = Hashes.decode(before.recordings, shard.num_rows)
        merged = _merged(store, label_shard, retry, hashes)
        written = commit.write(store, label_shard, merged, hashes, expected=expected.version)
        receipt = written or footer.read_expected(store, shard, fingerprint)
    with failing.passing("stage_removed"):
        stage.remove_listed(store, stage.listed(store, shard.name, shard.input_id, retry.stage_id))
    return receipt


def _retry(store: Store, shard: Shard, write_id: str) -> Retry | None:
    """Find the rows that are neither labelled nor skipped, in the label shard or beside it.

    `write_id` is that of the footer that was looked at: a label shard that was replaced since has another one, and
    whatever is planned for it here is never put into its place.
    """
    settled = np.zeros(shard.num_rows, bool)
    for table in chain(read_labels(store, shard, ["row", "status"]), read_rest(store, shard)):
        fine = pc.not_equal(table.column("status"), pa.scalar("error"))
        settled[table.column("row").filter(fine).to_numpy()] = True
    rows = tuple(np.flatnonzero(~settled).tolist())
    return Retry(commit.new_id(), rows, write_id) if rows else None


def _merged(store: Store, label_shard: LabelShard, retry: Retry, hashes: Hashes) -> Iterator[pa.Table]:
    """Yield the label shard's rows in their order, with the new results in their places."""
    shard = label_shard.shard
    labels = Cursor(read_labels(store, shard))
    rest = Cursor(read_rest(store, shard))
    for piece in shard.pieces:
        rows, first = retry.of(piece), piece.first
        fresh = Cursor(_fresh(store, label_shard, piece, rows, hashes))
        for old, end in stretches(labels, rest, first, piece.end):
            if (new := fresh.until(end)) is not None and new.num_rows:
                stays = pc.invert(pc.is_in(old.column("row"), value_set=new.column("row").combine_chunks()))
                new = pa.Table.from_arrays(new.columns, schema=old.schema)
                old = in_order(pa.concat_tables([old.filter(stays), new]))
            yield old
            first = end


def _fresh(
    store: Store, label_shard: LabelShard, piece: Piece, rows: Sequence[int], hashes: Hashes
) -> Iterator[pa.Table]:
    """Yield the retried rows of a piece as they are labelled now, some at a time."""
    if not rows:
        return
    source = commit.read_source(label_shard, piece).take([row - piece.first for row in rows])
    names = [*RESULT_SCHEMA.names, *label_shard.output_schema.names]
    first = 0
    for table in commit.read_staged(store, label_shard, piece, hashes, rows=rows):
        results = table.select(names)
        columns = [*source.slice(first, len(table)).columns, *results.columns]
        first += len(table)
        yield pa.Table.from_arrays(columns, names=[*source.column_names, *names])
