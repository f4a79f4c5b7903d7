"""A run waits for a busy cluster, reports what is missing, and ends after a limit."""

import logging
import subprocess
import sys

import pytest
import ray

from raysp import RunError, run
from raysp.cluster import waiting
from raysp.cluster.waiting import Nodes, Waiting
from tests.runs import DEMO

ACTOR, READER = {"CPU": 2.0, "GPU": 1.0}, {"CPU": 0.99}


class Cluster:
    """Nodes whose resources a test sets, and a clock that it moves on."""

    def __init__(self) -> None:
        self.now = 0.0
        self.activity = (0, 0)
        self.free = [{"CPU": 0.0, "GPU": 0.0}]
        self.waiting = Waiting(
            lambda: self.activity,
            lambda: Nodes(self.free, [{"CPU": 8.0, "GPU": 2.0, "memory": 64e9}]),
            actor=ACTOR,
            reader=READER,
            clock=lambda: self.now,
        )

    def pass_by(self, seconds: float, num_actors: int = 0) -> None:
        for _ in range(int(seconds)):
            self.now += 1
            self.waiting.look(num_actors)


@pytest.fixture
def cluster(caplog):
    caplog.set_level(logging.WARNING)
    return Cluster()


def test_missing_resources_are_named_after_a_minute_then_at_growing_intervals(cluster, caplog):
    cluster.pass_by(60)
    assert caplog.messages == []
    cluster.pass_by(20)
    assert caplog.messages == [
        "waiting for the cluster for 1 min: a reader requests 0.99 CPUs and a model actor requests 2 CPUs, 1 GPU; the "
        "cluster has 0 of 8 CPUs, 0 of 2 GPUs, 0.0 of 64.0 GB of memory free. Other jobs use the rest, or nodes are "
        "still starting; the run ends after 120 min"
    ]
    cluster.pass_by(1200)
    assert len(caplog.messages) == 5  # after 1, 2, 4, 8 and 16 minutes


def test_a_run_that_is_alone_blames_no_other_jobs(cluster, caplog):
    nodes = Nodes([{"CPU": 0.0}], [{"CPU": 2.0}], is_shared=False)
    cluster.waiting.nodes = lambda: nodes
    cluster.pass_by(80)
    [message] = caplog.messages
    assert "Other jobs" not in message
    assert message.endswith(
        "No other job is connected: workers of this program use the rest, or are still starting, or nodes are still "
        "starting; the run ends after 120 min"
    )


def test_the_run_ends_after_the_limit_with_the_remedy(cluster, monkeypatch):
    with pytest.raises(
        RunError, match=r"no worker could start for 120 min: .*0 of 2 GPUs.* Run again when .* pool.gpus"
    ):
        cluster.pass_by(7300)
    monkeypatch.setenv("RAYSP_WAIT_SECONDS", "300")
    with pytest.raises(RunError, match=r"no worker could start for 5 min: .* wait longer with RAYSP_WAIT_SECONDS"):
        Cluster().pass_by(400)


@pytest.mark.parametrize("activity", [(0, 1), (0, 7)])
def test_active_workers_reset_the_wait(cluster, caplog, activity):
    cluster.activity = activity
    cluster.pass_by(1800)
    assert caplog.messages == []
    cluster.pass_by(100)  # they died, and there is no room for others
    assert "waiting for the cluster" in caplog.messages[0]


def test_each_report_of_a_worker_restarts_the_count(cluster, caplog):
    for number in range(1000):
        cluster.activity = (number, 0)
        cluster.pass_by(50)
    assert caplog.messages == []


def test_a_cluster_with_free_resources_is_not_waited_for(cluster, caplog):
    cluster.free = [{"CPU": 2.0, "GPU": 1.0}]
    cluster.pass_by(20_000)
    assert caplog.messages == []


def test_free_resources_on_two_nodes_do_not_fit_one_actor(cluster, caplog):
    cluster.free = [{"CPU": 8.0}, {"CPU": 1.0, "GPU": 1.0}]
    cluster.pass_by(100)
    assert "a model actor requests 2 CPUs, 1 GPU;" in caplog.messages[0]
    assert "a reader" not in caplog.messages[0]


def test_a_node_on_which_the_model_does_not_load_has_no_room_for_an_actor(cluster, caplog):
    nodes = Nodes([{"CPU": 8.0, "GPU": 1.0}, {"CPU": 1.0}], [{"CPU": 8.0, "GPU": 1.0}] * 2, [{"CPU": 1.0}])
    cluster.waiting.nodes = lambda: nodes
    cluster.pass_by(100)
    assert "a model actor requests 2 CPUs, 1 GPU;" in caplog.messages[0]
    assert "a reader" not in caplog.messages[0]


def test_once_a_model_is_loaded_its_own_share_is_not_missing(cluster, caplog):
    cluster.free = [{"CPU": 1.0}]
    cluster.pass_by(500, num_actors=1)
    assert caplog.messages == []


def test_a_pause_of_the_machine_is_not_waiting(cluster):
    for _ in range(100):
        cluster.now += 3600
        cluster.waiting.look(0)


@pytest.mark.drivers
@pytest.mark.cluster
@pytest.mark.slow
def test_a_run_on_a_busy_ray_reports_this_and_ends(local_ray, make_pipeline, tmp_path, monkeypatch, caplog):
    caplog.set_level(logging.WARNING)
    monkeypatch.setattr(waiting, "LOOK_SECONDS", 0.5)
    monkeypatch.setattr(waiting, "FIRST_WARNING_SECONDS", 1.0)
    monkeypatch.setenv("RAYSP_WAIT_SECONDS", "3")

    class Holder:
        def hold(self) -> None:
            pass

    cpus = ray.cluster_resources()["CPU"]
    other = ray.remote(Holder).options(num_cpus=cpus).remote()
    try:
        ray.get(other.hold.remote())
        with pytest.raises(RunError, match=r"no worker could start for .*the cluster has 0 of \d+ CPU"):
            run(make_pipeline(DEMO / "audio"))
        [*_, said] = [said for said in caplog.messages if said.startswith("waiting for the cluster")]
        assert "No other job is connected" in said
    finally:
        ray.kill(other)


@pytest.mark.drivers
@pytest.mark.cluster
@pytest.mark.slow
def test_another_driver_is_another_job_until_it_ends(local_ray):
    assert not waiting.has_other_jobs()
    address = ray.get_runtime_context().gcs_address
    program = f"import ray; ray.init({address!r}, log_to_driver=False); print('connected', flush=True); input()"
    command = [sys.executable, "-c", program]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "connected\n"
        assert waiting.has_other_jobs()
        other.communicate("\n", timeout=60)
    assert not waiting.has_other_jobs()
