"""Optimisers that a user wrote, outside raysp."""

import torch


def nadam(groups):
    return torch.optim.NAdam(groups, momentum_decay=0.01)


def sgd(groups):
    return torch.optim.SGD(groups, momentum=0.9, nesterov=True)


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
