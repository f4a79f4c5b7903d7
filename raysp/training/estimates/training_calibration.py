"""Speed and peak memory of a worker, measured by training on a few micro-batches in this process."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from raysp.cluster.resources import gpu_memory
from raysp.devices import (
    highest_memory,
    is_accelerator,
    is_out_of_memory,
    memory_bytes,
    refuse_absent,
    reset_highest_memory,
    synchronize,
)
from raysp.errors import PlanError
from raysp.labelling.planning.costs import Speed
from raysp.training.data.micro_batches import MicroBatch
from raysp.training.data.row_windows import Failures, Reading, micro_batch
from raysp.training.loop.process_settings import process_settings
from raysp.training.loop.session import Session
from raysp.training.loop.worker import new_session
from raysp.training.planning.ordering import Window, longest_seconds, micro_batch_costs
from raysp.training.preparing import Prepared
from raysp.words import count, duration

if TYPE_CHECKING:
    from raysp.ops.decoding import Decoder

TIMED = 2
"""Number of micro-batches that are timed; fewer if the window has fewer."""
HELD_WINDOWS = 2
"""Windows in memory: the window in use, and the next window."""
SMALLER = "lower batching.seconds, raise batching.micro_batches, or set schedule.checkpointing=True"


@dataclass(frozen=True)
class Memory:
    """Peak memory of a worker: on a CPU the resident set of the measuring process, on a GPU the bytes of tensors."""

    peak: int
    growth: int
    """Part of the peak that was not in use before the weights were loaded."""
    rows: float
    """Main memory of the decoded rows of two windows, which a worker holds besides; computed, not measured."""
    needed: float
    """Bytes that the workers of this machine need, or a worker of its GPU."""
    limit: float | None
    """Main memory that this process may use, or memory of a GPU; None: unknown."""
    on_gpu: bool

    @property
    def is_too_much(self) -> bool:
        """Whether there is less memory."""
        return self.limit is not None and self.needed > self.limit


@dataclass
class _Chosen:
    """Micro-batches to train on, each a window of its own."""

    largest: dict[int, tuple[float, Window]] = field(default_factory=dict)
    """Those with the most frames, attention scores and labels, with these numbers."""
    timed: list[Window] = field(default_factory=list)
    window_seconds: float = 0.0
    """Seconds of audio of the longest window."""

    @property
    def distinct(self) -> list[Window]:
        """The largest, each once."""
        return [*{window.rows.tobytes(): window for _, window in self.largest.values()}.values()]


class _Times(NamedTuple):
    passes: float
    """Seconds of the step of the timed micro-batches."""
    update: float
    """Seconds of it for the update of the weights."""


def calibrate(prepared: Prepared, decoder: "Decoder | None" = None) -> tuple[Speed, Memory]:
    """Train on the largest micro-batches of the first epoch for the memory, then on usual ones for the speed.

    Nothing is written, and weights stay as they are. The time of an update counts as often as in the training.

    Args:
        prepared: the training.
        decoder: decoding functions; None: of this process.

    Raises:
        PlanError: no row of a micro-batch can be decoded, or the memory of the device is too small.
        CheckpointError: the checkpoint cannot be loaded.
    """
    plan, workers = prepared.plan, prepared.plan.workers
    refuse_absent(workers.device)
    chosen = _chosen(prepared)
    reset_highest_memory(workers.device)
    before = highest_memory(workers.device)
    with process_settings(workers.threads, deterministic=plan.is_deterministic):
        reading = Reading(prepared.reader(decoder), Failures(max_error_rate=1.0))
        session = new_session(prepared, reading, None, decoder=decoder)
        largest = [_decoded(session, window) for window in chosen.distinct]
        timed = [_decoded(session, window) for window in chosen.timed]
        times = _times(session, largest, timed)
    peak = highest_memory(workers.device)
    sample_bytes = max(wave.itemsize for batch in (*largest, *timed) for wave in batch.waves)
    audio = float(sum(prepared.index.seconds[batch.rows].sum() for batch in timed))
    rows = HELD_WINDOWS * chosen.window_seconds * plan.checkpoint.sample_rate * sample_bytes / workers.low
    on_gpu = is_accelerator(workers.device)
    needed, limit = (peak, gpu_memory()) if on_gpu else (workers.low * (peak + rows), float(memory_bytes()))
    return _speed(prepared, audio, times), Memory(peak, max(0, peak - before), rows, needed, limit, on_gpu)


def _speed(prepared: Prepared, audio: float, times: _Times) -> Speed:
    workers = prepared.plan.workers
    of_step = prepared.order.epoch_seconds / prepared.order.first_epoch.num_steps / workers.low
    where = "a GPU" if is_accelerator(workers.device) else count(workers.threads, "CPU")
    busy = max(times.passes - times.update, 0.0) * of_step / audio + times.update
    return Speed(
        of_step / busy,
        f"measured here on {where}: {duration(audio)} of audio in {times.passes:.1f} s, of which an update is "
        f"{times.update:.2f} s",
    )


def _times(session: Session, largest: Sequence[MicroBatch], timed: Sequence[MicroBatch]) -> _Times:
    """Train on the largest micro-batches, as while a commit is written, and return the times of the other ones.

    Raises:
        PlanError: a micro-batch has no rows, or the memory of the device is too small.
    """
    if not all(batch.rows for batch in (*largest, *timed)):
        raise PlanError("--calibrate: no row of a micro-batch can be decoded; state the speed with --rtfx")
    try:
        _seconds(session, largest)  # the first update allocates the moments
        copies = session.state.copied()
        _seconds(session, largest)
        times = _Times(_seconds(session, timed), _seconds(session, []))
        del copies
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        raise PlanError(f"--calibrate: a largest micro-batch needs more memory than there is: {SMALLER}") from error
    return times


def _seconds(session: Session, batches: Sequence[MicroBatch]) -> float:
    """Return the seconds of a step that leaves the weights as they are; without micro-batches, of its update alone."""
    began = time.perf_counter()
    session.training.step(0, 0, batches, learning_rate=0.0)
    if not batches:  # a step without rows updates nothing
        session.training.optimizer.step()
    session.state.update()
    synchronize(session.training.criterion.model.device)
    return time.perf_counter() - began


def _chosen(prepared: Prepared) -> _Chosen:
    """Return the largest micro-batches of the first epoch, and those of middle cost of its first window."""
    plan, corpus, index, epoch = prepared.plan, prepared.corpus, prepared.order.first_index, prepared.order.first_epoch
    crop = getattr(plan.recipe.objective, "crop_seconds", None) or float("inf")
    num_labels = np.append(corpus.num_labels.astype(np.int64), 0)
    chosen = _Chosen()
    for window in epoch.windows_from(0):
        if not chosen.timed:
            costs = micro_batch_costs(window, index, plan.sizes).ravel()
            order = [place for place in np.argsort(costs, kind="stable").tolist() if costs[place]]
            middle = max(0, len(order) // 2 - TIMED // 2)
            chosen.timed = [_alone(window, place) for place in order[middle : middle + TIMED]]
        rows, seconds = np.diff(window.edges), np.minimum(longest_seconds(window, index), crop)
        # An empty micro-batch has another one's labels here, which count for no rows.
        labels = np.maximum.reduceat(num_labels[np.append(window.rows, -1)], window.edges[:-1])
        for measure, sizes in enumerate((rows * seconds, rows * seconds**2, rows * (labels + 1))):
            place = int(np.argmax(sizes))
            if measure not in chosen.largest or sizes[place] > chosen.largest[measure][0]:
                chosen.largest[measure] = float(sizes[place]), _alone(window, place)
        chosen.window_seconds = max(chosen.window_seconds, float(index.seconds[window.rows].sum()))
    return chosen


def _alone(window: Window, place: int) -> Window:
    """Return a window of one micro-batch."""
    first, end = window.edges[place : place + 2]
    return replace(window, rows=window.rows[first:end], edges=np.array([0, end - first]), micro_batches=1)


def _decoded(session: Session, window: Window) -> MicroBatch:
    """Return a micro-batch of the rows that can be decoded, augmented as in the training."""
    return micro_batch(window, 0, 0, session.rows(window))
