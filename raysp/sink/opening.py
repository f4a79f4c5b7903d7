"""Open a sink for a pipeline: what it remembers, made into a plan; and the beginning of a run."""

from collections.abc import Collection, Mapping, Sequence

from raysp.errors import ChangedError
from raysp.io.shards import Piece, Shard, only_first_rows
from raysp.io.store import Store, open_store
from raysp.pipeline import Pipeline, file_parts
from raysp.pipeline import fingerprint as hash_parts
from raysp.planning import (
    Corpus,
    Plan,
    Resources,
    Todo,
    hash_pipeline,
    list_source,
    local_resources,
    pinned,
    refuse_listed_sink,
    settle,
    survey,
)
from raysp.sink import commit, failing, plan_record, run_record, stage
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


def make_plan(
    pipeline: Pipeline, resources: Resources, *, limit_rows: int | None = None, relabel: bool = False
) -> Plan:
    """Compare corpus, pipeline and sink; writes nothing.

    Args:
        pipeline: the pipeline.
        resources: what the run may use.
        limit_rows: only the first rows of the corpus.
        relabel: what differs in the sink is to be done again, instead of being refused.

    Raises:
        PlanError, ChangedError: the pipeline does not fit the corpus, the sink or the resources.
        CheckpointError: the checkpoint cannot be run.
    """
    store = open_sink(pipeline)
    record = run_record.load(store)
    recorded = {shard.name: shard for shard in plan_record.load(store)} if record is not None else {}
    found = list_source(pipeline.source, recorded)
    refuse_listed_sink(pipeline.source, found, pipeline.sink.url)
    pipeline = pinned(pipeline)
    settings = settle(pipeline, resources)
    parts, fingerprint = hash_pipeline(pipeline, settings)
    if record is not None and not relabel:
        run_record.check_same(store.url, record, fingerprint=fingerprint, parts=parts, file_parts=file_parts(pipeline))
    corpus = survey(found, recorded, pipeline, limit_rows=limit_rows, relabel=relabel)
    if limit_rows is not None:
        corpus = Corpus(only_first_rows(corpus.shards, limit_rows), corpus.unreadable)
    done, todo = compare(store, corpus.shards, fingerprint, file_id=file_id(pipeline), relabel=relabel)
    return Plan(pipeline, settings, parts, fingerprint, corpus, done, todo, resources, relabel)


def compare(
    store: Store, shards: Sequence[Shard], fingerprint: str, *, file_id: str = "", relabel: bool = False
) -> tuple[frozenset[str], tuple[Todo, ...]]:
    """Tell which shards are committed, and what is to do of the others.

    Raises:
        ChangedError: in the place of a label shard lies something that is not to be replaced.
    """
    committed = commit.committed(store, shards, fingerprint, mend=False, file_id=file_id, trust=not relabel)
    kept = committed.outdated if relabel else frozenset[str]()
    if reasons := [reason for name, reason in committed.foreign.items() if name not in kept]:
        more = f" (and {len(reasons) - 1} more)" if len(reasons) > 1 else ""
        raise ChangedError(reasons[0] + more, tuple(reasons))
    open_shards = [shard for shard in shards if shard.name not in committed.done]
    blocks = stage.staged(store, open_shards, fingerprint)
    todo = tuple(Todo(shard, unstaged(shard, blocks.get(shard.name, {}))) for shard in open_shards)
    return committed.done, todo


def unstaged(shard: Shard, blocks: Mapping[Piece, Collection[tuple[int, int]]]) -> tuple[Piece, ...]:
    """Give the pieces of which blocks are missing."""
    return tuple(piece for piece in shard.pieces if not stage.is_complete(blocks.get(piece, ())))


def file_id(pipeline: Pipeline) -> str:
    """Hash what changes a label shard but no label."""
    return hash_parts(file_parts(pipeline))


def begin_run(plan: Plan, run: RunEntry, store: Store | None = None) -> Store:
    """Check that the sink can be written, and record the run and the shards that are new.

    Args:
        plan: as made.
        run: this one.
        store: the sink, where it is opened and checked already.

    Raises:
        StoreError: it cannot.
        ChangedError: another pipeline was faster.
    """
    store = store or open_checked(plan.pipeline)
    run_record.begin(
        store,
        run,
        pipeline=to_json(plan.pipeline),
        fingerprint=plan.fingerprint,
        parts=plan.parts,
        file_parts=file_parts(plan.pipeline),
        relabel=plan.relabel,
    )
    with failing.passing("plan_written"):
        plan_record.record(store, plan.corpus.fresh, supersede=plan.relabel)
    stage.discard_unfinished(store, [todo.shard for todo in plan.todo], plan.fingerprint)
    return store


def open_checked(pipeline: Pipeline) -> Store:
    """Open the sink and check that it can be written.

    Raises:
        StoreError: it cannot.
    """
    store = open_sink(pipeline)
    store.probe()
    return store
