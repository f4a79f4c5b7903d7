"""Trainings of several workers, in threads of which one computes at a time, since all draw from torch's generator."""

import threading
from collections.abc import Callable, Sequence

import pytest
import torch

from raysp.training.data.micro_batches import MicroBatch
from raysp.training.loop.training_steps import Training, WorkerGroup


class Team:
    """Meeting place of the workers."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.turn = threading.Lock()
        self.met = threading.Barrier(count, timeout=120)
        self.values: list[torch.Tensor] = []
        self.gathered: dict[int, object] = {}


class Member:
    def __init__(self, team: Team, number: int) -> None:
        self.team, self.number, self.count = team, number, team.count

    def add(self, values: torch.Tensor) -> None:
        team = self.team
        team.values.append(values)
        team.turn.release()
        if team.met.wait() == 0:
            team.total = torch.stack(sorted_by_first(team.values)).sum(0)
            team.values = []
        team.met.wait()
        team.turn.acquire()
        values.copy_(team.total)

    def gather(self, value: object) -> list[object]:
        team = self.team
        team.gathered[self.number] = value
        team.turn.release()
        team.met.wait()
        found = [team.gathered[number] for number in range(self.count)]
        team.met.wait()
        team.turn.acquire()
        return found


def sorted_by_first(values: list[torch.Tensor]) -> list[torch.Tensor]:
    """Return tensors in an order that does not depend on which thread came first."""
    return sorted(values, key=lambda one: one[:100].tolist())


def train(
    training: Training, steps: Sequence[Sequence[MicroBatch]], first: int = 0, count: int = 24, rate: float = 2e-3
) -> list[float]:
    """Run steps, the same ones in each epoch, and return the losses."""
    workers, losses = training.workers, []
    for done in range(first, first + count):
        epoch, step = divmod(done, len(steps))
        own = [batch for batch in steps[step] if batch.number % workers.count == workers.number]
        losses.append(training.step(epoch, step, own, learning_rate=rate).loss)
    return losses


def assert_equal_curves(
    new_training: Callable[[WorkerGroup | None], Training],
    steps: Sequence[Sequence[MicroBatch]],
    expected: tuple[list[float], Training],
    num_workers: int,
) -> None:
    """Train with several workers, and compare losses and weights with those of one."""
    team, (losses_of_one, one) = Team(num_workers), expected
    found: dict[int, tuple[list[float], Training]] = {}

    def work(number: int) -> None:
        with team.turn:
            member = new_training(Member(team, number))
            found[number] = train(member, steps, count=len(losses_of_one)), member

    threads = [threading.Thread(target=work, args=(number,)) for number in range(num_workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == num_workers
    for losses, member in found.values():
        assert losses == pytest.approx(losses_of_one, rel=1e-5)
        for mine, other in zip(parameters(member), parameters(one), strict=True):
            torch.testing.assert_close(mine, other, rtol=1e-3, atol=1e-4)
    assert len({tuple(losses) for losses, _ in found.values()}) == 1  # bit for bit on all workers


def parameters(training: Training) -> list[torch.Tensor]:
    return [*training.criterion.model.parameters()]
