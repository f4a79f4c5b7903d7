"""Plan of a run that continues from the records of its sink, or of a retry, and the start of the run.

A retry labels error rows of committed label shards again, or whole shards, by the pipeline that labelled them.
"""

from collections.abc import Sequence
from dataclasses import asdict, replace
from fnmatch import fnmatchcase

from raysp.cluster.resources import local_resources
from raysp.corpus import audio_roots, sources
from raysp.corpus.shards import only_first_rows
from raysp.corpus.sources import FOLDER
from raysp.corpus.surveys import Surveyed
from raysp.errors import AudioError, PlanError, StoreError
from raysp.labelling.planning.carried import carried_types, decode, encode
from raysp.labelling.planning.listing import Listed, are_listed, check_root, list_corpus, of_commit, refuse_listed_sink
from raysp.labelling.planning.planned_checkpoint import pinned, with_backends
from raysp.labelling.planning.run_plan import Corpus, Opened, Pass, Plan, output_schema
from raysp.labelling.planning.settings import is_surveyed_for, label_parts, piece_size, resolve_settings, staged_parts
from raysp.labelling.planning.surveying import paths_of, refuse_without_recordings, survey, try_filters, with_ids
from raysp.sink import absent, fault_injection, plan_record, run_record
from raysp.sink.absent import MOST_IDS, Gone
from raysp.sink.commit import Todo, compare
from raysp.sink.recommitting import find_error_rows, retry_whole
from raysp.sink.run_record import RunEntry, RunRecord
from raysp.sink.sinks import SinkState
from raysp.specs.pipeline import Pipeline, file_parts, fingerprint, read_code
from raysp.specs.values import check_class, to_json
from raysp.storage.store import ArchivedError, scheme_of
from raysp.words import listed

TAR_NUMBER = "shard_id"
SAMPLED = 4
"""Recordings of the first shard that are tried; the first one that can be opened ends the check."""


def plan(pipeline: Pipeline) -> Plan:
    """Return the plan of a run on this machine; nothing is written, and Ray is not started.

    Raises:
        SpecError: it is not a pipeline.
        PlanError, ChangedError, CheckpointError: as `make_plan`.
    """
    check_class(pipeline, Pipeline, "`raysp plan` on the command line plans recipes of trainings too")
    # The run may have a cluster, so a shortage on this machine is not an error.
    return make_plan(Opened.of(pipeline, replace(local_resources(pipeline), can_grow=True)))


def make_plan(opened: Opened) -> Plan:
    """Return the plan from corpus, pipeline and sink; nothing is written.

    Raises:
        PlanError, ChangedError: the pipeline does not fit the corpus, the sink or the resources.
        CheckpointError: the checkpoint cannot be run.
    """
    opened.sink.refuse_other_kind()
    state = SinkState.of(opened.sink)
    opened, corpus = read_source(opened, state)
    return plan_run(opened, state, corpus)


def read_source(opened: Opened, state: SinkState, limit_rows: int | None = None) -> tuple[Opened, Corpus]:
    """List and survey the source of a run.

    Args:
        opened: the pipeline, its sink, and the resources that the run may use.
        state: state of the sink.
        limit_rows: read only the first rows of the corpus.

    Returns:
        `opened` with the ids of the source, and commits and backends of checkpoints; and the corpus.

    Raises:
        PlanError, ChangedError: the source cannot be listed, or does not fit the pipeline or the sink.
        CheckpointError: the hub does not know a model, or cannot be reached.
    """
    record, sink = state.binding_record, opened.sink
    pipeline = of_commit(opened.pipeline, record)
    source = pipeline.source
    if opened.default_text and source.text is None and source.split is None:
        source = replace(source, text=opened.default_text)
    slices = {**{missing.name: missing.shard for missing in state.absent}, **state.shards} if record else {}
    listed = list_corpus(source, slices)
    if not any(shard.kind == FOLDER for shard in listed.shards):
        source = pipeline.source
    if record is not None:
        check_root(sink.url, record, listed, state.shards)
    refuse_listed_sink(source, listed.shards, pipeline.sink.url)
    pipeline = replace(pipeline, source=source)
    is_recorded = state.record is not None and (state.has_results or are_listed(listed.shards, state.shards))
    surveyed: dict[str, Surveyed] = {}
    if not is_recorded or state.record is None or state.record.parts.get("source.id") != source.id:
        source, surveyed = with_ids(pipeline, listed, state.shards)
    is_numbered = source != pipeline.source
    opened = replace(opened, pipeline=pinned(replace(pipeline, source=source)))
    if not state.has_results and not (is_recorded and is_surveyed_for(opened.pipeline, state.record)):
        state = SinkState()
    corpus = survey(
        listed,
        state.shards,
        opened.pipeline,
        size=piece_size(opened.pipeline, opened.resources, record.resolved if record else None),
        limit_rows=limit_rows,
        carried=carried_types(opened.pipeline, sink, state.record if state.shards else None),
        surveyed=surveyed,
    )
    corpus = replace(corpus, recorded=state.shards if record else {}, is_numbered=is_numbered)
    if limit_rows is not None:
        listed = replace(listed, root=None, gone=())
        shards = only_first_rows(corpus.shards, limit_rows)
        corpus = replace(corpus, shards=shards, recorded={}, listed=listed)
    pipeline, chosen = with_backends(opened.pipeline, record)
    return replace(opened, pipeline=pipeline, chosen=chosen), corpus


def plan_run(opened: Opened, state: SinkState, corpus: Corpus) -> Plan:
    """Return the plan of a run over a corpus that `read_source` returned; nothing is written.

    Raises:
        PlanError, ChangedError: the pipeline does not fit the corpus, the sink or the resources.
        CheckpointError: the checkpoint cannot be run.
    """
    plan = plan_without_work(opened, state.binding_record)
    for schema, url in corpus.schemas.items():
        try_filters(url, schema, plan.pipeline, output_schema(*plan.passes))
    file_id = fingerprint(file_parts(plan.pipeline))
    done, todo = compare(opened.sink.store, corpus.shards, plan.fingerprint, file_id=file_id, stage_id=plan.stage_id)
    # A run that stops for error rows removes them, unless its process is killed.
    todo = tuple(shard.without_failed(plan.pipeline.max_error_rate) for shard in todo)
    refuse_without_recordings(corpus, todo, plan.pipeline)
    _try_first_recordings(todo, plan.pipeline)
    replaces_record = state.record is not None and not state.has_results
    return replace(plan, corpus=corpus, done=done, todo=todo, replaces_record=replaces_record)


def _try_first_recordings(todo: Sequence[Todo], pipeline: Pipeline) -> None:
    """Raise PlanError if sampled recordings that are read by path are all archived, or in tar files."""
    source = pipeline.source
    shard = next((work.shard for work in todo if work.shard.num_rows), None)
    if shard is None or (folder := audio_roots.audio_root(shard, source.audio_root)) is None:
        return
    may_be_archived = bool(scheme_of(folder))
    may_be_tarred = shard.kind == "manifest" and TAR_NUMBER in sources.column_names(shard, source.storage_options)
    root = audio_roots.open_audio_root(shard, source.audio_root, source.storage_options)
    if root is None or not (may_be_archived or may_be_tarred):
        return
    archived: ArchivedError | None = None
    missing = ""
    paths = paths_of(shard, shard.pieces[0], source)
    for path in paths[:: max(1, -(-len(paths) // SAMPLED))]:
        try:
            root.open(path)
        except ArchivedError as error:
            archived = archived or error
        except AudioError as error:
            may_be_tarred &= error.error_type == "not_found"
            missing = missing or path
        except StoreError:
            may_be_tarred = False  # the run reports it
        else:
            return
    if archived is not None and may_be_archived:
        raise PlanError(f"source: {archived}")
    if missing and may_be_tarred:
        raise PlanError(
            f"source: {shard.url}: its lines have {TAR_NUMBER!r}, as NeMo writes for recordings in tar files, and "
            f"{missing!r} is no file; unpack the tar files (audio_0.tar, ...) into the folder of the manifest, or set "
            "source.audio_root"
        )


def plan_without_work(opened: Opened, record: RunRecord | None) -> Plan:
    """Return the plan with resolved settings and fingerprint, and without corpus and work.

    Args:
        opened: the pipeline with commits of the hub and backends, its sink, and the resources that the run may use.
        record: record of the sink that the pipeline must agree with; None: there is none.

    Raises:
        PlanError, ChangedError: the pipeline does not fit the resources, or did not make the labels of the sink.
        CheckpointError: the checkpoint cannot be run.
    """
    code = read_code(opened.pipeline)
    pipeline, summaries = opened.pipeline, [choice.summary for choice in opened.chosen]
    passes = resolve_settings(pipeline, opened.resources, record.resolved if record else None, summaries)
    parts = label_parts(pipeline, (choice.settings for choice in passes), code)
    digest, why = fingerprint(parts), _why_not_own(opened, passes)
    stage_id = fingerprint(staged_parts(pipeline, parts)) if pipeline.flow.after[-1] else digest
    plan = Plan(pipeline, opened.sink, opened.resources, passes, parts, digest, stage_id, code=code, why_not_own=why)
    if record is not None:
        run_record.continued(opened.sink.store, record, _record_of(plan))
    return plan


def _why_not_own(opened: Opened, passes: Sequence[Pass]) -> tuple[str, ...]:
    """Return a sentence for each checkpoint that another library was chosen for."""
    # No choice without audio.
    chosen = [(run.settings, choice.why) for run, choice in zip(passes, opened.chosen, strict=False)]
    return tuple(
        f"{settings.library} runs {'the checkpoint' if len(chosen) == 1 else settings.checkpoint.path}: {why}"
        for settings, why in chosen
        if why
    )


def _record_of(plan: Plan, run: RunEntry | None = None) -> RunRecord:
    """Return the record of a plan, as if its run was the first one; None: no run, to compare it with a record."""
    return RunRecord(
        run.started if run else "",
        to_json(plan.pipeline),
        plan.fingerprint,
        plan.parts,
        file_parts(plan.pipeline),
        (run,) if run else (),
        plan.corpus.listed.root,
        asdict(plan.resolved),
        encode(plan.corpus.carried),
        "" if plan.stage_id == plan.fingerprint else plan.stage_id,
    )


def begin(plan: Plan, run: RunEntry) -> None:
    """Record a run and its shards.

    Args:
        plan: the plan, whose sink was probed.
        run: entry of this run.

    Raises:
        StoreError: the sink cannot be written.
        ChangedError: another pipeline was recorded first.
        RunError: another run took over the lease.
    """
    store = plan.sink.store
    if plan.replaces_record:
        plan.sink.forget_plan()
    run_record.begin(store, _record_of(plan, run), replaces_record=plan.replaces_record)
    if any(todo.retry and not todo.keeps_rows for todo in plan.todo):
        plan.sink.remove_report()
    with fault_injection.passing("plan_written"):
        ids, is_listed = plan.corpus.listed.gone, plan.corpus.listed.root is not None
        gone = Gone(plan.corpus.vanished, len(ids), ids[:MOST_IDS]) if is_listed else absent.load(store).gone
        absent.record(store, plan.corpus.absent, gone)
        fresh = plan.corpus.fresh
        plan_record.record(store, fresh, supersede=any(shard.name in plan.corpus.recorded for shard in fresh))


def plan_retry(opened: Opened, shards: Sequence[str] = ()) -> Plan:
    """Return the plan that redoes the error rows of all committed shards, without a listing; or some shards, whole.

    Args:
        opened: the recorded pipeline, its sink, and the resources that the run may use.
        shards: names of shards to label again, also with other content than was planned, or patterns of such names.

    Raises:
        PlanError, ChangedError: there is no sink, or no such shard in it or in the source, or the pipeline does not fit
            the resources, or did not make the labels.
        CheckpointError: the checkpoint cannot be run.
    """
    sink = opened.sink
    record = sink.existing_record()
    pipeline, chosen = with_backends(pinned(opened.pipeline), record)
    plan = plan_without_work(replace(opened, pipeline=pipeline, chosen=chosen), record)
    if shards:
        corpus = _chosen(replace(opened, pipeline=plan.pipeline), record, shards)
        todo = tuple(retry_whole(sink.store, shard) for shard in corpus.shards)
        refuse_without_recordings(corpus, todo, plan.pipeline)
    else:
        damaged: dict[str, str] = {}
        recorded = sink.shards()
        todo = tuple(find_error_rows(sink.store, [*recorded.values()], plan.fingerprint, damaged))
        absent = sink.absent()
        unreadable = {**{shard.name: shard.reason for shard in absent}, **damaged}
        carried = decode(sink.url, record.columns)
        corpus = Corpus(tuple(work.shard for work in todo), unreadable, recorded, absent=absent, carried=carried)
    return replace(plan, corpus=corpus, todo=todo)


def _chosen(opened: Opened, record: RunRecord, patterns: Sequence[str]) -> Corpus:
    """Return the shards of some names, with their current content."""
    pipeline, sink = opened.pipeline, opened.sink
    recorded = sink.shards()
    absent = {shard.name: shard for shard in sink.absent()}
    planned = {**{name: shard.shard for name, shard in absent.items()}, **recorded}
    names = _matching(patterns, sorted(planned), sink.url)
    listing = list_corpus(pipeline.source, planned, recut=True)
    check_root(sink.url, record, listing, recorded)
    present = {shard.name: shard for shard in listing.shards}
    for name in names:
        if name not in present:
            raise PlanError(f"{sink.url}: {name} is no longer in the source; its labels are kept as they are")
    # The other slices of a manifest may begin elsewhere now.
    sliced = {present[name].url for name in names if sources.kind_named(present[name].kind).is_sliced}
    read = names | {name for name in recorded.keys() & present if present[name].url in sliced}
    listing = replace(listing, shards=tuple(shard for shard in listing.shards if shard.name in read))
    types = carried_types(pipeline, sink, record if recorded.keys() - names else None)
    size = piece_size(pipeline, opened.resources, record.resolved)
    corpus = survey(listing, recorded, pipeline, size=size, may_change=names, carried=types)
    kept = tuple(shard for shard in absent.values() if shard.name not in names)
    shards = tuple(shard for shard in corpus.shards if shard.name in names)
    # Without the listing, in which shards that left the source would count as present.
    return replace(corpus, shards=shards, absent=(*kept, *corpus.absent), listed=Listed())


def _matching(patterns: Sequence[str], names: Sequence[str], url: str) -> frozenset[str]:
    """Return the names that match patterns; raise PlanError if a pattern matches none."""
    chosen: set[str] = set()
    for pattern in patterns:
        matching = [name for name in names if name == pattern or fnmatchcase(name, pattern)]
        if not matching:
            raise PlanError(f"{url}: no shard is named {pattern!r}; expected names such as {listed(names, 3)}")
        chosen.update(matching)
    return frozenset(chosen)
