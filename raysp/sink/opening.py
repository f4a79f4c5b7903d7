"""Open a sink for a pipeline: what it remembers, made into a plan; and the beginning of a run."""

from raysp.errors import ChangedError
from raysp.io.shards import Piece, Shard, only_first_rows
from raysp.io.store import Store, open_store
from raysp.pipeline import Pipeline, file_parts
from raysp.planning import (
    Corpus,
    Plan,
    Resources,
    Todo,
    hash_pipeline,
    list_source,
    local_resources,
    refuse_listed_sink,
    settle,
    survey,
)
from raysp.sink import commit, plan_record, run_record, stage
from raysp.sink.run_record import RunEntry
from raysp.specs import to_json


def open_sink(pipeline: Pipeline) -> Store:
    """Open the store that receives a pipeline's label shards; nothing is touched yet."""
    return open_store(pipeline.sink.url, pipeline.sink.storage_options)


def plan(pipeline: Pipeline) -> Plan:
    """Say what a run on this machine would do; writes nothing and starts no Ray.

    Raises:
        PlanError, ChangedError, CheckpointError: as `make_plan`.
    """
    return make_plan(pipeline, local_resources(pipeline))


def make_plan(pipeline: Pipeline, resources: Resources, *, limit_rows: int | None = None) -> Plan:
    """Compare corpus, pipeline and sink; writes nothing.

    Args:
        pipeline: the pipeline.
        resources: what the run may use.
        limit_rows: only the first rows of the corpus.

    Raises:
        PlanError, ChangedError: the pipeline does not fit the corpus, the sink or the resources.
        CheckpointError: the checkpoint cannot be run.
    """
    store = open_sink(pipeline)
    record = run_record.load(store)
    recorded = {shard.name: shard for shard in plan_record.load(store)} if record is not None else {}
    found = list_source(pipeline.source, recorded)
    refuse_listed_sink(pipeline.source, found, pipeline.sink.url)
    settings = settle(pipeline, resources)
    parts, fingerprint = hash_pipeline(pipeline, settings)
    if record is not None:
        run_record.check_same(store.url, record, fingerprint=fingerprint, parts=parts, file_parts=file_parts(pipeline))
    corpus = survey(found, recorded, pipeline, limit_rows=limit_rows)
    if limit_rows is not None:
        corpus = Corpus(only_first_rows(corpus.shards, limit_rows), corpus.unreadable)
    done, todo = _compare(store, corpus, fingerprint)
    return Plan(pipeline, settings, parts, fingerprint, corpus, done, todo, resources)


def _compare(store: Store, corpus: Corpus, fingerprint: str) -> tuple[frozenset[str], tuple[Todo, ...]]:
    committed = commit.committed(store, corpus.shards, fingerprint, mend=False)
    if committed.foreign:
        reasons = [*committed.foreign.values()]
        more = f" (and {len(reasons) - 1} more)" if len(reasons) > 1 else ""
        raise ChangedError(reasons[0] + more, tuple(reasons))
    open_shards = [shard for shard in corpus.shards if shard.name not in committed.done]
    blocks = stage.staged(store, open_shards, fingerprint)
    todo = tuple(Todo(shard, _unstaged(shard, blocks.get(shard.name, {}))) for shard in open_shards)
    return committed.done, todo


def _unstaged(shard: Shard, blocks: dict[Piece, set[tuple[int, int]]]) -> tuple[Piece, ...]:
    return tuple(piece for piece in shard.pieces if not stage.is_complete(blocks.get(piece, set())))


def begin_run(plan: Plan, run: RunEntry) -> Store:
    """Check that the sink can be written, and record the run and the shards that are new.

    Raises:
        StoreError: it cannot.
        ChangedError: another pipeline was faster.
    """
    store = open_sink(plan.pipeline)
    store.probe()
    run_record.begin(
        store,
        run,
        pipeline=to_json(plan.pipeline),
        fingerprint=plan.fingerprint,
        parts=plan.parts,
        file_parts=file_parts(plan.pipeline),
    )
    plan_record.record(store, plan.corpus.fresh)
    stage.discard_unfinished(store, [todo.shard for todo in plan.todo], plan.fingerprint)
    return store
