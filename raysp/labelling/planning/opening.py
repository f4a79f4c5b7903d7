"""Plan of a run that continues from the records of its sink, and the start of the run."""

from collections.abc import Callable
from dataclasses import replace

from raysp.cluster.resources import local_resources
from raysp.corpus.shards import only_first_rows
from raysp.corpus.sources import FOLDER
from raysp.errors import PlanError
from raysp.labelling.planning.backend_choice import with_backend
from raysp.labelling.planning.carried import CarriedTypes, encode, recorded_types
from raysp.labelling.planning.fingerprints import check_recorded, hash_pipeline
from raysp.labelling.planning.first_recordings import refuse_archived, refuse_tarred
from raysp.labelling.planning.listing import check_root, list_corpus, of_commit, refuse_listed_sink
from raysp.labelling.planning.planned_checkpoint import checkpoint_folder, pinned
from raysp.labelling.planning.run_plan import Corpus, Opened, Plan, output_schema
from raysp.labelling.planning.settling import piece_size, settle
from raysp.labelling.planning.surveying import refuse_without_recordings, survey, with_ids
from raysp.labelling.planning.trying import try_late_filters
from raysp.sink import absent, fault_injection, plan_record, run_record
from raysp.sink.absent import Gone
from raysp.sink.run_record import RunEntry, RunRecord
from raysp.sink.todo import compare
from raysp.specs.pipeline import Pipeline, Shards, file_parts, read_code
from raysp.specs.pipeline import fingerprint as hash_parts
from raysp.specs.values import check_class, to_json


def plan(pipeline: Pipeline) -> Plan:
    """Return the plan of a run on this machine; nothing is written, and Ray is not started.

    Raises:
        SpecError: it is not a pipeline.
        PlanError, ChangedError, CheckpointError: as `make_plan`.
    """
    check_class(pipeline, Pipeline, "`raysp plan` on the command line plans recipes of trainings too")
    # The run may have a cluster, so a shortage on this machine is not an error.
    return make_plan(Opened.of(pipeline, replace(local_resources(pipeline), can_grow=True)))


def make_plan(
    opened: Opened,
    *,
    limit_rows: int | None = None,
    on_surveyed: Callable[[Corpus], None] | None = None,
) -> Plan:
    """Return the plan from corpus, pipeline and sink; nothing is written.

    Args:
        opened: the pipeline, its sink, and the resources that the run may use.
        limit_rows: plan only the first rows of the corpus.
        on_surveyed: called with the corpus if the sink has no record, once corpus and checkpoint are found and before
            the checkpoint is read. There is work then, unless the rest of the plan fails.

    A sink without staged or committed results is not bound to its recorded pipeline: instead of raising, the plan
    replaces the record.

    Raises:
        PlanError, ChangedError: the pipeline does not fit the corpus, the sink or the resources.
        CheckpointError: the checkpoint cannot be run.
    """
    record = opened.sink.record()
    if record is None:
        opened.sink.refuse_other_kind()

    def make(record: RunRecord | None) -> Plan:
        return _make_plan(opened, record, limit_rows=limit_rows, on_surveyed=on_surveyed)

    try:
        return make(record)
    except PlanError:
        if record is None or opened.sink.holds_results(record.fingerprint):
            raise
    return replace(make(None), replaces_record=True)


def _with_text_beside(source: Shards, column: str | None) -> Shards:
    """Return a source that is listed with the texts beside its recordings, unless it names a column of texts itself."""
    return replace(source, text=column) if column and source.text is None and source.split is None else source


def _make_plan(
    opened: Opened,
    record: RunRecord | None,
    *,
    limit_rows: int | None,
    on_surveyed: Callable[[Corpus], None] | None,
) -> Plan:
    pipeline, sink, resources = of_commit(opened.pipeline, record), opened.sink, opened.resources
    recorded = {shard.name: shard for shard in sink.shards()} if record is not None else {}
    absent_before = {one.name: one.shard for one in sink.absent()} if record is not None else {}
    source = _with_text_beside(pipeline.source, opened.text_beside)
    listed = list_corpus(source, {**absent_before, **recorded})
    root, found = listed.root, listed.found
    if source != pipeline.source and any(one.kind == FOLDER for one in found):
        pipeline = replace(pipeline, source=source)
    if record is not None:
        check_root(sink.url, record.root, root, found, recorded)
    refuse_listed_sink(pipeline.source, found, pipeline.sink.url)
    source = with_ids(pipeline.source, found, recorded)
    is_numbered = source.id != pipeline.source.id
    pipeline = replace(pipeline, source=source)
    pipeline = pinned(pipeline)
    code = read_code(pipeline)
    corpus = survey(
        found,
        recorded,
        pipeline,
        size=piece_size(pipeline, resources, record.resolved if record else None),
        limit_rows=limit_rows,
        carried=carried_types(replace(opened, pipeline=pipeline), record if recorded else None),
    )
    if record is None and on_surveyed:
        checkpoint_folder(pipeline)  # raises if there is none
        on_surveyed(corpus)
    pipeline, why_not_own = with_backend(pipeline, record)
    settings = settle(pipeline, resources, record.resolved if record else None)
    for schema, url in corpus.schemas.items():
        try_late_filters(url, schema, pipeline, output_schema(pipeline, settings.checkpoint))
    parts, fingerprint = hash_pipeline(pipeline, settings, code)
    if settings.measured is not None:
        from raysp.labelling.planning.measured_passes import with_measured

        settings = with_measured(settings, sink.store, parts)
    if record is not None:
        check_recorded(sink.url, record, pipeline, settings, parts, fingerprint)
    corpus = replace(corpus, root=root, passed_over=listed.passed_over, unnamed=listed.unnamed, missing=listed.missing)
    corpus = replace(corpus, is_numbered=is_numbered, unread=listed.unread, faults=listed.faults, gone=listed.gone)
    if limit_rows is not None:
        shards = only_first_rows(corpus.shards, limit_rows)
        corpus = replace(corpus, shards=shards, fresh=(), vanished=(), gone=(), supersedes=False, root=None)
    done, todo = compare(sink.store, corpus.shards, fingerprint, file_id=hash_parts(file_parts(pipeline)))
    # A run that stops for them removes them, unless its process is killed.
    todo = tuple(one.without_failed(pipeline.max_error_rate) for one in todo)
    refuse_without_recordings(corpus, todo, pipeline)
    refuse_archived(todo, pipeline)
    refuse_tarred(todo, pipeline)
    return Plan(
        replace(opened, pipeline=pipeline),
        settings,
        parts,
        fingerprint,
        corpus,
        done,
        todo,
        code,
        why_not_own=why_not_own,
    )


def carried_types(opened: Opened, record: RunRecord | None) -> CarriedTypes:
    """Return the types of carried-over columns, with those of label shards that stay: of none without a record."""
    types, binding = recorded_types(opened.sink, record)
    return CarriedTypes(opened.pipeline, types, opened.sink.url, binding=binding)


def begin(plan: Plan, run: RunEntry, *, is_own: bool = True) -> None:
    """Record a run and its shards, and remove the staged results that it makes again.

    Args:
        plan: the plan, whose sink was probed.
        run: entry of this run.
        is_own: whether the user passed the pipeline, so that its record may be used from now on.

    Raises:
        StoreError: the sink cannot be written.
        ChangedError: another pipeline was recorded first.
    """
    _record(plan, run, is_own=is_own)


def _record(plan: Plan, run: RunEntry, *, is_own: bool) -> None:
    store = plan.sink.store
    if plan.replaces_record:
        plan.sink.forget_plan()
    run_record.begin(
        store,
        run,
        pipeline=to_json(plan.pipeline),
        fingerprint=plan.fingerprint,
        parts=plan.parts,
        file_parts=file_parts(plan.pipeline),
        root=plan.corpus.root,
        resolved=plan.resolved,
        replaces_record=plan.replaces_record,
        columns=encode(plan.corpus.carried),
    )
    if is_own:
        from raysp.sink import known

        known.remember(to_json(plan.pipeline))
        if plan.corpus.root is not None:
            known.remember(plan.corpus.root)
    if any(todo.retry and not todo.keeps_rows for todo in plan.todo):
        plan.sink.begin_replacing()
    with fault_injection.passing("plan_written"):
        is_listed = plan.corpus.root is not None
        gone = Gone.of(plan.corpus.vanished, plan.corpus.gone) if is_listed else absent.load_gone(store)
        absent.record(store, plan.corpus.absent, gone)
        plan_record.record(store, plan.corpus.fresh, supersede=plan.corpus.supersedes)
