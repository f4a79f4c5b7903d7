"""Commits of shards, as workers make them."""

from dataclasses import replace

from raysp.corpus.shards import Shard
from raysp.labelling import assembly
from raysp.labelling.engine.job import Job
from raysp.labelling.engine.messages import shard_failure
from raysp.labelling.engine.piece_reading import filtering
from raysp.labelling.planning.carried import read_source_columns
from raysp.sink import fault_injection
from raysp.sink.commit import LabelShard, commit
from raysp.sink.receipts import ShardFailure, ShardReceipt
from raysp.sink.recommitting import recommit
from raysp.sink.tally import rules_of_steps
from raysp.sink.todo import Retry
from raysp.storage.store import UnusableError


def commit_shard(job: Job, shard: Shard, retry: Retry | None) -> ShardReceipt | ShardFailure | UnusableError:
    """Write the label shard of a completely staged shard, or replace retried rows of an existing one.

    Returns the error if no shard can be committed.
    """
    fault_injection.adopt(job.fault_injection)
    sink = job.pipeline.sink
    store = job.store
    try:
        # A function that fails for more rows is to be corrected: no label shard of error rows is committed.
        most_failed = max(1.0, job.pipeline.max_error_rate * shard.num_rows)
        filters = assembly.row_filters(job.pipeline, job.functions, -1, most_failed)
        label_shard = LabelShard(
            shard,
            job.fingerprint,
            lambda piece: read_source_columns(job.pipeline, shard, piece, job.carried),
            job.output_schema,
            rows=sink.rows,
            compression=sink.compression,
            metadata=job.metadata,
            file_id=job.file_id,
            texts=job.texts,
            rules=rules_of_steps(job.pipeline.steps),
            stage_id=job.stage_id,
            finish=filtering(job, shard, filters) if filters.filters else None,
        )
        receipt = recommit(store, label_shard, retry) if retry else commit(store, label_shard)
        return replace(receipt, filtered_behind=filters.num_filtered, failed_behind=filters.num_failed)
    except UnusableError as error:
        return error
    except (Exception, SystemExit) as error:  # steps behind the model are code of the user
        return shard_failure(shard.name, error)
