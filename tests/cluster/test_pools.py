"""The number of actors that a run starts, and their CPUs."""

from pathlib import Path

import pytest

import raysp
from raysp.cluster import resources
from raysp.cluster.resources import Resources, actor_cpus
from raysp.labelling.planning.opening import make_plan
from raysp.labelling.planning.run_plan import Opened
from tests.corpora import a_pipeline, write_shard

TWO_CORES = None
"""This machine, as if it had two CPUs; no public name gives a plan another machine."""
GROWING = Resources(4, can_grow=True)
NODES_OF_16 = Resources(160, node_cpus=16, can_grow=True)
TWO_GPUS = Resources(cpus=32, gpus=2, gpu_memory=80e9)


def a_plan(folder: Path, pool: raysp.Pool, resources: Resources | None, *, rows: int = 1, shards: int = 4):
    for number in range(shards):
        write_shard(folder / "in" / f"{number}.parquet", rows)
    return make_plan(Opened.of(a_pipeline(f"{folder}/in", folder / "out", label={"pool": pool}), resources))


@pytest.mark.parametrize(
    ("pool", "machine", "work", "size", "cpus"),
    [
        (raysp.Pool(64), TWO_CORES, {"rows": 3, "shards": 1}, "1 actor (64 requested; 3 rows in 1 piece)", 3),
        (raysp.Pool(64), TWO_CORES, {}, "2 actors (64 requested; this machine has 2 CPUs)", 3),
        (raysp.Pool((2, 9)), TWO_CORES, {}, "2 actors (2 to 9 requested; this machine has 2 CPUs)", 3),
        (raysp.Pool(), TWO_CORES, {}, "1 actor", 3),
        (raysp.Pool((6, 7)), GROWING, {"shards": 9}, "6 to 7 actors", None),
        (raysp.Pool((12, 64)), GROWING, {"shards": 9}, "9 actors (12 to 64 requested; 9 rows in 9 pieces)", None),
        (raysp.Pool(8), TWO_GPUS, {"shards": 9}, "2 actors (8 requested; ", None),
        (raysp.Pool(8, gpus=0.3), TWO_GPUS, {"shards": 9}, "6 actors (8 requested; ", None),
    ],
)
def test_a_pool_is_bounded_by_the_machine_and_the_work(tmp_path, monkeypatch, pool, machine, work, size, cpus):
    monkeypatch.setattr(resources, "num_cpus", lambda: 2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    plan = a_plan(tmp_path, pool, machine, **work)
    assert str(plan.pool_size).startswith(size)
    assert plan.notes == () or machine is GROWING  # a cluster that grows is waited for
    assert cpus is None or plan.resources.cpus == cpus  # of the Ray that is started: a reader has a place


def test_more_cpus_than_a_machine_has_are_capped_and_than_any_node_of_a_cluster_a_shortage(tmp_path, monkeypatch):
    monkeypatch.setattr(resources, "num_cpus", lambda: 2)
    plan = a_plan(tmp_path, raysp.Pool(cpus=64), TWO_CORES)
    assert str(plan.settings.cpus_per_actor) == "2 CPUs (64 requested; this machine has 2)"
    assert plan.fingerprint == a_plan(tmp_path, raysp.Pool(), TWO_CORES).fingerprint
    plan = a_plan(tmp_path, raysp.Pool(cpus=64), NODES_OF_16)
    assert plan.notes[-1].startswith("the pool requests 64 CPUs on one node, 16 on the largest found: the run waits")
    assert a_plan(tmp_path, raysp.Pool(cpus=16), NODES_OF_16).notes == ()


def test_cpus_of_actors_leave_one_in_ten_to_decode_and_are_one_on_gpus_and_clusters():
    def cpus(pool: raysp.Pool, machine_cpus: int | None, *, on_gpu: bool = False) -> int:
        return actor_cpus(pool, machine_cpus=machine_cpus, on_gpu=on_gpu).number

    assert [cpus(raysp.Pool(), machine) for machine in (1, 2, 9, 10, 64)] == [1, 2, 9, 9, 58]
    assert [cpus(raysp.Pool(actors), 16) for actors in (2, 4, (1, 5), 64)] == [7, 3, 3, 1]
    assert (cpus(raysp.Pool(), 16, on_gpu=True), cpus(raysp.Pool(), None)) == (1, 1)
    assert (cpus(raysp.Pool(cpus=5), 16, on_gpu=True), cpus(raysp.Pool(cpus=64), None)) == (5, 64)
