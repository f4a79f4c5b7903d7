"""Speed and peak memory of a worker, measured by training on a few micro-batches in this process."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

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
from raysp.ops.decoding import Decoder
from raysp.training.data.micro_batches import MicroBatch
from raysp.training.data.row_windows import Failures, micro_batch, read_rows
from raysp.training.loop.process_settings import process_settings
from raysp.training.loop.session import Session
from raysp.training.loop.worker import new_session
from raysp.training.planning.ordering import Window, longest_seconds
from raysp.training.preparing import Prepared
from raysp.words import count, duration

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


def calibrate(prepared: Prepared, decoder: Decoder | None = None) -> tuple[Speed, Memory]:
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
    largest_windows, timed_windows, window_seconds = _chosen(prepared)
    reset_highest_memory(workers.device)
    before = highest_memory(workers.device)
    with process_settings(workers.threads, deterministic=plan.is_deterministic):
        failures = Failures(max_error_rate=1.0)
        reading = partial(read_rows, prepared.reader(decoder), failures)
        session = new_session(prepared, reading, failures, None, decoder=decoder)
        largest = [micro_batch(window, 0, 0, session.rows(window)) for window in largest_windows]
        timed = [micro_batch(window, 0, 0, session.rows(window)) for window in timed_windows]
        seconds, update_seconds = _times(session, largest, timed)
    peak, on_gpu = highest_memory(workers.device), is_accelerator(workers.device)
    sample_bytes = max(wave.itemsize for batch in (*largest, *timed) for wave in batch.waves)
    rows = HELD_WINDOWS * window_seconds * plan.checkpoint.sample_rate * sample_bytes / workers.low
    needed, limit = (peak, gpu_memory()) if on_gpu else (workers.low * (peak + rows), float(memory_bytes()))
    memory = Memory(peak, max(0, peak - before), rows, needed, limit, on_gpu)
    audio = float(sum(prepared.corpus.durations.seconds[batch.rows].sum() for batch in timed))
    of_step = prepared.order.epoch_seconds / prepared.order.first_epoch.num_steps / workers.low
    busy = max(seconds - update_seconds, 0.0) * of_step / audio + update_seconds
    origin = (
        f"measured here on {'a GPU' if on_gpu else count(workers.threads, 'CPU')}: {duration(audio)} of audio in "
        f"{seconds:.1f} s, of which an update is {update_seconds:.2f} s"
    )
    return Speed(of_step / busy, origin), memory


def _times(session: Session, largest: Sequence[MicroBatch], timed: Sequence[MicroBatch]) -> tuple[float, float]:
    """Run the largest micro-batches with a second copy of the state, as during a commit, then time typical ones.

    Returns:
        Seconds of a step of the typical ones, and of an update alone.

    Raises:
        PlanError: a micro-batch has no rows, or the memory of the device is too small.
    """
    if not all(batch.rows for batch in (*largest, *timed)):
        raise PlanError("--calibrate: no row of a micro-batch can be decoded; state the speed with --rtfx")
    try:
        _seconds(session, largest)  # the first update allocates the moments
        copies = session.state.copied()
        _seconds(session, largest)
        times = _seconds(session, timed), _seconds(session, [])
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


def _chosen(prepared: Prepared) -> tuple[list[Window], list[Window], float]:
    """Return micro-batches to train on, each a window of its own, and the seconds of audio of the longest window.

    Returns:
        Those of the first epoch with the most frames, attention scores and labels, each once; those of middle cost of
        its first window; and the seconds.
    """
    durations, costs = prepared.order.first_epoch.durations, prepared.costs.ravel()
    order = [place for place in np.argsort(costs, kind="stable").tolist() if costs[place]]
    middle = max(0, len(order) // 2 - TIMED // 2)
    timed = [_alone(prepared.first_window, place) for place in order[middle : middle + TIMED]]
    crop = getattr(prepared.plan.recipe.objective, "crop_seconds", None) or float("inf")
    num_labels = np.append(prepared.corpus.num_labels.astype(np.int64), 0)
    largest: dict[int, tuple[float, Window]] = {}
    window_seconds = 0.0
    for window in prepared.order.first_epoch.windows_from(0):
        rows, seconds = np.diff(window.edges), np.minimum(longest_seconds(window, durations), crop)
        # An empty micro-batch has another one's labels here, which count for no rows.
        labels = np.maximum.reduceat(num_labels[np.append(window.rows, -1)], window.edges[:-1])
        for measure, sizes in enumerate((rows * seconds, rows * seconds**2, rows * (labels + 1))):
            place = int(np.argmax(sizes))
            if measure not in largest or sizes[place] > largest[measure][0]:
                largest[measure] = float(sizes[place]), _alone(window, place)
        window_seconds = max(window_seconds, float(durations.seconds[window.rows].sum()))
    distinct = {window.rows.tobytes(): window for _, window in largest.values()}
    return [*distinct.values()], timed, window_seconds


def _alone(window: Window, place: int) -> Window:
    """Return a window of one micro-batch."""
    first, end = window.edges[place : place + 2]
    return replace(window, rows=window.rows[first:end], edges=np.array([0, end - first]), micro_batches=1)
