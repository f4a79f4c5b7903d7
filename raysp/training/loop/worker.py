"""One worker of a training: model, optimiser, order, commits and evaluations of a prepared recipe."""

from typing import cast

from raysp.ops.decoding import Decoder
from raysp.sink.fencing import FencedStore
from raysp.training.data.augmenting import AugmentedRows, augmentations_of
from raysp.training.data.micro_batches import Rows
from raysp.training.data.row_windows import Failures
from raysp.training.loop.course import Course
from raysp.training.loop.dev_evaluation import Evaluator
from raysp.training.loop.optimizing import group_parameters, new_optimizer
from raysp.training.loop.session import Session
from raysp.training.loop.state import TrainingState
from raysp.training.loop.step_commits import Keeper
from raysp.training.loop.training_steps import Training, WorkerGroup
from raysp.training.objectives.task import Criterion
from raysp.training.preparing import Prepared
from raysp.training.sink.step_log import StepLog

ALONE = WorkerGroup()


def new_session(
    prepared: Prepared,
    rows: Rows,
    failures: Failures,
    store: FencedStore | None,
    *,
    workers: WorkerGroup = ALONE,
    decoder: Decoder | None = None,
    run_id: str = "",
) -> Session:
    """Return the session of a worker, which goes on from the last committed step.

    Args:
        prepared: the training.
        rows: returns the rows of this worker.
        failures: the rows that fail, for the records of steps.
        store: the sink; None: nothing is committed.
        workers: the workers that train together.
        decoder: decoding functions for evaluations and the sounds of augmentations, not shared with the thread that
            reads rows; None: those of this process.
        run_id: id of the run that commits.

    Raises:
        CheckpointError: the checkpoint cannot be loaded.
        PlanError: as `new_optimizer` and `augmentations_of`.
        RunError: the committed step cannot be used.
    """
    plan = prepared.plan
    recipe, schedule = plan.recipe, plan.recipe.schedule
    criterion = Criterion.of(prepared.task, plan)
    optimizer = new_optimizer(group_parameters(criterion.model, schedule), cast("str | None", schedule.optimizer))
    training = Training(
        criterion,
        optimizer,
        seed=recipe.seed,
        clip=schedule.clip,
        workers=workers,
        frozen=[*prepared.task.frozen_at_first(criterion.model)] if recipe.objective.freeze_steps else (),
        freeze_steps=recipe.objective.freeze_steps,
    )
    augmentations, speeds = augmentations_of(plan, decoder), prepared.order.speeds
    if speeds is not None or augmentations:
        rows = AugmentedRows(rows, speeds, augmentations, recipe.seed, len(prepared.corpus.durations.seconds))
    keeper = None
    if store is not None and workers.number == 0:
        keeper = Keeper(store, prepared.fingerprint, recipe.sink, StepLog(store, run_id))
    session = Session(
        training,
        TrainingState(criterion.model, optimizer, decay=recipe.ema, trained_only=recipe.objective.trains_few_weights),
        prepared.order,
        Course(schedule),
        rows,
        failures,
        keeper,
        evaluator=Evaluator(plan, criterion, workers, decoder) if recipe.evaluation else None,
    )
    if store is not None:
        session.resume(store, prepared.fingerprint)
    return session
