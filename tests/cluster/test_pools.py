"""The number of actors that a run starts, and their CPUs, as plans have them."""

import raysp
from tests import kit


def test_actors_are_bounded_by_the_work_and_their_cpus_by_the_machine_with_the_same_fingerprint(tmp_path):
    corpus = kit.corpus(tmp_path / "in", rows=3, shards=3)
    plans = {
        pool: raysp.plan(corpus.pipeline(tmp_path / "out", label={"pool": pool}))
        for pool in (raysp.Pool(), raysp.Pool(64), raysp.Pool((2, 9), cpus=1), raysp.Pool(64, cpus=4096))
    }
    assert len({plan.fingerprint for plan in plans.values()}) == 1
    assert [str(plan.pool_size) for plan in plans.values()] == [
        "1 actor",
        "3 actors (64 requested; 3 rows in 3 pieces)",
        "2 to 3 actors (2 to 9 requested; 3 rows in 3 pieces)",
        "3 actors (64 requested; 3 rows in 3 pieces)",
    ]
    *each, capped = (plan.settings.cpus_per_actor for plan in plans.values())
    machine = capped.number
    assert str(capped).endswith(f" (4096 requested; this machine has {machine})")
    to_run = machine - machine // 10  # the others decode
    assert [one.number for one in each] == [to_run, max(1, to_run // min(64, machine)), 1]
