"""Open a sink for a pipeline: what it remembers, made into a plan; and the beginning of a run."""

from collections.abc import Callable, Collection
from dataclasses import replace

from raysp.corpus.shards import only_first_rows
from raysp.errors import PlanError
from raysp.planning.checkpoints import checkpoint_folder, pinned
from raysp.planning.fingerprints import hash_pipeline
from raysp.planning.listing import list_corpus, refuse_listed_sink
from raysp.planning.places import with_absolute_paths
from raysp.planning.plans import Plan
from raysp.planning.recordings import refuse_without_recordings
from raysp.planning.replaced import find_replaced
from raysp.planning.resources import Resources, local_resources
from raysp.planning.roots import check_root
from raysp.planning.settling import settle
from raysp.planning.surveying import survey
from raysp.sink import failing, known, layout, plan_record, run_record, stage, stopping
from raysp.sink.run_record import RunEntry, RunRecord
from raysp.sink.todo import compare
from raysp.specs.pipeline import Pipeline, file_parts, read_code
from raysp.specs.pipeline import fingerprint as hash_parts
from raysp.specs.values import to_json
from raysp.storage.store import Store, open_store


def open_sink(pipeline: Pipeline) -> Store:
    """Open the store that receives a pipeline's label shards; nothing is touched yet."""
    return open_store(pipeline.sink.url, pipeline.sink.storage_options)


def plan(pipeline: Pipeline) -> Plan:
    """Say what a run on this machine would do; writes nothing and starts no Ray.

    Raises:
        PlanError, ChangedError, CheckpointError: as `make_plan`.
    """
    # The run may have a cluster: what this machine lacks is no reason to refuse.
    return make_plan(pipeline, replace(local_resources(pipeline), can_grow=True))


def make_plan(
    pipeline: Pipeline,
    resources: Resources,
    *,
    limit_rows: int | None = None,
    relabel: bool = False,
    on_surveyed: Callable[[], None] | None = None,
) -> Plan:
    """Compare corpus, pipeline and sink; writes nothing.

    Args:
        pipeline: the pipeline.
        resources: what the run may use.
        limit_rows: only the first rows of the corpus.
        relabel: what differs in the sink is to be done again, instead of being refused.
        on_surveyed: called once corpus and checkpoint are found, before the checkpoint is read, if the sink has no
            record: there is work then, unless the rest of the plan is refused.

    A sink in which nothing is staged or committed binds no pipeline: where its record would refuse, it is begun anew.

    Raises:
        PlanError, ChangedError: the pipeline does not fit the corpus, the sink or the resources.
        CheckpointError: the checkpoint cannot be run.
    """
    pipeline = with_absolute_paths(pipeline)
    store = open_sink(pipeline)
    record = run_record.load(store)

    def make(record: RunRecord | None) -> Plan:
        return _make_plan(
            pipeline, resources, store, record, limit_rows=limit_rows, relabel=relabel, on_surveyed=on_surveyed
        )

    try:
        return make(record)
    except PlanError:
        if record is None or _holds_results(store, record):
            raise
    return replace(make(None), anew=True)


def _holds_results(store: Store, record: RunRecord) -> bool:
    """Return whether anything is committed in a sink, or staged so that a run would use it."""
    stage_id = stopping.load(store).stage_id(record.fingerprint)
    for entry in store.list(layout.STAGE):
        block = layout.parse_stage_path(entry.path)
        if block and block.fingerprint == stage_id:
            return True
    return any(entry.path.endswith(".parquet") and not entry.path.startswith(layout.HOME) for entry in store.list())


def _make_plan(
    pipeline: Pipeline,
    resources: Resources,
    store: Store,
    record: RunRecord | None,
    *,
    limit_rows: int | None,
    relabel: bool,
    on_surveyed: Callable[[], None] | None,
) -> Plan:
    recorded = {shard.name: shard for shard in plan_record.load(store)} if record is not None else {}
    listed = list_corpus(pipeline.source, recorded, relabel=relabel)
    root, found = listed.root, listed.found
    if record is not None:
        check_root(store.url, record.root, root, found, recorded)
    refuse_listed_sink(pipeline.source, found, pipeline.sink.url)
    pipeline = pinned(pipeline)
    code = read_code(pipeline)
    stops = stopping.load(store)
    replaceable = _uncommitted(store, recorded) if stops.is_open else frozenset[str]()
    corpus = survey(found, recorded, pipeline, limit_rows=limit_rows, relabel=relabel, replaceable=replaceable)
    checkpoint_folder(pipeline)
    if record is None and on_surveyed:
        on_surveyed()
    settings = settle(pipeline, resources, record.resolved if record else None)
    parts, fingerprint = hash_pipeline(pipeline, settings, code, record.parts if record else None)
    if record is not None and relabel and fingerprint != record.fingerprint:  # other labels: "auto" is resolved anew
        settings = settle(pipeline, resources)
        parts, fingerprint = hash_pipeline(pipeline, settings, code)
    if record is not None and not relabel:
        files, fields = file_parts(pipeline), to_json(pipeline)
        run_record.check_same(
            store.url, record, fingerprint=fingerprint, parts=parts, file_parts=files, pipeline=fields
        )
    corpus = replace(corpus, root=root, passed_over=listed.passed_over, unnamed=listed.unnamed, missing=listed.missing)
    if limit_rows is not None:
        shards = only_first_rows(corpus.shards, limit_rows)
        corpus = replace(corpus, shards=shards, fresh=(), vanished=(), supersedes=False, root=None)
    stage_id = stops.stage_id(fingerprint)
    done, todo = compare(
        store,
        corpus.shards,
        fingerprint,
        file_id=file_id(pipeline),
        relabel=relabel,
        is_replaced=lambda shard: bool(find_replaced(store, pipeline, shard).rows),
        stage_id=stage_id,
    )
    refuse_without_recordings(corpus, todo, pipeline)
    redo = stopping.redo(store, stops, (shard for shard in corpus.shards if shard.name in done), fingerprint)
    return Plan(
        pipeline,
        settings,
        parts,
        fingerprint,
        corpus,
        done.difference(one.shard.name for one in redo),
        (*todo, *redo),
        resources,
        relabel,
        code,
        stage_id,
        stops.number if stops.is_open else 0,
    )


def _uncommitted(store: Store, recorded: Collection[str]) -> frozenset[str]:
    """Return the recorded shards that have no label shard."""
    return frozenset(recorded).difference(entry.path for entry in store.list())


def file_id(pipeline: Pipeline) -> str:
    """Hash what changes a label shard but no label."""
    return hash_parts(file_parts(pipeline))


def begin_run(plan: Plan, run: RunEntry, store: Store | None = None, *, is_own: bool = True) -> Store:
    """Check that the sink can be written, and record the run and the shards that are new.

    Args:
        plan: as made.
        run: this one.
        store: the sink, where it is opened and checked already.
        is_own: the user gave the pipeline, so that its record may be used from now on.

    Raises:
        StoreError: it cannot.
        ChangedError: another pipeline was faster.
    """
    store = store or open_checked(plan.pipeline)
    if plan.anew:
        _forget(store)
    run_record.begin(
        store,
        run,
        pipeline=to_json(plan.pipeline),
        fingerprint=plan.fingerprint,
        parts=plan.parts,
        file_parts=file_parts(plan.pipeline),
        relabel=plan.relabel,
        root=plan.corpus.root,
        resolved=plan.resolved,
        anew=plan.anew,
    )
    if is_own:
        known.remember(to_json(plan.pipeline))
        if plan.corpus.root is not None:
            known.remember(plan.corpus.root)
    with failing.passing("plan_written"):
        plan_record.record(store, plan.corpus.fresh, supersede=plan.relabel or plan.corpus.supersedes)
    stage.discard_unfinished(store, [todo.shard for todo in plan.todo], plan.stage_id)
    if plan.stops:
        _discard_other(store, plan)
    return store


def _forget(store: Store) -> None:
    """Remove what was planned and received of a sink that is begun anew; no result depends on it."""
    for entry in [*store.list(layout.PLAN), *store.list(layout.RECEIPTS)]:
        store.delete(entry.path)


def _discard_other(store: Store, plan: Plan) -> None:
    """Remove what stopped runs staged, which is never used."""
    for todo in plan.todo:
        for entry in list(store.list(layout.stage_folder(todo.shard.name))):
            block = layout.parse_stage_path(entry.path)
            if block and (block.input_id, block.fingerprint) != (todo.shard.input_id, plan.stage_id):
                store.delete(entry.path)


def open_checked(pipeline: Pipeline) -> Store:
    """Open the sink and check that it can be written.

    Raises:
        StoreError: it cannot.
    """
    store = open_sink(pipeline)
    store.probe()
    return store
