"""Optimisers that a user wrote, outside raysp."""

from typing import ClassVar

import torch


class Interruptible(torch.optim.AdamW):
    """AdamW that is interrupted amid an update, as by Ctrl-C, after some of its weights changed."""

    left: ClassVar[int] = 0
    """Updates until the interrupted one, which is the last of them; 0: none is interrupted."""

    def step(self, closure=None):
        if Interruptible.left:
            Interruptible.left -= 1
            if not Interruptible.left:
                self.param_groups[0]["params"][0].data.add_(1.0)
                raise KeyboardInterrupt
        return super().step(closure)


def interruptible(groups):
    return Interruptible(groups)


def nadam(groups):
    return torch.optim.NAdam(groups, momentum_decay=0.01)


def adafactor(groups):
    return torch.optim.Adafactor(groups)


def others(groups):
    return torch.optim.SGD([weight for group in groups for weight in group["params"]], lr=0.1)


def nothing(groups):
    return None


def failing(groups):
    raise KeyError("momentum")


class Counting(torch.optim.SGD):
    """An optimiser whose state has a number that is not a tensor."""

    def step(self, closure=None):
        for group in self.param_groups:
            for weight in group["params"]:
                self.state[weight]["calls"] = self.state[weight].get("calls", 0) + 1
        return super().step(closure)


def counting(groups):
    return Counting(groups)
