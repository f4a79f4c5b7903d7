"""Speed and memory of a worker, measured by training on a few micro-batches in this process."""

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from raysp.devices import highest_memory, is_accelerator, synchronize
from raysp.errors import PlanError
from raysp.labelling.planning.costs import Speed
from raysp.training.data.micro_batches import MicroBatch, TrainingRow
from raysp.training.loop import state
from raysp.training.loop.averaging import MovingAverage
from raysp.training.loop.process_settings import process_settings
from raysp.training.loop.training_steps import Training
from raysp.training.loop.worker import new_training
from raysp.training.planning.ordering import micro_batch_costs
from raysp.training.preparing import Prepared
from raysp.training.specs.objectives import trains_few_weights
from raysp.words import count, duration

if TYPE_CHECKING:
    from raysp.ops.decoding import Decoder

TIMED = 2
"""Number of micro-batches that are timed; fewer if the window has fewer."""


def calibrate(prepared: Prepared, decoder: "Decoder | None" = None) -> Speed:
    """Train on the largest micro-batch of the first window, then on two of middle cost, and return the latter's speed.

    Nothing is written. The first pass allocates memory, and is not timed. The time of an update counts as often as
    in the training.

    Args:
        prepared: the training.
        decoder: decoding functions; None: of this process.

    Raises:
        PlanError: no row of a micro-batch can be decoded.
        CheckpointError: the checkpoint cannot be loaded.
    """
    plan = prepared.plan
    workers = plan.workers
    warm_up, *timed = _micro_batches(prepared, decoder)
    with process_settings(workers.threads, deterministic=plan.is_deterministic):
        training, groups = new_training(prepared)
        weights = state.weights(training.objective.model, trained_only=trains_few_weights(plan.recipe.objective))
        average = MovingAverage(weights, plan.recipe.ema) if plan.recipe.ema is not None else None
        _seconds(training, [warm_up], average)
        copies = state.copied(weights), state.moments(training.optimizer, groups)  # as while a commit is written
        passes = _seconds(training, timed, average)
        update = _seconds(training, [], average)
        del copies
    audio = _audio_seconds(prepared, timed)
    of_step = float(prepared.first_index.seconds.sum()) / prepared.first_epoch.num_steps / workers.low
    where = "a GPU" if is_accelerator(workers.device) else count(workers.threads, "CPU")
    busy = max(passes - update, 0.0) * of_step / audio + update
    return Speed(
        of_step / busy,
        f"measured here on {where}: {duration(audio)} of audio in {passes:.1f} s, of which an update is {update:.2f} s",
        memory_bytes=highest_memory(workers.device),
    )


def _seconds(training: Training, batches: Sequence[MicroBatch], average: MovingAverage | None) -> float:
    """Return the seconds of a step that leaves the weights as they are; without micro-batches, of its update alone."""
    began = time.perf_counter()
    training.step(0, 0, batches, learning_rate=0.0)
    if not batches:  # a step without rows updates nothing
        training.optimizer.step()
    if average is not None:
        average.update()
    synchronize(training.objective.model.device)
    return time.perf_counter() - began


def _micro_batches(prepared: Prepared, decoder: "Decoder | None") -> list[MicroBatch]:
    """Return the largest micro-batch of the first window, and micro-batches of middle cost to time.

    Raises:
        PlanError: all rows of a micro-batch fail to decode.
    """
    window = prepared.first_window
    costs = micro_batch_costs(window, prepared.index, prepared.plan.sizes).ravel()
    order = [index for index in np.argsort(costs, kind="stable").tolist() if costs[index]]
    middle = max(0, len(order) // 2 - TIMED // 2)
    chosen = [order[-1], *order[middle : middle + TIMED]]
    edges, number = window.edges, window.micro_batches
    batches = [
        _decoded(prepared, place % number, window.rows[edges[place] : edges[place + 1]], decoder) for place in chosen
    ]
    if not all(index.rows for index in batches):
        raise PlanError(
            "--calibrate: no row of a micro-batch of the first window can be decoded; state the speed with --rtfx"
        )
    return batches


def _decoded(
    prepared: Prepared, number: int, rows: Sequence[int] | np.ndarray, decoder: "Decoder | None"
) -> MicroBatch:
    """Return a micro-batch of the rows that can be decoded."""
    read, first_rows = prepared.reader(decoder), prepared.corpus.piece_rows
    ordered = np.sort(np.asarray(rows))
    pieces = np.searchsorted(first_rows, ordered, side="right") - 1
    decoded: dict[int, TrainingRow] = {}
    for piece in np.unique(pieces).tolist():
        decoded |= read(piece, ordered[pieces == piece].tolist()).rows
    kept = [row for row in ordered.tolist() if row in decoded]
    return MicroBatch(number, kept, [decoded[row].wave for row in kept], [decoded[row].target for row in kept])


def _audio_seconds(prepared: Prepared, batches: Sequence[MicroBatch]) -> float:
    return float(sum(float(prepared.index.seconds[row]) for batch in batches for row in batch.rows))
