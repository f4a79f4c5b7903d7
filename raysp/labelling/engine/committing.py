"""Commits of shards, as workers make them."""

import functools
from collections.abc import Callable
from dataclasses import replace

from raysp.corpus.shards import Shard
from raysp.labelling import assembly
from raysp.labelling.engine.job import Job
from raysp.labelling.engine.messages import shard_failure
from raysp.labelling.engine.piece_reading import filtering
from raysp.labelling.planning.carried import read_source_columns
from raysp.sink import commit, fault_injection
from raysp.sink.receipts import ShardFailure, ShardReceipt
from raysp.sink.tally import rules_of_steps
from raysp.sink.todo import Retry
from raysp.storage.store import UnusableError


def commit_shard(job: Job, shard: Shard, retry: Retry | None) -> ShardReceipt | ShardFailure | UnusableError:
    """Write the label shard of a completely staged shard, or replace retried rows of an existing one.

    Returns the error if no shard can be committed.
    """
    fault_injection.adopt(job.fault_injection)
    store = job.store
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
            finish=filtering(job, shard, filters) if filters.filters else None,
        )
        return replace(receipt, filtered_behind=filters.num_filtered)
    except UnusableError as error:
        return error
    except (Exception, SystemExit) as error:  # steps behind the model are code of the user
        return shard_failure(shard.name, error)


def _commit(retry: Retry | None) -> Callable[..., ShardReceipt]:
    """Return the function that commits a shard, or that replaces a label shard or some of its rows."""
    if retry is None:
        return commit.commit
    from raysp.sink.recommitting import recommit

    return functools.partial(recommit, retry=retry)
