"""Speed measured by labelling some sampled rows in this process."""

from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from tempfile import TemporaryDirectory

from raysp.audio.isolation import Decoder
from raysp.cluster.resources import count_gpus
from raysp.devices import is_accelerator, release_memory, reset_highest_memory
from raysp.errors import PlanError
from raysp.labelling.engine.job import FatalFailure, Job, LabelledPiece, PieceTodo, sleep_while_waiting
from raysp.labelling.engine.model import Model
from raysp.labelling.engine.piece import label_piece
from raysp.labelling.engine.piece_reading import read_blocks
from raysp.labelling.estimates.row_sampling import Sample
from raysp.labelling.planning.costs import Speed
from raysp.labelling.planning.run_plan import Plan
from raysp.ops.rows import OK
from raysp.sink.receipts import Counts, ShardFailure
from raysp.storage.stores import open_store
from raysp.words import count, duration

LEAST_SECONDS = 30.0
"""Seconds of audio to label, and at least two batches; fewer if the sample has fewer."""


def calibrate(plan: Plan, sample: Sample) -> Speed:
    """Label sampled rows twice as pieces of a run, and return the speed of all `Label` steps by the second receipts.

    Nothing is written but to a scratch folder. The first time is not measured: it allocates memory.

    Raises:
        PlanError: this machine does not have the device of the plan, or no sampled row can be labelled.
        CheckpointError: the checkpoint cannot be loaded.
    """
    settings = plan.settings
    if any(step.settings.device == "cuda" for step in plan.passes) and not count_gpus():
        raise PlanError(
            "--calibrate: the plan runs the model on a GPU, and this machine has none; calibrate where one is, name a "
            "labelled sink with --like, or state the speed with --rtfx"
        )
    sleep_while_waiting()  # before torch is imported
    job = Job.of(plan)
    counts, memory_bytes = Counts(), 0
    with ExitStack() as stack:
        store = open_store(stack.enter_context(TemporaryDirectory(prefix="raysp-")))
        decoder = stack.enter_context(Decoder())
        stack.callback(release_memory, settings.device)
        for device in {step.settings.device for step in plan.passes}:
            reset_highest_memory(device)
        models = Model.of(job)
        for model in models:
            stack.callback(model.close)

        pieces = [*_chosen(plan, sample)]
        read = partial(read_blocks, job, decoder=decoder)
        for is_measured in (False, True):
            for todo in pieces:
                *_, labelled = label_piece(job, models, todo, read, store, "")
                if isinstance(labelled, ShardFailure | FatalFailure):
                    raise PlanError(f"--calibrate: {labelled.reason}")
                if isinstance(labelled, LabelledPiece) and is_measured:
                    counts += labelled.receipt.counts
                    memory_bytes = max(memory_bytes, labelled.memory_bytes)
    if not counts.windows:
        raise PlanError("--calibrate: no sampled row can be labelled; raise --sample, or state the speed with --rtfx")
    audio = counts.audio_seconds * sample.channels_per_second
    where = "a GPU" if is_accelerator(settings.device) else count(settings.cpus_per_actor.number, "CPU")
    return Speed(
        audio / counts.busy_seconds,
        f"measured here on {where}: {duration(audio)} of audio in {counts.busy_seconds:.1f} s",
        memory_bytes,
    )


def _chosen(plan: Plan, sample: Sample) -> Iterator[PieceTodo]:
    """Yield sampled rows that would be labelled as parts of pieces, until they have enough audio."""
    left = max(LEAST_SECONDS, 2 * plan.settings.batch_seconds)
    for part in sample.parts:
        rows = list[int]()
        for number, row in zip(part.numbers, part.statuses, strict=True):
            if row.status == OK and left > 0:
                rows.append(number)
                left -= row.seconds or 0.0
        if rows:
            yield PieceTodo(part.place.shard, part.piece, part.piece, only=tuple(rows))
