"""Optimisers of torch by their names: those that train go on bit for bit, the others are refused with the reason."""

import inspect

import pytest
import torch
from torch import nn

from raysp import PlanError, Schedule
from raysp.training.loop import state
from raysp.training.loop.optimizing import Group, new_optimizer, set_rate
from raysp.training.planning.optimizers import settled_optimizer

REFUSED = {"LBFGS", "Muon", "Rprop", "SparseAdam"}
NAMES = sorted(
    name
    for name, one in vars(torch.optim).items()
    if inspect.isclass(one) and issubclass(one, torch.optim.Optimizer) and one is not torch.optim.Optimizer
)
TRAINING = [(name, {}) for name in NAMES if name not in REFUSED]
TRAINING += [
    ("AdamW", {"betas": (0.8, 0.9), "amsgrad": True}),
    ("AdamW", {"fused": True}),
    ("SGD", {"momentum": 0.9, "nesterov": True}),
    ("RMSprop", {"momentum": 0.5, "centered": True}),
    ("NAdam", {"decoupled_weight_decay": True}),
]
SHAPES = [(), (7,), (3, 9), (4, 1, 6), (2, 3, 1, 5)]


def parameters() -> list[nn.Parameter]:
    drawn = torch.Generator().manual_seed(3)
    return [nn.Parameter(torch.randn(shape, generator=drawn)) for shape in SHAPES]


def optimizer_of(members: list[nn.Parameter], name: str, options: dict) -> tuple[torch.optim.Optimizer, list[Group]]:
    groups = [
        Group(("d", "c"), (members[3], members[2]), 1.0, decays=True),
        Group(("a", "b", "e"), (members[0], members[1], members[4]), 10.0, decays=False),
    ]
    return new_optimizer(groups, learning_rate=1e-2, weight_decay=0.1, name=name, options=options), groups


def update(optimizer: torch.optim.Optimizer, members: list[nn.Parameter], steps: range) -> None:
    for step in steps:
        drawn = torch.Generator().manual_seed(step)
        for member in members:
            member.grad = torch.randn(member.shape, generator=drawn)
        set_rate(optimizer, 1e-2 * step / 8)  # 0 in the first step, as with a warm-up
        optimizer.step()


@pytest.mark.parametrize(("name", "options"), TRAINING)
def test_an_optimiser_goes_on_from_its_state_bit_for_bit(name, options, tmp_path):
    whole = parameters()
    update(optimizer_of(whole, name, options)[0], whole, range(9))
    first = parameters()
    optimizer, groups = optimizer_of(first, name, options)
    update(optimizer, first, range(4))
    state.write(state.moments(optimizer, groups), tmp_path / "optimizer")
    second = [nn.Parameter(one.detach().clone()) for one in first]
    optimizer, groups = optimizer_of(second, name, options)
    state.load_moments(optimizer, groups, tmp_path / "optimizer")
    update(optimizer, second, range(4, 9))
    assert not torch.equal(whole[2], parameters()[2])
    for mine, expected in zip(second, whole, strict=True):
        assert torch.equal(mine, expected)


def test_adamw_has_the_betas_of_fairseq_unless_others_are_given():
    members = parameters()
    assert optimizer_of(members, "AdamW", {})[0].defaults["betas"] == (0.9, 0.98)
    assert optimizer_of(members, "AdamW", {"eps": 1e-6})[0].defaults["betas"] == (0.9, 0.98)
    assert optimizer_of(members, "AdamW", {"betas": (0.8, 0.9)})[0].defaults["betas"] == (0.8, 0.9)
    assert optimizer_of(members, "NAdam", {})[0].defaults["betas"] == (0.9, 0.999)


@pytest.mark.parametrize("name", ["NAdam", "nadam", "torch.optim.NAdam"])
def test_names_are_those_of_torch_in_any_case(name):
    assert settled_optimizer(Schedule(steps=1, optimizer=name)).optimizer == "NAdam"


def test_every_optimiser_of_torch_trains_or_is_refused():
    refused = set()
    for name in NAMES:
        try:
            settled_optimizer(Schedule(steps=1, optimizer=name))
        except PlanError:
            refused.add(name)
    assert refused == REFUSED & {*NAMES}


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("Lion", {}, r"schedule.optimizer: found 'Lion'; expected an optimiser of torch by its name: ASGD, Adadelta"),
        ("os.system", {}, r"found 'os.system'; expected an optimiser"),
        ("Optimizer", {}, r"found 'Optimizer'; expected an optimiser"),
        ("LBFGS", {}, r"torch.optim.LBFGS\(\): it is made for gradients of the whole corpus"),
        ("SparseAdam", {}, r"torch.optim.SparseAdam\(\): it is made for sparse gradients"),
        ("Rprop", {}, r"torch.optim.Rprop\(\): it is made for gradients of the whole corpus"),
        ("SGD", {"lr": 1.0}, r"SGD\(lr=1.0\): lr is given; set schedule.learning_rate instead"),
        ("SGD", {"weight_decay": 1.0}, r"weight_decay is given; set schedule.weight_decay instead"),
        ("Adam", {"capturable": True}, r"capturable is given, which the loop of a training does not support"),
        ("SGD", {"betas": (0.9, 0.9)}, r"SGD\(betas=\(0.9, 0.9\)\): .*unexpected keyword argument 'betas'"),
        ("AdamW", {"betas": [0.9, 1.5]}, r"AdamW\(betas=\(0.9, 1.5\)\): Invalid beta parameter"),
        ("AdamW", {"betas": "high"}, r"AdamW\(betas='high'\): "),
    ],
)
def test_optimisers_that_cannot_train_are_refused_with_the_reason(name, options, message):
    with pytest.raises(PlanError, match=message):
        settled_optimizer(Schedule(steps=1, optimizer=name, optimizer_options=options))
