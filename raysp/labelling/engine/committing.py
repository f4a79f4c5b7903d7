"""Commits of shards, as workers make them."""

import functools
from collections.abc import Callable
from dataclasses import replace

import pyarrow as pa
import pyarrow.compute as pc

from raysp.corpus import sources
from raysp.corpus.shards import Piece, Shard
from raysp.labelling import assembly
from raysp.labelling.engine.job import Job
from raysp.labelling.engine.messages import shard_failure
from raysp.labelling.engine.watchdog import watched
from raysp.labelling.planning.carried import read_source_columns
from raysp.ops.filtering import fail_unreadable
from raysp.ops.late_steps import RowFilters
from raysp.ops.rows import RowStatus
from raysp.sink import commit, fault_injection
from raysp.sink.receipts import ShardFailure, ShardReceipt
from raysp.sink.sinks import Sink
from raysp.sink.tally import rules_of_steps
from raysp.sink.todo import Retry
from raysp.storage.store import UnusableError


def commit_shard(job: Job, shard: Shard, retry: Retry | None) -> ShardReceipt | ShardFailure | UnusableError:
    """Write the label shard of a completely staged shard, or replace retried rows of an existing one.

    Returns the error if no shard can be committed.
    """
    fault_injection.adopt(job.fault_injection)
    store = Sink.of(job.pipeline.sink).store
    sink = job.pipeline.sink
    try:
        filters = assembly.row_filters(job.pipeline, job.functions)
        receipt = _commit(retry)(
            store,
            shard,
            fingerprint=job.fingerprint,
            source_columns=lambda piece: read_source_columns(job.pipeline, shard, piece, job.carried),
            output_schema=job.output_schema,
            rows=sink.rows,
            compression=sink.compression,
            metadata=job.metadata,
            file_id=job.file_id,
            texts=job.texts,
            rules=rules_of_steps(job.pipeline.steps),
            stage_id=job.stage_id,
            finish=_finish(job, shard, filters) if filters.filters else None,
        )
        return replace(receipt, filtered_behind=filters.num_filtered)
    except UnusableError as error:
        return error
    except (Exception, SystemExit) as error:  # steps behind the model are code of the user
        return shard_failure(shard.name, error)


def _finish(job: Job, shard: Shard, filters: RowFilters) -> commit.Finish:
    """Return the steps behind the model, which read the source of a piece once if they need it."""
    source_of = functools.lru_cache(1)(functools.partial(_source, job, shard))

    def finish(rows: pa.Table, piece: Piece) -> pa.Table:
        source = None
        if filters.reads_source:
            source = source_of(piece).take(pc.subtract(rows.column("row"), pa.scalar(piece.first)))
        with watched(job.hang_seconds):
            return filters(rows, source)

    return finish


def _source(job: Job, shard: Shard, piece: Piece) -> pa.Table:
    """Read all columns of a piece but the audio, with null in place of values that cannot be read."""
    source = job.pipeline.source
    names = sorted({*sources.column_names(shard, source.storage_options)} - {source.audio})
    table = sources.read_table(shard, piece, names, source.storage_options, audio_root=source.audio_root)
    texts = () if source.text is None else (source.text,)
    return fail_unreadable(table, [RowStatus(row) for row in range(piece.first, piece.end)], texts)


def _commit(retry: Retry | None) -> Callable[..., ShardReceipt]:
    """Return the function that commits a shard, or that replaces a label shard or some of its rows."""
    if retry is None:
        return commit.commit
    from raysp.sink.recommitting import recommit

    return functools.partial(recommit, retry=retry)
