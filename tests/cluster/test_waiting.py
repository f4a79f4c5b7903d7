"""A run waits for a busy cluster, reports what is missing, and ends after a limit.

The clock is given to the inside: a test can wait for no two hours.
"""

import logging
import re

import pytest
import ray

from raysp import RunError, run
from raysp.cluster.waiting import Waiting
from tests.runs import DEMO

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("local_ray")]

ACTOR, READER = ("a model actor", {"CPU": 2.0, "GPU": 1.0}), ("a reader", {"CPU": 1.0})
NOTHING = ("", {"CPU": 1.0})


class Waiter:
    """A run that waits, with a clock that a test moves on."""

    def __init__(self) -> None:
        self.now = 0.0
        self.warnings: list[str] = []
        self.waiting = Waiting(self.warnings.append, clock=lambda: self.now)

    def pass_by(self, seconds: float, missing: tuple[str, dict[str, float]] = ACTOR, steps: int = 10) -> None:
        """Look once every few seconds."""
        for _ in range(int(seconds) // steps):
            self.now += steps
            self.waiting.look(*missing)


def test_missing_resources_are_named_after_a_minute_then_at_growing_intervals(caplog):
    caplog.set_level(logging.WARNING)
    waiter = Waiter()
    waiter.pass_by(60)
    assert waiter.warnings == []
    waiter.pass_by(10)
    assert waiter.warnings == [one for one in caplog.messages if "waiting" in one]
    [said] = waiter.warnings
    assert said.startswith("waiting for the cluster for 1:00: a model actor requests 2 CPUs, 1 GPU on one node; ")
    assert re.search(
        r"GPUs? free of 3 CPUs, .*\. Other workers use the rest, or nodes are still starting; the run ", said
    )
    waiter.pass_by(1200)
    assert len(waiter.warnings) == 5  # after 1, 2, 4, 8 and 16 minutes


def test_the_run_ends_after_the_limit_with_the_remedy():
    with pytest.raises(RunError, match=r"no worker could start for 2:00:00: .*GPUs? free of.* Run again when .* pool"):
        Waiter().pass_by(7300)


def test_a_worker_that_starts_and_a_pause_of_the_machine_restart_the_count():
    waiter = Waiter()
    for _ in range(3):
        waiter.pass_by(50)
        waiter.pass_by(10, NOTHING)
        waiter.pass_by(50, READER)
    waiter.pass_by(20_000, NOTHING)
    for _ in range(3):
        waiter.now += 3600
        waiter.waiting.look(*ACTOR)
    assert waiter.warnings == []


@pytest.mark.drivers
@pytest.mark.slow
def test_a_run_on_a_busy_ray_ends(make_pipeline, monkeypatch):
    monkeypatch.setenv("RAYSP_WAIT_SECONDS", "3")

    class Holder:
        def hold(self) -> None:
            pass

    other = ray.remote(Holder).options(num_cpus=ray.cluster_resources()["CPU"]).remote()
    try:
        ray.get(other.hold.remote())
        with pytest.raises(
            RunError, match=r"no worker could start for .*the cluster has 0 CPUs free of \d+ CPU.* wait"
        ):
            run(make_pipeline(DEMO / "audio"))
    finally:
        ray.kill(other)
