"""A run waits for a busy cluster, reports what is missing, and ends after a limit."""

import logging

import pytest
import ray

from raysp import RunError, run
from raysp.cluster.waiting import Waiting
from tests.runs import DEMO

ACTOR, READER = ("a model actor", {"CPU": 2.0, "GPU": 1.0}), ("a reader", {"CPU": 1.0})
NOTHING = ("", {"CPU": 1.0})
TOTAL = {"CPU": 8.0, "GPU": 2.0, "memory": 64e9}


class Cluster:
    """A cluster whose free resources a test sets, and a clock that it moves on."""

    def __init__(self) -> None:
        self.now = 0.0
        self.free: dict[str, float] = {}
        self.warnings: list[str] = []
        self.waiting = Waiting(self.warnings.append, clock=lambda: self.now)

    def pass_by(self, seconds: float, missing: tuple[str, dict[str, float]] = ACTOR) -> None:
        for _ in range(int(seconds)):
            self.now += 1
            self.waiting.look(*missing)


@pytest.fixture
def cluster(monkeypatch):
    made = Cluster()
    monkeypatch.setattr(ray, "available_resources", lambda: made.free)
    monkeypatch.setattr(ray, "cluster_resources", lambda: TOTAL)
    return made


def test_missing_resources_are_named_after_a_minute_then_at_growing_intervals(cluster, caplog):
    caplog.set_level(logging.WARNING)
    cluster.pass_by(60)
    assert cluster.warnings == []
    cluster.pass_by(1)
    assert caplog.messages == cluster.warnings
    assert cluster.warnings == [
        "waiting for the cluster for 1:00: a model actor requests 2 CPUs, 1 GPU on one node; the cluster has 0 CPUs, "
        "0 GPUs free of 8 CPUs, 2 GPUs. Other workers use the rest, or nodes are still starting; the run ends after "
        "2:00:00"
    ]
    cluster.pass_by(1200)
    assert len(cluster.warnings) == 5  # after 1, 2, 4, 8 and 16 minutes
    cluster.free = {"CPU": 0.5}
    cluster.pass_by(1200, ("a model actor", {"CPU": 1.0, "memory": 16e9}))
    said = "1 CPU, 16.0 GB of memory on one node; the cluster has 0.5 CPUs, 0.0 GB of memory free of 8 CPUs, 64.0 GB of"
    assert said in cluster.warnings[-1]


def test_the_run_ends_after_the_limit_with_the_remedy(cluster):
    with pytest.raises(
        RunError, match=r"no worker could start for 2:00:00: .*0 GPUs free of 8 CPUs, 2 GPUs.* Run again when .* pool"
    ):
        cluster.pass_by(7300)


def test_a_worker_that_starts_and_a_pause_of_the_machine_restart_the_count(cluster):
    for _ in range(3):
        cluster.pass_by(50)
        cluster.pass_by(1, NOTHING)
        cluster.pass_by(50, READER)
    cluster.pass_by(20_000, NOTHING)
    for _ in range(3):
        cluster.now += 3600
        cluster.waiting.look(*ACTOR)
    assert cluster.warnings == []


@pytest.mark.drivers
@pytest.mark.cluster
@pytest.mark.slow
def test_a_run_on_a_busy_ray_ends(local_ray, make_pipeline, monkeypatch):
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
