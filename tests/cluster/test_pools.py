"""The number of actors that a run starts, and their CPUs."""

import json

import pytest

import raysp
from raysp.cluster.resources import Resources, actor_cpus, actors_that_fit, pool_size, shortage_of
from tests import kit

CPUS = {1: 1, 2: 2, 9: 9, 10: 9, 64: 58}
"""CPUs of the only actor of a machine: one in ten is left to decoding."""
GROWING = Resources(4, can_grow=True)
TWO_GPUS = Resources(cpus=32, gpus=2)


@pytest.mark.parametrize(
    ("pool", "fitting", "pieces", "size"),
    [
        (raysp.Pool(64), 9, 1, "1 actor (64 requested; work)"),
        (raysp.Pool(64), 2, 9, "2 actors (64 requested; machine)"),
        (raysp.Pool((2, 9)), 2, 9, "2 actors (2 to 9 requested; machine)"),
        (raysp.Pool((2, 9)), 0, 9, "1 actor (2 to 9 requested; machine)"),
        (raysp.Pool((6, 7)), None, 9, "6 to 7 actors"),
        (raysp.Pool((12, 64)), None, 9, "9 actors (12 to 64 requested; work)"),
    ],
)
def test_a_pool_is_bounded_by_the_machine_and_the_work(pool, fitting, pieces, size):
    assert str(pool_size(pool, machine=(fitting, "machine"), work=(pieces, "work"))) == size


def test_actors_fit_on_cpus_and_gpus_beside_a_reader_and_a_shortage_is_named():
    cases = [(Resources(5), 2, 0), (Resources(5), 5, 0), (TWO_GPUS, 1, 1), (TWO_GPUS, 1, 0.3), (GROWING, 1, 0)]
    assert [actors_that_fit(*case) for case in cases] == [2, 0, 2, 6, None]
    assert shortage_of(2, GROWING, 2, 0) == "5 CPUs, 4 found"
    assert shortage_of(1, TWO_GPUS, 1, 3) == "3 GPUs, 2 found"
    assert shortage_of(1, Resources(160, node_cpus=16), 64, 0) == "64 CPUs on one node, 16 on the largest found"
    assert shortage_of(1, Resources(160, node_cpus=16), 16, 0) == ""


def test_cpus_of_actors_leave_one_in_ten_to_decode_and_are_one_on_gpus_and_clusters():
    def cpus(pool: raysp.Pool, machine_cpus: int | None, *, on_gpu: bool = False) -> int:
        return actor_cpus(pool, machine_cpus=machine_cpus, on_gpu=on_gpu).number

    assert {machine: cpus(raysp.Pool(), machine) for machine in CPUS} == CPUS
    assert [cpus(raysp.Pool(actors), 16) for actors in (2, 4, (1, 5), 64)] == [7, 3, 3, 1]
    assert (cpus(raysp.Pool(), 16, on_gpu=True), cpus(raysp.Pool(), None)) == (1, 1)
    assert (cpus(raysp.Pool(cpus=5), 16, on_gpu=True), cpus(raysp.Pool(cpus=64), None)) == (5, 64)


def test_a_plan_caps_cpus_at_those_of_the_machine_with_the_same_fingerprint(tmp_path):
    pipeline = kit.corpus(tmp_path / "in", rows=1).pipeline(tmp_path / "out")
    plain, capped = (
        json.loads(kit.planned(pipeline, tmp_path, *settings).out)
        for settings in ((), ("steps.1.pool.cpus=4096", "steps.1.pool.actors=64"))
    )
    assert capped["fingerprint"] == plain["fingerprint"]
    assert "4096 requested; this machine has " in json.dumps(capped)
    assert capped["actors"] == {"low": 1, "high": 1, "reason": " (64 requested; 1 row in 1 piece)"}
