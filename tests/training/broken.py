"""An objective of one's own whose loss is not a number."""

from dataclasses import replace
from typing import ClassVar

import torch

import raysp
from raysp.specs import spec
from raysp.training.data.micro_batches import Losses, MicroBatch
from raysp.training.objectives.ctc_task import CTCTask
from raysp.training.objectives.passes import Passes


@spec
class BrokenCTC(raysp.CTC):
    """CTC whose loss is not a number for the row 7 of the corpus, or for all rows from the row 7 on."""

    TASK: ClassVar[str] = f"{__name__}:BrokenTask"
    all: bool = False


class BrokenTask(CTCTask):
    """Loss of `BrokenCTC`."""

    seen: ClassVar[set[int]] = set()

    def loss(self, passes: Passes, batch: MicroBatch) -> Losses:
        losses = super().loss(passes, batch)
        self.seen.update(batch.rows)
        broken = torch.tensor([row == 7 or (self.spec.all and 7 in self.seen) for row in batch.rows])
        rows = torch.where(broken, torch.nan, losses.rows_B)
        return replace(losses, total=losses.total + rows.sum() - losses.rows_B.sum(), rows_B=rows)
