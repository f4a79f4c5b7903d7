"""Runs, retries and try-outs of a pipeline: the lease, the plan, the choice of the engine, and the result."""

import contextlib
import logging
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, NamedTuple

import pyarrow as pa

from raysp.cluster.addresses import Engine, is_cluster, resolve_engine
from raysp.cluster.connection import Background, connected, started_ray
from raysp.cluster.resources import Resources
from raysp.errors import RunError, SpecError, StoreError
from raysp.labelling.engine import run_progress
from raysp.labelling.engine.display import OnPlan, OnProgress, in_turn, shown
from raysp.labelling.engine.execution import Execution, Workers
from raysp.labelling.engine.here import Begins, Here, forget_begun, unfinished
from raysp.labelling.engine.job import Job, hang_seconds, sleep_while_waiting
from raysp.labelling.engine.run_progress import Progress
from raysp.labelling.engine.run_result import RunResult, describe, refuse_no_commit
from raysp.labelling.planning.opening import begin, plan_retry, plan_run, read_source
from raysp.labelling.planning.run_plan import Corpus, Opened, Plan, output_schema
from raysp.labelling.planning.trust import read_recorded
from raysp.ops.rows import FILTERED, WITHDRAWN, remedy
from raysp.sink import fault_injection, lease
from raysp.sink.commit import RESULT_SCHEMA
from raysp.sink.label_rows import read_labels
from raysp.sink.receipts import TextColumns
from raysp.sink.run_log import RunLog
from raysp.sink.run_record import RunEntry
from raysp.sink.sinks import SinkState, trial_sink
from raysp.specs.pipeline import Pipeline
from raysp.specs.steps import Keep
from raysp.specs.values import check_class, secret_values, to_json
from raysp.storage.options import GivenOptions
from raysp.storage.store import probe
from raysp.words import count
from raysp.work import SinkRequest

if TYPE_CHECKING:
    from raysp.labelling.finished.label_status import Status

logger = logging.getLogger(__name__)

FEW_ROWS = 20
"""Rows up to which a try-out stays in one process: so few do not gain from reading ahead, actors or other machines."""
MOST_BEGINS = 3
"""Consecutive processes that may crash over a piece before the engine "here" refuses it."""


def run(
    pipeline: Pipeline,
    *,
    rows: int | None = None,
    engine: str = "auto",
    address: str | None = None,
    on_plan: Callable[[Plan], None] | None = None,
    on_progress: OnProgress | None = None,
    progress: bool = True,
) -> RunResult:
    """Label a corpus. The same call again continues where it stopped.

    Args:
        pipeline: the pipeline to run.
        rows: label only the first rows of the corpus, into a temporary sink: nothing is kept, and the result has them
            as a table (`RunResult.table`).
        engine: "here": label in the calling process, without Ray; "ray": on Ray; "auto": RAYSP_ENGINE, else "here" for
            little audio without an address, else "ray". Labels do not depend on it.
        address: address of a Ray cluster; "local": a local Ray that ends with the run; None: RAY_ADDRESS, else a local
            Ray.
        on_plan: called with the plan before any work.
        on_progress: called after every block and commit, and while the last commits are awaited.
        progress: show progress on stderr: one live line on a terminal or in a notebook, else a line every ten seconds.

    Raises:
        SpecError, PlanError, ChangedError, CheckpointError, StoreError: before any work.
        RunError: too many error rows, Ray or the store of the sink failed, or no shard could be committed; committed
            shards remain. With the engine "here" also if three consecutive processes crashed over the same rows.
    """
    check_class(pipeline, Pipeline, "raysp.finetune runs recipes of trainings")
    if rows is not None and rows < 1:
        raise SpecError(f"rows: found {rows!r}, expected a number of rows above 0")
    options = RunOptions(engine, address, on_plan, on_progress, progress)
    result = label_corpus(pipeline, options, rows=rows, is_kept=rows is None)
    if rows is None:
        refuse_no_commit(result)
    return result


def retry(
    url: str,
    storage_options: GivenOptions | None = None,
    *,
    shards: Sequence[str] = (),
    pipeline: Pipeline | None = None,
    trust: bool = False,
    engine: str = "auto",
    address: str | None = None,
    on_plan: Callable[[Plan], None] | None = None,
    on_progress: OnProgress | None = None,
    progress: bool = True,
) -> RunResult:
    """Label the error rows of a sink again, or some of its shards. The values of all other rows stay the same.

    Args:
        url: the sink.
        storage_options: options of the sink; None: those of `pipeline`, or with `trust` the recorded ones.
        shards: names of shards to label again whole, with the content that they have now, or patterns such as
            "2026/*.parquet"; none: the error rows of all shards.
        pipeline: pipeline that made the labels, of which `audio_root`, storage options, pool and `max_error_rate` may
            be others; without `trust` it is required.
        trust: use the recorded pipeline, and everything that it names.
        engine: "here", "ray" or "auto", as for `run`.
        address: address of a Ray cluster; "local": a local Ray that ends with the run; None: RAY_ADDRESS, else a local
            Ray.
        on_plan: called with the plan before any work.
        on_progress: called after every block and commit, and while the last commits are awaited.
        progress: show progress on stderr: one live line on a terminal or in a notebook, else a line every ten seconds.

    Raises:
        PlanError, ChangedError, TrustError, CheckpointError, SpecError, StoreError: before any work.
        RunError: Ray failed; committed shards remain.
    """
    recorded = read_recorded(SinkRequest(url, storage_options, pipeline, trust))
    pipeline = recorded.trusted_pipeline(recorded.sink.shards().values())
    options = RunOptions(engine, address, on_plan, on_progress, progress)
    return label_corpus(pipeline, options, again=(shards,) if isinstance(shards, str) else shards)


class RunOptions(NamedTuple):
    """Engine and display of a run; fields are arguments of `run`."""

    engine: str
    address: str | None
    on_plan: OnPlan | None
    on_progress: OnProgress | None
    progress: bool


def label_corpus(
    pipeline: Pipeline,
    options: RunOptions,
    *,
    rows: int | None = None,
    is_kept: bool = True,
    again: Sequence[str] | None = None,
    default_text: str | None = None,
) -> RunResult:
    """Label a corpus into the sink of its pipeline, or into a temporary one whose rows the result has as a table.

    The engine "auto" labels at most `FEW_ROWS` rows in this process if no cluster is named. If `rows` is set, any share
    of the rows may fail, since the caller shows their errors. Invalid input is rejected before anything is written.
    The other arguments and the errors are those of `run`: `is_kept` is whether labels go to the sink of the pipeline;
    `again` names shards to retry, or is empty for all error rows; `default_text` is as in `Opened`.
    """
    with contextlib.ExitStack() as stack:
        engine, address, on_plan, on_progress, progress = options
        plan_shown, progress_shown = stack.enter_context(shown(on_plan, on_progress, progress=progress))
        requested, resources = resolve_engine(engine, address), None
        if requested == "ray" and is_cluster(address):  # without a cluster a local Ray starts later, if there is work
            resources = stack.enter_context(connected(address))
        if not is_kept:
            is_shared = resources is not None and resources.can_grow
            sink = stack.enter_context(trial_sink(pipeline.sink, is_shared=is_shared))
            most_errors = pipeline.max_error_rate if rows is None else 1.0
            pipeline = replace(pipeline, sink=sink, max_error_rate=most_errors)
        opened = replace(Opened.of(pipeline, resources), default_text=default_text)
        store = opened.sink.store
        stack.enter_context(warnings.catch_warnings())  # modules imported below add filters
        opened.sink.refuse_other_kind()
        probe(store)
        own = stack.enter_context(lease.held(store))
        opened = replace(opened, sink=opened.sink.fenced(own))
        own_ray = Background(partial(_ray_and_its_workers, opened.resources))
        stack.callback(own_ray.end)
        plan = _plan(opened, requested, own_ray, rows, again)
        plan_shown(plan)
        if plan.todo and plan.resources.can_grow:
            from raysp.cluster.shared_places import check_shared

            check_shared(plan.sink.store, plan.pipeline, {"source": [todo.shard for todo in plan.todo]})
        stack.enter_context(lease.work_begun())
        state, failed = _label(plan, stack, own, own_ray, progress_shown)
        status = _status(plan, state)
        return _result(plan, state, failed, status, None if is_kept else _table(plan, failed))


def _plan(
    opened: Opened, engine: Engine, own_ray: Background, limit_rows: int | None, again: Sequence[str] | None
) -> Plan:
    """Return the plan with its engine; the models or Ray are loaded meanwhile."""
    is_few = engine == "auto" and limit_rows is not None and limit_rows <= FEW_ROWS
    if again is not None:
        plan = plan_retry(opened, again)
    else:
        state = SinkState.of(opened.sink)
        opened, corpus = read_source(opened, state, limit_rows)
        if not state.has_results and not is_few:
            _start_early(opened, corpus, engine, own_ray)
        plan = plan_run(opened, state, corpus)
    if own_ray.has_begun:
        own_ray.wait()  # before any output: Ray's start redirects stderr
    if engine == "auto":
        is_little = plan.settings.gpus_per_actor <= 1 if is_few else opened.is_small(todo.shard for todo in plan.todo)
        engine = "here" if is_little and not own_ray.has_begun else "ray"
    return replace(plan, engine=engine)


def _label(
    plan: Plan, stack: contextlib.ExitStack, own: lease.Lease, own_ray: Background, on_progress: OnProgress
) -> tuple[Progress, dict[str, str]]:
    """Record the run and label; return its progress, and shards that failed with reasons."""
    store, faults = plan.sink.store, fault_injection.arm()
    entry = RunEntry.now(resolved=plan.run_settings)
    begin(plan, entry)
    if plan.engine == "here" and plan.todo:
        _check_begun(plan)
    secrets = secret_values(to_json(plan.pipeline))
    log = stack.enter_context(RunLog(store, entry.run_id, secrets=secrets))
    run_progress.begun(log, entry, plan)
    progress = Progress(
        rows_total=plan.rows_todo, shards_total=len(plan.corpus.shards), shards_committed=len(plan.done)
    )
    failed: dict[str, str] = {}
    if plan.todo:
        with run_progress.ending(log, progress):
            job = Job.of(plan, entry.run_id, faults)
            if plan.engine == "here":
                workers: Workers = Here(plan, job, Begins(job.store, entry.run_id, plan.stage_id))
            else:
                own_ray.wait()
                from raysp.labelling.engine.ray_metrics import Exporter
                from raysp.labelling.engine.ray_pool import RayPool

                workers = RayPool(plan, replace(job, hang_seconds=hang_seconds()), log)
                on_progress = in_turn(stack.enter_context(Exporter(plan.pipeline.sink.url, progress)), on_progress)
            failed = Execution(plan, own, log, progress, on_progress, workers)()
    if not failed:
        forget_begun(store)
    log.event("finished", shards_failed=len(failed), **run_progress.totals(progress))
    with contextlib.suppress(StoreError):  # it is written at the end of the run, which warns
        log.flush()
    with fault_injection.passing("run_finished"):
        own.release()
    return progress, {**plan.corpus.unreadable, **failed}


def _start_early(opened: Opened, corpus: Corpus, engine: Engine, own_ray: Background) -> None:
    """Start a local Ray or the import of torch, which go on while the rest is planned."""
    if engine == "ray" or (engine == "auto" and not opened.is_small(corpus.shards)):
        own_ray.begin()
    elif opened.pipeline.reads_audio:
        sleep_while_waiting()
        threading.Thread(target=_import_models).start()


def _import_models() -> None:
    """Import torch and the models; an error is raised where they are used."""
    with contextlib.suppress(ImportError):
        import_module("raysp.models.loading")


def _check_begun(plan: Plan) -> None:
    """Warn of pieces over which a process crashed; raise RunError after `MOST_BEGINS` consecutive crashes over one."""
    times = unfinished(plan.sink.store, plan.stage_id)
    for todo in plan.todo:
        for piece in todo.pieces:
            if not (number := times.get((todo.shard.name, piece.first, piece.end))):
                continue
            where = f"{todo.shard.name}: rows {piece.first:,} to {piece.end - 1:,}"
            if number >= MOST_BEGINS:
                raise RunError(
                    f"{where} were begun by {number} consecutive processes, and each of them ended before these rows "
                    "were done; correct what ends the process, or run again with --engine ray, which isolates such rows"
                )
            logger.warning(
                "%s were begun before by a process that ended early; if this one ends too, run again with --engine ray",
                where,
            )


@contextlib.contextmanager
def _ray_and_its_workers(resources: Resources) -> Iterator[None]:
    """Start a local Ray unless one is connected, and import the code that uses it."""
    with started_ray(resources):
        import_module("raysp.labelling.engine.ray_pool")
        yield


def _nothing_labelled(kinds: Mapping[str, int], rows: int, verb: str, examples: Sequence[str] = ()) -> str | None:
    """Return the reason why no row has a label, with a remedy; None without reasons but filters and `forget`."""
    named = [kind for kind in kinds if kind not in (FILTERED, WITHDRAWN)]
    if not named:
        return None
    counts = ", ".join(f"{number:,} {kind}" for kind, number in kinds.items())
    example = next((f"; for example {example}" for example in examples if f": {named[0]}: " in example), "")
    return f"0 of {count(rows, 'row')} {verb} ({counts}){example}. For {named[0]}: {remedy(named[0])}"


def _table(plan: Plan, failed: Mapping[str, str]) -> pa.Table:
    """Return the label rows of a try-out, in the order of the corpus."""
    shards = [shard for shard in plan.corpus.shards if shard.name not in failed]
    tables = [pa.concat_tables(read_labels(plan.sink.store, shard)).unify_dictionaries() for shard in shards]
    if not tables:
        return pa.schema([*plan.corpus.carried, *RESULT_SCHEMA, *output_schema(*plan.passes)]).empty_table()
    return pa.concat_tables(tables, promote_options="permissive")


def _result(
    plan: Plan, progress: Progress, failed: dict[str, str], status: "Status | None", table: pa.Table | None
) -> RunResult:
    examples = describe(progress.examples, plan.corpus.shards, plan.pipeline)
    kinds = progress.unlabelled
    total = sum(kinds.values())
    nothing_labelled = _nothing_labelled(kinds, total, f"{'was' if total == 1 else 'were'} labelled", examples)
    if status is not None and not plan.todo:
        rows, have = status.rows_committed, "has" if status.rows_committed == 1 else "have"
        nothing_labelled = _nothing_labelled({} if status.ok else status.errors_by_type, rows, f"{have} a label")
    return RunResult(
        sink=plan.pipeline.sink.url,
        fingerprint=plan.fingerprint,
        shards=len(plan.corpus.shards) + len(plan.corpus.unreadable),
        shards_committed=progress.shards_committed,
        shards_before=len(plan.done),
        shards_failed=failed,
        counts=progress.counts,
        wall_seconds=progress.wall_seconds,
        error_examples=examples,
        vanished=plan.corpus.vanished,
        nothing_labelled=nothing_labelled,
        kept=status.kept if status else (),
        word_errors=status.word_errors if status else None,
        passed_over=dict(plan.corpus.listed.passed_over),
        shards_unchanged=progress.unchanged,
        first_shards=tuple(progress.first_shards),
        table=table,
        storage_options=plan.pipeline.sink.storage_options,
    )


def _status(plan: Plan, progress: Progress) -> "Status | None":
    """Return the status of the sink, from its receipts; None if there was work to do and nothing of it is shown."""
    is_shown = TextColumns.of(plan.pipeline) is not None or any(isinstance(step, Keep) for step in plan.pipeline.steps)
    if not progress.shards_committed or (plan.todo and not is_shown):
        return None
    from raysp.labelling.finished.label_status import label_status

    return label_status(SinkRequest(plan.sink.store))
