"""Speed measured by labelling some sampled rows in this process."""

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pyarrow as pa

from raysp.cluster.resources import count_gpus
from raysp.devices import is_accelerator
from raysp.errors import PlanError
from raysp.labelling import assembly
from raysp.labelling.estimates.row_sampling import Sample
from raysp.labelling.planning.costs import Speed
from raysp.labelling.planning.run_plan import Plan
from raysp.ops.rows import OK, row_statuses
from raysp.words import count, duration

if TYPE_CHECKING:
    from raysp.ops.labelling import Figures

LEAST_SECONDS = 30.0
"""Seconds of audio to label, and at least two batches; fewer if the sample has fewer."""


def calibrate(plan: Plan, sample: Sample) -> Speed:
    """Decode and label sampled rows by the ops of the run, and return the speed of the second of two equal passes.

    Nothing is written. The model is loaded first, and the first pass is not timed: it allocates memory.

    Raises:
        PlanError: this machine does not have the device of the plan, or no sampled row can be labelled.
        CheckpointError: the checkpoint cannot be loaded.
    """
    settings = plan.settings
    if settings.device == "cuda" and not count_gpus():
        raise PlanError(
            "--calibrate: the plan runs the model on a GPU, and this machine has none; calibrate where one is, name a "
            "labelled sink with --like, or state the speed with --rtfx"
        )
    began = time.perf_counter()
    blocks = [*_blocks(plan, sample, max(LEAST_SECONDS, 2 * settings.batch_seconds))]
    decoding_seconds = time.perf_counter() - began
    with ThreadPoolExecutor(1) as thread:  # as in an actor: torch's number of threads is set for it
        figures = thread.submit(_labelled, plan, blocks).result()
    busy = sum(one.busy_seconds for one in figures)
    audio = sum(_seconds(block) for _, block in blocks)
    if not audio:
        raise PlanError("--calibrate: no sampled row can be labelled; raise --sample, or state the speed with --rtfx")
    where = "a GPU" if is_accelerator(settings.device) else count(settings.cpus_per_actor.number, "CPU")
    return Speed(
        audio / busy,
        f"measured here on {where}: {duration(audio)} of audio in {busy:.1f} s",
        audio / decoding_seconds,
        max(one.memory_bytes for one in figures),
    )


def _labelled(plan: Plan, blocks: Sequence[tuple[str, pa.Table]]) -> "list[Figures]":
    """Label blocks twice, and return the figures of the second time."""
    op = assembly.labelling(plan.pipeline, plan.settings, threads=plan.settings.cpus_per_actor.number)
    for shard, block in blocks:
        op(block, shard)
    return [op(block, shard)[1] for shard, block in blocks]


def _blocks(plan: Plan, sample: Sample, most_seconds: float) -> Iterator[tuple[str, pa.Table]]:
    """Yield decoded blocks of sampled rows with the names of their shards, until they have `most_seconds` of audio."""
    left = most_seconds
    for part in sample.parts:
        if left <= 0:
            return
        chosen: list[int] = []
        for index, one in enumerate(part.statuses):
            if one.seconds and one.status == OK and left > 0:
                chosen.append(index)
                left -= one.seconds
        op = assembly.decoding(plan.pipeline, plan.settings, part.place.shard)
        if chosen:
            yield from ((part.place.shard.name, block) for block in op(part.table.take(chosen), part.place.first))


def _seconds(block: pa.Table) -> float:
    """Return the seconds of audio of the labelled channels of a block whose windows are ok."""
    return float(sum(one.seconds or 0.0 for one in row_statuses(block) if one.status == OK))
