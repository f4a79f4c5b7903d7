"""Optimisers: AdamW, and those that a function of the user returns, go on bit for bit; others are refused."""

import pytest
import torch
from torch import nn

from raysp import PlanError, RunError, Schedule, SpecError
from raysp.training.loop import state
from raysp.training.loop.optimizing import new_optimizer, set_rate
from tests.training import optimizers

FUNCTIONS = "tests.training.optimizers"
NAMES = [None, *(f"{FUNCTIONS}:{name}" for name in ("nadam", "sgd", "adafactor"))]
SHAPES = [(), (7,), (3, 9), (4, 1, 6), (2, 3, 1, 5)]


def parameters() -> list[nn.Parameter]:
    drawn = torch.Generator().manual_seed(3)
    return [nn.Parameter(torch.randn(shape, generator=drawn)) for shape in SHAPES]


def optimizer_of(members: list[nn.Parameter], name: str | None) -> tuple[torch.optim.Optimizer, dict]:
    groups = [
        {"params": [members[3], members[2]], "lr": 1e-2, "weight_decay": 0.1, "rate": 1.0},
        {"params": [members[0], members[1], members[4]], "lr": 1e-2, "weight_decay": 0.0, "rate": 10.0},
    ]
    return new_optimizer(groups, name), dict(zip("abcde", members, strict=True))


def update(optimizer: torch.optim.Optimizer, members: list[nn.Parameter], steps: range) -> None:
    for step in steps:
        drawn = torch.Generator().manual_seed(step)
        for member in members:
            member.grad = torch.randn(member.shape, generator=drawn)
        set_rate(optimizer, 1e-2 * step / 8)  # 0 in the first step, as with a warm-up
        optimizer.step()


@pytest.mark.parametrize("name", NAMES)
def test_an_optimiser_goes_on_from_its_state_bit_for_bit(name, tmp_path):
    whole = parameters()
    update(optimizer_of(whole, name)[0], whole, range(9))
    first = parameters()
    optimizer, named = optimizer_of(first, name)
    update(optimizer, first, range(4))
    state.write(state.moments(optimizer, named), tmp_path / "optimizer")
    second = [nn.Parameter(one.detach().clone()) for one in first]
    optimizer, named = optimizer_of(second, name)
    state.load_moments(optimizer, named, tmp_path / "optimizer")
    update(optimizer, second, range(4, 9))
    assert not torch.equal(whole[2], parameters()[2])
    for mine, expected in zip(second, whole, strict=True):
        assert torch.equal(mine, expected)


def test_adamw_has_the_betas_of_fairseq():
    optimizer, _ = optimizer_of(parameters(), None)
    assert (type(optimizer), optimizer.defaults["betas"], optimizer.defaults["eps"]) == (
        torch.optim.AdamW,
        (0.9, 0.98),
        1e-8,
    )


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nothing", r"schedule.optimizer: '.*:nothing' returned a NoneType; expected a torch.optim.Optimizer"),
        ("others", r"schedule.optimizer: '.*:others' returned an optimiser of other parameters or rates; expected one"),
        ("failing", r"schedule.optimizer: '.*:failing' failed: tests/training/optimizers.py:\d+: KeyError: 'momentum'"),
    ],
)
def test_a_function_without_an_optimiser_of_the_groups_is_refused(name, message):
    with pytest.raises(PlanError, match=message):
        optimizer_of(parameters(), f"{FUNCTIONS}:{name}")


def test_state_that_is_not_a_tensor_is_not_committed():
    members = parameters()
    optimizer, named = optimizer_of(members, f"{FUNCTIONS}:counting")
    update(optimizer, members, range(2))
    with pytest.raises(RunError, match=r"schedule.optimizer: found int in its state 'calls'; expected tensors"):
        state.moments(optimizer, named)


def test_a_function_becomes_its_name():
    assert Schedule(steps=1, optimizer=optimizers.nadam).optimizer == f"{FUNCTIONS}:nadam"
    with pytest.raises(SpecError, match=r"expected a function at the top level of a module"):
        Schedule(steps=1, optimizer="NAdam")
