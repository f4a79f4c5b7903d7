"""Files of an exported checkpoint that are computed from rows of the training, such as the space of speakers."""

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import replace

from raysp.audio.isolation import Decoder
from raysp.training.data.micro_batches import MicroBatch
from raysp.training.data.row_windows import Failures, Reading, micro_batch
from raysp.training.objectives.task import Criterion
from raysp.training.planning.ordering import Epoch
from raysp.training.preparing import Prepared


def files_of_rows(prepared: Prepared, criterion: Criterion, decoder: Decoder) -> Mapping[str, str]:
    """Return the contents of the files by name, from rows as they were recorded.

    Args:
        prepared: the training.
        criterion: the trained model.
        decoder: decoding functions.

    Raises:
        RunError: too many rows cannot be decoded.
    """
    task = prepared.task
    if not task.DESCRIBED_ROWS:
        return {}
    return task.files(criterion.passes, _batches(prepared, decoder, task.DESCRIBED_ROWS))


def _batches(prepared: Prepared, decoder: Decoder, most: int) -> Iterator[MicroBatch]:
    """Yield micro-batches with rows in the order of an epoch, until they have at least `most` rows."""
    plan = prepared.plan
    order = Epoch(prepared.index, replace(plan.sizes, by_length=False), seed=plan.recipe.seed, epoch=0)
    # Not the failures of the training, which counted these rows.
    reading = Reading(prepared.reader(decoder), Failures(plan.recipe.max_error_rate))
    num_rows = 0
    for window in order.windows_from(0):
        rows = reading(window)
        for step, number in itertools.product(range(window.num_steps), range(window.micro_batches)):
            batch = micro_batch(window, step, number, rows)
            if batch.rows:
                yield batch
            num_rows += len(batch.rows)
            if num_rows >= most:
                return
