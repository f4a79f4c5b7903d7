"""Settings that are "auto" on clusters whose nodes with GPUs come and go.

The resources are given to the inside: no machine of the tests has a GPU, or can have one later.
"""

from pathlib import Path

import pytest

import raysp
from raysp import ChangedError, PlanError
from raysp.cluster.resources import Resources
from raysp.labelling.planning.opening import begin, make_plan, plan_retry
from raysp.labelling.planning.run_plan import Opened, Plan
from raysp.sink import stage
from raysp.sink.layout import StagedName
from raysp.sink.run_record import RunEntry
from raysp.storage.store import probe
from tests.corpora import a_pipeline, write_shard
from tests.sink.sinks import results

SCALED_TO_ZERO = Resources(4, can_grow=True)
GPUS_MAY_COME = Resources(4, can_grow=True, gpus_may_come=True)
WITH_GPUS = Resources(4, gpus=2, gpu_memory=80e9, can_grow=True)
LAPTOP = Resources(4)


@pytest.fixture
def corpus(tmp_path) -> Path:
    write_shard(tmp_path / "in" / "a.parquet", 3)
    return tmp_path


def a_plan(corpus: Path, resources: Resources, **label: object) -> Plan:
    return make_plan(Opened.of(a_pipeline(f"{corpus}/in", corpus / "out", label=label), resources))


def begun(corpus: Path, resources: Resources, **label: object) -> Plan:
    """Record a run with a staged result on resources that the machine of the tests lacks, so that no run can."""
    plan = a_plan(corpus, resources, **label)
    probe(plan.sink.store)
    begin(plan, RunEntry.now())
    [shard] = plan.corpus.shards
    name = StagedName(shard.name, shard.pieces[0], shard.input_id, plan.fingerprint, errors=0)
    stage.write(plan.sink.store, [results([*range(shard.num_rows)])], lambda: name)
    return plan


def where(plan: Plan) -> tuple[str, str, float]:
    return plan.settings.device, plan.settings.dtype, plan.settings.gpus_per_actor


def test_a_sink_begun_on_gpus_stays_on_them_while_no_gpu_is_up(corpus):
    first = begun(corpus, WITH_GPUS)
    assert where(first) == ("cuda", "bfloat16", 1)
    second = a_plan(corpus, SCALED_TO_ZERO)
    assert where(second) == where(first)
    assert second.fingerprint == first.fingerprint
    assert "the pool requests 1 GPU, 0 found: the run waits until they are available" in second.notes
    begun(corpus, SCALED_TO_ZERO)
    assert where(a_plan(corpus, WITH_GPUS)) == where(first)
    assert a_plan(corpus, WITH_GPUS).notes == ()


def test_a_first_plan_does_not_depend_on_whether_gpus_are_up(corpus):
    message = (
        r"steps\.1\.device: found 'auto', and no GPU of the cluster is up now, .* the first plan of a sink determines "
        r"device and dtype .* Set steps\.1\.device='cuda' \(steps\.1\.pool\.gpus .*\) or steps\.1\.device='cpu'"
    )
    with pytest.raises(PlanError, match=message):
        a_plan(corpus, GPUS_MAY_COME)
    for label in ({"device": "cuda"}, {"device": "cpu"}, {"pool": raysp.Pool(gpus=0.5)}):
        plans = [a_plan(corpus, resources, **label) for resources in (GPUS_MAY_COME, WITH_GPUS)]
        assert len({(where(plan), plan.fingerprint) for plan in plans}) == 1


def test_a_machine_without_a_gpu_is_refused_with_the_remedy(corpus):
    begun(corpus, WITH_GPUS)
    message = (
        r"pool: 1 actor of 1 GPU, device='auto', as the labels of this sink were made on GPUs; found 0 GPUs"
        r", and this machine has no more. Use the --address of a cluster with GPUs.*device='cpu'"
    )
    with pytest.raises(PlanError, match=message):
        a_plan(corpus, LAPTOP)
    with pytest.raises(PlanError, match=message):
        plan_retry(Opened.of(a_pipeline(f"{corpus}/in", corpus / "out"), LAPTOP))


def test_a_gpu_does_not_continue_with_half_precision_of_a_cpu(corpus):
    begun(corpus, SCALED_TO_ZERO, dtype="bfloat16")  # each window alone
    with pytest.raises(ChangedError, match=r"`steps\.1\.batch_seconds` was unset, now 600"):
        a_plan(corpus, WITH_GPUS, dtype="bfloat16", device="cuda", pool=raysp.Pool(gpus=1))
