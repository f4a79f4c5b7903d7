"""The number of actors that a run starts."""

from pathlib import Path

import pytest

import raysp
from raysp.cluster import resources
from raysp.cluster.resources import Resources, actor_cpus
from raysp.labelling.planning.opening import make_plan
from raysp.labelling.planning.run_plan import Opened
from tests.corpora import a_pipeline, write_shard


@pytest.fixture
def two_cores(monkeypatch):
    monkeypatch.setattr(resources, "num_cpus", lambda: 2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")


def a_plan(folder: Path, pool: raysp.Pool, *, rows: int, shards: int, resources: Resources | None = None):
    for number in range(shards):
        write_shard(folder / "in" / f"{number}.parquet", rows)
    pipeline = a_pipeline(f"{folder}/in", folder / "out", label={"pool": pool})
    return make_plan(Opened.of(pipeline, resources))


def test_three_rows_on_two_cores_start_no_64_models(tmp_path, two_cores):
    plan = a_plan(tmp_path, raysp.Pool(64), rows=3, shards=1)
    assert (plan.pool_size.low, plan.pool_size.high) == (1, 1)
    assert str(plan.pool_size) == "1 actor (64 requested; 3 rows in 1 piece)"
    assert plan.resources.cpus == 3  # of the Ray that is started, not 65


def test_much_work_on_two_cores_starts_two_actors(tmp_path, two_cores):
    plan = a_plan(tmp_path, raysp.Pool(64), rows=1, shards=4)
    assert str(plan.pool_size) == "2 actors (64 requested; this machine has 2 CPUs)"
    assert plan.resources.cpus == 3
    assert a_plan(tmp_path, raysp.Pool(64, cpus=2), rows=1, shards=4).pool_size.low == 1
    assert str(a_plan(tmp_path, raysp.Pool((2, 9)), rows=1, shards=4).pool_size).startswith(
        "2 actors (2 to 9 requested"
    )


def test_the_default_pool_is_one_actor_with_the_whole_machine(tmp_path, two_cores):
    plan = a_plan(tmp_path, raysp.Pool(), rows=1, shards=4)
    assert (str(plan.pool_size), str(plan.settings.cpus_per_actor)) == ("1 actor", "2 CPUs (all of this machine)")
    assert plan.resources.cpus == 3  # of Ray: a reader has a place beside the model
    assert plan.notes == ()
    two = a_plan(tmp_path, raysp.Pool(2), rows=1, shards=4)
    assert (two.settings.cpus_per_actor.number, two.resources.cpus) == (1, 3)
    assert two.fingerprint == plan.fingerprint == a_plan(tmp_path, raysp.Pool(cpus=1), rows=1, shards=4).fingerprint


def test_more_cpus_than_the_machine_has_are_capped_with_a_message(tmp_path, two_cores):
    plan = a_plan(tmp_path, raysp.Pool(cpus=64), rows=1, shards=4)
    assert str(plan.settings.cpus_per_actor) == "2 CPUs (64 requested; this machine has 2)"
    assert (plan.settings.cpus_per_actor.is_capped, plan.resources.cpus) == (True, 3)
    assert str(raysp.plan(plan.pipeline).settings.cpus_per_actor).startswith("2 CPUs (64 requested")


def test_cpus_of_actors_leave_one_in_ten_to_decode_and_are_one_on_gpus_and_clusters():
    def cpus(pool: raysp.Pool, machine_cpus: int | None, *, on_gpu: bool = False) -> int:
        return actor_cpus(pool, machine_cpus=machine_cpus, on_gpu=on_gpu).number

    assert [cpus(raysp.Pool(), machine) for machine in (1, 2, 9, 10, 64)] == [1, 2, 9, 9, 58]
    assert [cpus(raysp.Pool(actors), 16) for actors in (2, 4, (1, 5), 64)] == [7, 3, 3, 1]
    assert (cpus(raysp.Pool(), 16, on_gpu=True), cpus(raysp.Pool(), None)) == (1, 1)
    assert (cpus(raysp.Pool(cpus=5), 16, on_gpu=True), cpus(raysp.Pool(cpus=64), None)) == (5, 64)


def test_a_cluster_that_can_grow_keeps_the_requested_pool_up_to_the_work(tmp_path):
    grows = Resources(4, can_grow=True)
    assert str(a_plan(tmp_path, raysp.Pool((6, 7)), rows=1, shards=9, resources=grows).pool_size) == "6 to 7 actors"
    size = a_plan(tmp_path, raysp.Pool((12, 64)), rows=1, shards=9, resources=grows).pool_size
    assert (size.low, size.high) == (9, 9)
    assert size.reason == " (12 to 64 requested; 9 rows in 9 pieces)"


def test_more_cpus_than_any_node_of_a_cluster_has_are_a_shortage(tmp_path):
    nodes_of_16 = Resources(160, node_cpus=16, can_grow=True)
    plan = a_plan(tmp_path, raysp.Pool(cpus=64), rows=1, shards=1, resources=nodes_of_16)
    assert plan.notes[-1].startswith("the pool requests 64 CPUs on one node, 16 on the largest found: the run waits")
    assert a_plan(tmp_path, raysp.Pool(cpus=16), rows=1, shards=1, resources=nodes_of_16).notes == ()


def test_gpus_bound_the_pool_of_a_machine(tmp_path):
    resources = Resources(cpus=32, gpus=2, gpu_memory=80e9)
    plan = a_plan(tmp_path, raysp.Pool(8), rows=1, shards=9, resources=resources)
    assert (plan.pool_size.low, plan.pool_size.high, plan.notes) == (2, 2, ())
    assert plan.pool_size.reason.endswith("and 2 GPUs)")
    shared = a_plan(tmp_path, raysp.Pool(8, gpus=0.3), rows=1, shards=9, resources=resources)
    assert shared.pool_size.high == 6
