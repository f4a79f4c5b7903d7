"""Tasks of windows that the feeder starts and forgets."""

import numpy as np
import pytest

from raysp.training.on_ray.rank_input import Feeder
from raysp.training.planning.ordering import Window

NUM_WORKERS = 2
ORDER = [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (2, 0), (3, 0)]
"""Epochs of three, two, one and one windows."""


class Counting(Feeder):
    """Feeder of places, not rows."""

    def __init__(self) -> None:
        self.begun = {}
        self.starts: list[tuple[int, int]] = []

    def _begin(self, window, num_workers):
        self.starts.append((window.epoch, window.number))
        return [[(window.epoch, window.number, worker) for worker in range(num_workers)]]


def window(epoch: int, number: int) -> Window:
    none = np.zeros(0, np.int64)
    return Window(epoch, number, 0, none, none, np.zeros(1, np.int64), NUM_WORKERS)


@pytest.fixture
def feeder() -> Counting:
    return Counting()


def test_a_window_is_started_once_though_a_worker_is_one_behind(feeder):
    for ahead, behind in zip(ORDER[1:], ORDER, strict=False):
        assert feeder.rows(window(*ahead), 0, NUM_WORKERS) == [(*ahead, 0)]
        assert feeder.rows(window(*behind), 1, NUM_WORKERS) == [(*behind, 1)]
        assert {key[:2] for key in feeder.begun} == {ahead, behind}
    assert sorted(feeder.starts) == ORDER


def test_windows_of_another_number_of_workers_are_forgotten(feeder):
    feeder.rows(window(0, 0), 0, NUM_WORKERS)
    feeder.rows(window(0, 1), 0, NUM_WORKERS + 1)
    assert [*feeder.begun] == [(0, 1, NUM_WORKERS + 1)]
