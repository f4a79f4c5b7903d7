"""Training rows without augmentation, from which further files of the checkpoint (speakers.json) are computed."""

import itertools
from collections.abc import Iterator
from dataclasses import replace

from raysp.audio.isolation import Decoder
from raysp.training.data.micro_batches import MicroBatch
from raysp.training.data.row_windows import Failures, micro_batch, read_rows
from raysp.training.planning.ordering import Epoch
from raysp.training.preparing import Prepared


def described_rows(prepared: Prepared, decoder: Decoder) -> Iterator[MicroBatch]:
    """Yield micro-batches in the order of an epoch, until they have the `DESCRIBED_ROWS` of the task.

    Raises:
        RunError: too many rows cannot be decoded.
    """
    plan, num_rows = prepared.plan, 0
    order = Epoch(prepared.corpus.durations, replace(plan.sizes, by_length=False), seed=plan.recipe.seed, epoch=0)
    # Not the failures of the training, which counted these rows.
    reader, failures = prepared.reader(decoder), Failures(plan.recipe.max_error_rate)
    for window in order.windows_from(0):
        rows = read_rows(reader, failures, window)
        for step, number in itertools.product(range(window.num_steps), range(window.micro_batches)):
            if num_rows >= prepared.task.DESCRIBED_ROWS:
                return
            batch = micro_batch(window, step, number, rows)
            if batch.rows:
                yield batch
            num_rows += len(batch.rows)
