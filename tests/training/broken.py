"""Objectives of one's own whose losses are not numbers, or are no losses."""

import sys
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


@spec
class UnusableCTC(raysp.CTC):
    """CTC whose loss returns a wrong value in a field of `Losses`, or for "itself" in their place."""

    TASK: ClassVar[str] = f"{__name__}:UnusableTask"
    field: str = ""


class UnusableTask(CTCTask):
    """Loss of `UnusableCTC`."""

    def loss(self, passes: Passes, batch: MicroBatch) -> Losses:
        losses = super().loss(passes, batch)
        if self.spec.field == "exit":
            sys.exit("no")
        wrong = {"count": 0.0, "total": losses.total.detach(), "rows_B": losses.rows_B[:0]}
        return replace(losses, **{self.spec.field: wrong[self.spec.field]}) if self.spec.field in wrong else None
