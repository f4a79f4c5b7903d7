"""Opening of a sink for a pipeline: the plan that continues from its records, and the start of a run."""

from collections.abc import Callable, Collection
from dataclasses import replace

from raysp.corpus.shards import only_first_rows
from raysp.errors import PlanError
from raysp.planning.checkpoints import checkpoint_folder, pinned
from raysp.planning.fingerprints import hash_pipeline
from raysp.planning.listing import list_corpus, refuse_listed_sink
from raysp.planning.places import with_absolute_paths
from raysp.planning.plans import Corpus, Plan
from raysp.planning.recordings import refuse_without_recordings
from raysp.planning.replaced import find_replaced
from raysp.planning.resources import Resources, local_resources
from raysp.planning.roots import check_root
from raysp.planning.settling import settle
from raysp.planning.surveying import survey
from raysp.sink import fault_injection, known, layout, plan_record, run_record, stage, stopping
from raysp.sink.run_record import RunEntry, RunRecord
from raysp.sink.todo import compare
from raysp.specs.pipeline import Pipeline, file_parts, read_code
from raysp.specs.pipeline import fingerprint as hash_parts
from raysp.specs.values import to_json
from raysp.storage.store import Store, open_store


def open_sink(pipeline: Pipeline) -> Store:
    """Open the store that receives a pipeline's label shards; nothing is changed yet."""
    return open_store(pipeline.sink.url, pipeline.sink.storage_options)


def plan(pipeline: Pipeline) -> Plan:
    """Return the plan of a run on this machine; nothing is written, and Ray is not started.

    Raises:
        PlanError, ChangedError, CheckpointError: as `make_plan`.
    """
    # The run may have a cluster, so a shortage on this machine is not an error.
    return make_plan(pipeline, replace(local_resources(pipeline), can_grow=True))


def make_plan(
    pipeline: Pipeline,
    resources: Resources,
    *,
    limit_rows: int | None = None,
    relabel: bool = False,
    on_surveyed: Callable[[Corpus], None] | None = None,
) -> Plan:
    """Return the plan from corpus, pipeline and sink; nothing is written.

    Args:
        pipeline: the pipeline.
        resources: resources that the run may use.
        limit_rows: plan only the first rows of the corpus.
        relabel: redo label shards that differ, instead of raising.
        on_surveyed: called with the corpus if the sink has no record, once corpus and checkpoint are found and before
            the checkpoint is read. There is work then, unless the rest of the plan fails.

    A sink without staged or committed results is not bound to its recorded pipeline: instead of raising, the plan
    replaces the record.

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
    """Return whether a sink has committed results, or staged results that a run would use."""
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
    on_surveyed: Callable[[Corpus], None] | None,
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
    if record is None and on_surveyed:
        checkpoint_folder(pipeline)  # raises if there is none
        on_surveyed(corpus)
    settings = settle(pipeline, resources, record.resolved if record else None)
    parts, fingerprint = hash_pipeline(pipeline, settings, code, record.parts if record else None)
    if record is not None and relabel and fingerprint != record.fingerprint:  # other labels: "auto" is resolved again
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
    """Return the recorded shards without a label shard."""
    return frozenset(recorded).difference(entry.path for entry in store.list())


def file_id(pipeline: Pipeline) -> str:
    """Return the hash of settings that change a label shard but no label."""
    return hash_parts(file_parts(pipeline))


def begin_run(plan: Plan, run: RunEntry, store: Store | None = None, *, is_own: bool = True) -> Store:
    """Check that the sink can be written, and record the run and the new shards.

    Args:
        plan: the plan.
        run: entry of this run.
        store: the sink, if it is opened and checked already.
        is_own: whether the user passed the pipeline, so that its record may be used from now on.

    Raises:
        StoreError: the sink cannot be written.
        ChangedError: another pipeline was recorded first.
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
    with fault_injection.passing("plan_written"):
        plan_record.record(store, plan.corpus.fresh, supersede=plan.relabel or plan.corpus.supersedes)
    stage.discard_unfinished(store, [todo.shard for todo in plan.todo], plan.stage_id)
    if plan.stops:
        _discard_other(store, plan)
    return store


def _forget(store: Store) -> None:
    """Remove recorded plan and receipts of a sink whose record is replaced; no result depends on them."""
    for entry in [*store.list(layout.PLAN), *store.list(layout.RECEIPTS)]:
        store.delete(entry.path)


def _discard_other(store: Store, plan: Plan) -> None:
    """Remove results that stopped runs staged, which are never used."""
    for todo in plan.todo:
        for entry in list(store.list(layout.stage_folder(todo.shard.name))):
            block = layout.parse_stage_path(entry.path)
            if block and (block.input_id, block.fingerprint) != (todo.shard.input_id, plan.stage_id):
                store.delete(entry.path)


def open_checked(pipeline: Pipeline) -> Store:
    """Open the sink and check that it can be written.

    Raises:
        StoreError: it cannot be written.
    """
    store = open_sink(pipeline)
    store.probe()
    return store
