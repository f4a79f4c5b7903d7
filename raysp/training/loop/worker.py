"""One worker of a training: model, optimiser, order, commits and evaluations of a prepared recipe."""

from typing import TYPE_CHECKING, cast

from raysp.sink.fencing import FencedStore
from raysp.training.data.augmenting import AugmentedRows, augmentations_of
from raysp.training.data.micro_batches import Rows
from raysp.training.data.row_windows import Failures
from raysp.training.loop.course import Course
from raysp.training.loop.dev_evaluation import Evaluator
from raysp.training.loop.optimizing import group_parameters, new_optimizer
from raysp.training.loop.session import Session
from raysp.training.loop.step_commits import Keeper
from raysp.training.loop.training_state import TrainingState
from raysp.training.loop.training_steps import OneWorker, Training, Workers
from raysp.training.objectives.task import Criterion
from raysp.training.preparing import Prepared
from raysp.training.sink.step_log import StepLog

if TYPE_CHECKING:
    from raysp.ops.decoding import Decoder


def new_session(
    prepared: Prepared,
    rows: Rows,
    store: FencedStore | None,
    *,
    workers: Workers | None = None,
    decoder: "Decoder | None" = None,
    run_id: str | None = None,
    failures: Failures | None = None,
) -> Session:
    """Return the session of a worker, which goes on from the last committed step.

    Args:
        prepared: the training.
        rows: returns the rows of this worker.
        store: the sink; None: nothing is committed.
        workers: the workers that train together; None: this one trains alone.
        decoder: decoding functions for evaluations, not those by which rows are read meanwhile; None: those of this
            process.
        run_id: id of the run that commits; None: its steps are not recorded.
        failures: the rows that fail, for the records of steps; None: they are not recorded.

    Raises:
        CheckpointError: the checkpoint cannot be loaded.
        PlanError: as `new_optimizer`.
        RunError: the committed step cannot be used.
    """
    plan, workers = prepared.plan, workers or OneWorker()
    recipe, schedule = plan.recipe, plan.recipe.schedule
    criterion = Criterion.of(prepared.task, plan)
    groups = group_parameters(criterion.model, head_rate=schedule.head_rate, layer_decay=schedule.layer_decay)
    optimizer = new_optimizer(
        groups,
        learning_rate=schedule.learning_rate,
        weight_decay=schedule.weight_decay,
        name=cast("str | None", schedule.optimizer),
    )
    training = Training(
        criterion,
        optimizer,
        seed=recipe.seed,
        clip=schedule.clip,
        workers=workers,
        frozen=prepared.task.frozen_at_first(criterion.model),
        freeze_steps=recipe.objective.freeze_steps,
    )
    few = recipe.objective.trains_few_weights
    augmentations, speeds = augmentations_of(plan, decoder), prepared.order.speeds
    if speeds is not None or augmentations:
        rows = AugmentedRows(rows, speeds, augmentations, recipe.seed, len(prepared.index.seconds))
    evaluation = recipe.evaluation
    session = Session(
        training,
        TrainingState(criterion.model, optimizer, groups, decay=recipe.ema, trained_only=few),
        prepared.order,
        Course(schedule),
        rows,
        _keeper(prepared, store, run_id) if store is not None and workers.number == 0 else None,
        evaluator=Evaluator(plan, evaluation, criterion, workers, decoder) if evaluation else None,
        failures=failures,
    )
    if store is not None:
        session.resume(store, prepared.fingerprint)
    return session


def _keeper(prepared: Prepared, store: FencedStore, run_id: str | None) -> Keeper:
    sink = prepared.plan.recipe.sink
    seconds = None if sink.minutes is None else 60 * sink.minutes
    return Keeper(store, prepared.fingerprint, sink.every, seconds, log=StepLog(store, run_id) if run_id else None)
