"""One worker of a training: model, objective, optimiser and session of a prepared recipe."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, cast

from raysp.sink.fencing import FencedStore
from raysp.training.data.augmenting import AugmentedRows, Speeds, augmentations_of, speeds_of
from raysp.training.data.micro_batches import Rows
from raysp.training.data.mixed_epochs import Mixture
from raysp.training.data.row_windows import Failures
from raysp.training.loop import state
from raysp.training.loop.averaging import MovingAverage
from raysp.training.loop.dev_evaluation import Evaluator
from raysp.training.loop.evaluated import Evaluated, recorded, rule_of
from raysp.training.loop.optimizing import Group, group_parameters, new_optimizer
from raysp.training.loop.session import Course, Evaluations, Session
from raysp.training.loop.step_commits import Keeper
from raysp.training.loop.training_steps import OneWorker, Training, Workers
from raysp.training.objectives.task import Criterion
from raysp.training.planning.ordering import Index
from raysp.training.preparing import Prepared
from raysp.training.sink.step_log import StepLog
from raysp.training.specs.recipe import Schedule

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
        RunError: the committed step cannot be used.
    """
    plan, workers = prepared.plan, workers or OneWorker()
    recipe = plan.recipe
    training, groups = new_training(prepared, workers)
    criterion, model = training.criterion, training.criterion.model
    weights = state.weights(model, trained_only=recipe.objective.trains_few_weights)
    speeds = speeds_of(plan)
    commits = store is not None and workers.number == 0
    session = Session(
        training,
        groups,
        prepared.index,
        plan.sizes,
        course_of(recipe.schedule),
        _augmented(prepared, rows, speeds, decoder),
        _keeper(prepared, store, run_id) if store and commits else None,
        frozen=[*prepared.task.frozen_at_first(model)],
        freeze_steps=recipe.objective.freeze_steps,
        index_of=_index_of(prepared.mixture, speeds),
        first_epoch=None if speeds else prepared.first_epoch,
        average=MovingAverage(weights, recipe.ema) if recipe.ema is not None else None,
        evaluations=_evaluations(prepared, criterion, workers, decoder),
        weights=weights,
        failed=failures.take if failures else tuple,
    )
    if store is not None:
        session.resume(store, prepared.fingerprint)
    return session


def _index_of(mixture: Mixture | None, speeds: Speeds | None) -> Callable[[Index, int], Index] | None:
    """Return the function for the rows of an epoch with their durations; None: all, with the durations of the index."""
    changes = [change.index for change in (mixture, speeds) if change is not None]
    return partial(_changed, changes) if changes else None


def _changed(changes: Sequence[Callable[[Index, int], Index]], index: Index, epoch: int) -> Index:
    for change in changes:
        index = change(index, epoch)
    return index


def _keeper(prepared: Prepared, store: FencedStore, run_id: str | None) -> Keeper:
    recipe = prepared.plan.recipe
    seconds = None if recipe.sink.minutes is None else 60 * recipe.sink.minutes
    return Keeper(
        store,
        prepared.fingerprint,
        recipe.sink.every,
        seconds,
        log=StepLog(store, run_id) if run_id else None,
    )


def new_training(prepared: Prepared, workers: Workers | None = None) -> tuple[Training, list[Group]]:
    """Return the weights and the optimiser of a worker, and the groups of its parameters.

    Args:
        prepared: the training.
        workers: as for `new_session`.

    Raises:
        CheckpointError: the checkpoint cannot be loaded.
        PlanError: as `new_optimizer`.
    """
    plan = prepared.plan
    plan.code.install()
    schedule, criterion = plan.recipe.schedule, Criterion.of(prepared.task, plan)
    groups = group_parameters(criterion.model, head_rate=schedule.head_rate, layer_decay=schedule.layer_decay)
    optimizer = new_optimizer(
        groups,
        learning_rate=schedule.learning_rate,
        weight_decay=schedule.weight_decay,
        name=cast("str | None", schedule.optimizer),
    )
    training = Training(criterion, optimizer, seed=plan.recipe.seed, clip=schedule.clip, workers=workers)
    return training, groups


def _augmented(prepared: Prepared, rows: Rows, speeds: Speeds | None, decoder: "Decoder | None") -> Rows:
    plan = prepared.plan
    augmentations = augmentations_of(plan, decoder)
    if speeds is None and not augmentations:
        return rows
    return AugmentedRows(rows, speeds, augmentations, plan.recipe.seed, len(prepared.index.seconds))


def _evaluations(
    prepared: Prepared, criterion: Criterion, workers: Workers, decoder: "Decoder | None"
) -> Evaluations | None:
    plan, evaluation = prepared.plan, prepared.plan.recipe.evaluation
    if evaluation is None:
        return None
    parts = criterion, workers, decoder
    corpora = plan.evaluated_others
    further = {name: Evaluator(plan, each, *parts, corpus=corpora[name]) for name, each in evaluation.each.items()}
    decides = Evaluator(plan, evaluation, *parts)
    run = partial(_evaluated, decides, further) if further else decides
    assert evaluation.every is not None
    rule = rule_of(evaluation.best, evaluation.normalise)
    return Evaluations(evaluation.every, evaluation.patience, run, rule, partial(recorded, evaluation))


def _evaluated(run: Evaluator, further: Mapping[str, Evaluator]) -> Evaluated:
    return replace(run(), others={name: evaluator() for name, evaluator in further.items()})


def course_of(schedule: Schedule) -> Course:
    """Return the length and learning rates that a spec describes."""
    return Course(
        epochs=schedule.epochs,
        steps=schedule.steps,
        learning_rate=schedule.learning_rate,
        shape=schedule.shape,
        warmup=schedule.warmup,
        final=schedule.final,
    )
