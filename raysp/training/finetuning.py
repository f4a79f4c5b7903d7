"""The run of a recipe: index, steps, commits, and the exported checkpoint."""

import contextlib
import json
import logging
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import cast

from raysp.audio.isolation import Decoder
from raysp.cluster.addresses import Engine, is_named, refuse_on, requested_engine, uses_cluster
from raysp.cluster.connection import connected
from raysp.devices import is_available, refuse_absent
from raysp.errors import PlanError, RunError, StoreError
from raysp.sink import fault_injection, lease
from raysp.sink.fencing import FencedStore
from raysp.sink.run_record import RunEntry
from raysp.specs.pipeline import load_function
from raysp.specs.values import check_class, to_json
from raysp.storage.store import probe
from raysp.storage.stores import open_store
from raysp.training.checkpoint_export import card, export, figures
from raysp.training.data.row_windows import Failures, read_rows
from raysp.training.described_rows import described_rows
from raysp.training.finetune_result import FinetuneResult
from raysp.training.loop.best_evaluation import refuse_another_rule
from raysp.training.loop.course import Course
from raysp.training.loop.not_finite import NotFiniteError, explained
from raysp.training.loop.predicting import predicted_texts
from raysp.training.loop.process_settings import process_settings, turn_of_process
from raysp.training.loop.session import Session
from raysp.training.loop.worker import new_session
from raysp.training.planning.training_plan import TrainingPlan, plan_training
from raysp.training.preparing import Prepared, prepare
from raysp.training.reading.training_status import FIGURES, LAST_STEPS, LastSteps, best_evaluation
from raysp.training.recording import Recording
from raysp.training.sink import committed_steps, exports, training_record
from raysp.training.sink.step_log import StepRecord, Steps
from raysp.training.sink.training_record import TrainingRecord
from raysp.training.specs.recipe import Finetune
from raysp.training.training_progress import TrainingProgress

logger = logging.getLogger(__name__)

MOST_TEXTS = 5
"""Texts that a try-out shows."""
OnTrainingProgress = Callable[[TrainingProgress], None]
OnIndexed = Callable[[int, int], None]


def finetune(
    recipe: Finetune,
    *,
    restart: bool = False,
    engine: str = "auto",
    address: str | None = None,
    on_indexed: OnIndexed = lambda done, of: None,
    on_plan: Callable[[Prepared], None] | None = None,
    on_progress: OnTrainingProgress | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> FinetuneResult:
    """Train a model by a recipe. The same call again continues from the last committed step.

    Args:
        recipe: the recipe.
        restart: remove the files of earlier runs from the sink, and begin from step 0.
        engine: "here": train in the calling process, with one worker; "ray": by workers on Ray; "auto": RAYSP_ENGINE,
            else "here" for one worker without an address, else "ray".
        address: address of a Ray cluster; None: RAY_ADDRESS, else a local Ray.
        on_indexed: called with the numbers of indexed shards and of all shards.
        on_plan: called with the training once its rows are indexed, before any step.
        on_progress: called after every step.
        should_stop: whether to stop after the current step, which is committed.

    Raises:
        SpecError, PlanError, ChangedError, CheckpointError, StoreError: before any step.
        RunError: a loss is not finite, or too many rows cannot be decoded; committed steps remain.
    """
    check_class(recipe, Finetune, "raysp.run labels by pipelines")
    callbacks = {name: load_function(name) for name in cast("Sequence[str]", recipe.callbacks)}
    with contextlib.ExitStack() as stack:
        chosen = requested_engine(engine, address)
        on_cluster = uses_cluster(engine, address)
        plan = plan_training(recipe, stack.enter_context(connected(address)) if on_cluster else None)
        by_ray = _needs_ray(plan, chosen, address)
        if by_ray:
            refuse_on(["macOS"], "training by several workers or on a cluster needs Linux; use one worker here")
            from raysp.training.on_ray import train_workers
        sink = open_store(plan.recipe.sink.url, plan.recipe.sink.storage_options)
        training_record.refuse_labels(sink)
        probe(sink)
        fault_injection.arm()
        if by_ray and on_cluster:
            from raysp.cluster.shared_places import check_shared

            check_shared(sink, plan.recipe, {name: corpus.shards for name, corpus in plan.corpora.items()})
        store = FencedStore(sink, stack.enter_context(lease.held(sink)).epoch)
        is_new = restart or TrainingRecord.load(store) is None
        if is_new:  # also where a restart was killed
            training_record.remove(store)
            if exports.Export.load(store) is not None:
                logger.warning(
                    "%s: the checkpoint of the earlier training stays until this training is done and replaces it",
                    store.url,
                )
        decoder = stack.enter_context(Decoder())
        prepared = prepare(plan, store, decoder=decoder, on_cluster=by_ray and on_cluster, on_indexed=on_indexed)
        if (committed := committed_steps.latest(store, checks=by_ray)) is not None:
            refuse_another_rule(store.url, committed, prepared.plan.recipe)
        stack.enter_context(lease.work_begun())
        record = _begin(prepared, store, is_new=is_new)
        if on_plan:
            on_plan(prepared)
        failures = Failures(recipe.max_error_rate)
        progress = TrainingProgress(recipe.schedule.epochs)
        recording = Recording(store, record, callbacks, failures)
        stack.push(recording.end)
        if by_ray and not (committed and Course(recipe.schedule).is_done(committed.position)):
            reports = train_workers.train(prepared, failures, should_stop, recording.run_id, store.epoch)
            _follow(reports, prepared, progress, recording, on_progress)
        here = prepared
        if not is_available(plan.workers.device):  # without the GPUs of other machines
            here = replace(prepared, plan=replace(prepared.plan, workers=replace(plan.workers, device="cpu")))
        session = stack.enter_context(_session(here, decoder, failures, store, recording.run_id))
        if not by_ray:
            _follow(session.run(should_stop), prepared, progress, recording, on_progress)
        # From the committed records: steps of this process are those since the last kill.
        log = Steps(store, session.position.done)
        last, best = LastSteps.of(log.last(LAST_STEPS)), best_evaluation(log.evaluations)
        before = best.before.value if best and best.before else None
        result = FinetuneResult.of(prepared, session, progress, last, before=before)
        if result.is_done:
            _export(prepared, session, result, store, decoder)
        return result


def _needs_ray(plan: TrainingPlan, engine: Engine, address: str | None) -> bool:
    """Return whether the workers are actors of Ray: several, on a named cluster, or on GPUs of other machines.

    Raises:
        PlanError, RunError: the engine "here" cannot have several workers, or a device that this machine lacks.
    """
    workers = plan.workers
    if engine != "here":
        return engine == "ray" or workers.high > 1 or is_named(address) or not is_available(workers.device)
    if workers.high > 1:
        raise PlanError(
            f"engine: found 'here' with {workers.words}, expected one: several are actors of Ray; leave the engine "
            "out, or set pool.actors=1"
        )
    refuse_absent(workers.device)
    return False


def try_out(
    recipe: Finetune,
    num_steps: int,
    *,
    on_indexed: OnIndexed = lambda done, of: None,
    on_plan: Callable[[Prepared], None] | None = None,
    on_progress: OnTrainingProgress | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> FinetuneResult:
    """Train for a few steps, of which nothing is kept, and return references and texts of some of the rows.

    Arguments and errors as for `finetune`.
    """
    plan = plan_training(recipe)
    refuse_absent(plan.workers.device)
    failures, progress = Failures(recipe.max_error_rate), TrainingProgress(None)
    with Decoder() as decoder:
        prepared = prepare(plan, None, decoder=decoder, on_indexed=on_indexed).of_length(num_steps)
        if on_plan:
            on_plan(prepared)
        with _session(prepared, decoder, failures) as session:
            _follow(session.run(should_stop), prepared, progress, None, on_progress)
            texts = predicted_texts(prepared, session.training.criterion, decoder, MOST_TEXTS)
        return FinetuneResult.of(prepared, session, progress, progress.averages, texts=texts)


@contextlib.contextmanager
def _session(
    prepared: Prepared, decoder: Decoder, failures: Failures, store: FencedStore | None = None, run_id: str = ""
) -> Iterator[Session]:
    """Yield the session of a worker that trains alone, in this process, as soon as no other thread of it trains."""
    plan = prepared.plan
    reading = partial(read_rows, prepared.reader(decoder), failures)
    settings = process_settings(plan.workers.threads, deterministic=plan.is_deterministic)
    with turn_of_process(), settings, Decoder() as of_evaluations:
        yield new_session(prepared, reading, failures, store, decoder=of_evaluations, run_id=run_id)


def _begin(prepared: Prepared, store: FencedStore, *, is_new: bool) -> TrainingRecord:
    """Add the run to the record of the training, and return it."""
    run = RunEntry.now(resolved=prepared.plan.resolved)
    corpus = f"{prepared.corpus.durations.digest}-{prepared.corpus.targets_digest}"
    of_rows = {training_record.CORPUS: corpus, training_record.RECORDINGS: prepared.corpus.recordings_digest}
    return training_record.begin(
        store,
        TrainingRecord(
            run.started, to_json(prepared.plan.recipe), prepared.fingerprint, {**prepared.parts, **of_rows}, (run,)
        ),
        is_new=is_new,
        shards=[shard.name for shard in prepared.corpus.shards],
        unreadable=prepared.unreadable,
    )


def _follow(
    steps: Generator[tuple[StepRecord, int | None]],
    prepared: Prepared,
    progress: TrainingProgress,
    recording: Recording | None,
    on_progress: OnTrainingProgress | None,
) -> None:
    """Run the steps, count and record them.

    Raises:
        RunError: a loss is not finite, too many rows cannot be decoded, or the sink cannot be written.
    """
    try:
        # Closed here, also after an error of `on_progress`: the end of a training needs the lease, and Ray.
        with contextlib.closing(steps):
            for step, committed in steps:
                progress.add(step, committed)
                if recording:
                    recording.add(step)
                if on_progress:
                    on_progress(progress)
    except NotFiniteError as error:
        raise RunError(explained(error.fault, prepared.corpus)) from None
    except StoreError as error:
        raise RunError(_not_stored(error)) from error


def _not_stored(error: StoreError) -> str:
    return f"{error}. The same command continues from the last committed step"


def _export(prepared: Prepared, session: Session, result: FinetuneResult, store: FencedStore, decoder: Decoder) -> None:
    """Export the checkpoint, unless it is there already: other processes may be reading it."""
    state = exports.state_of(store, result.steps, result.best_step)
    if state and exports.is_exported(store, prepared.fingerprint, state):
        return
    session.load_result(store)
    passes = session.training.criterion.passes
    texts = {
        "README.md": card(prepared, result),
        FIGURES: json.dumps(figures(prepared, result), indent=1) + "\n",
        **prepared.task.files(passes, described_rows(prepared, decoder)),
    }
    try:
        export(prepared, store, passes.model, texts, state)
    except StoreError as error:
        raise RunError(_not_stored(error)) from error
