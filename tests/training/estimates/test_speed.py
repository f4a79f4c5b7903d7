"""Speed of a worker from the steps of earlier trainings."""

import json
from dataclasses import replace

import pytest

from raysp import PlanError
from raysp.sink.run_record import RunEntry
from raysp.storage.store import LocalStore
from raysp.training.estimates.step_speed import of_other, of_steps
from raysp.training.finetuning import plan_recipe
from raysp.training.sink import committed_steps, training_record
from raysp.training.sink.committed_steps import Position
from raysp.training.sink.step_metrics import MetricsLog, StepMetrics
from tests.recipes import a_recipe

ALIKE = {"device": "cpu", "dtype": "float32", "cpus_per_worker": 1}


@pytest.fixture(scope="module")
def prepared(words, tiny, tmp_path_factory):
    return plan_recipe(a_recipe(words, tiny, tmp_path_factory.mktemp("sink") / "out"))[1]


def train(place, prepared, *, num_steps: int = 5, workers: int = 2, resolved=ALIKE, **parts: object) -> LocalStore:
    """Write the sink of a training of steps of ten seconds of audio in two, after a first one in twenty."""
    store = LocalStore(place)
    run = RunEntry.now(resolved=resolved)
    training_record.begin(store, run, recipe={}, fingerprint=prepared.fingerprint, parts={**prepared.parts, **parts})
    log = MetricsLog(store, run.run_id)
    for done in range(1, num_steps + 1):
        seconds = 20.0 if done == 1 else 2.0
        log.add(StepMetrics(done, 0, done, 1.0, 1.0, 1e-3, 4, 10.0, seconds, 0.5, 0.0))
    log.write()
    facts = {"fingerprint": prepared.fingerprint, "index": "i", "num_workers": workers, "metrics": {}}
    writers = {"model": lambda path: path.write_bytes(b"weights") and None}
    committed_steps.commit(store, Position(num_steps, 0, num_steps), writers, **facts)
    return store


def test_the_speed_is_that_of_a_worker_without_the_first_step_and_without_waiting_for_others(prepared, tmp_path):
    found = of_steps(prepared.plan, train(tmp_path, prepared), {2: 1.2}.__getitem__)
    assert found.rtfx == pytest.approx(10 / 2 / 2 * 1.2)
    assert found.origin == (
        f"4 steps in {LocalStore(tmp_path).url}: 0:40 of audio in 0:08 on 2 workers, waiting for rows 25% of the time"
    )


def test_a_single_step_counts(prepared, tmp_path):
    store = train(tmp_path, prepared, num_steps=1, workers=1)
    assert of_steps(prepared.plan, store, lambda _: 1.0).rtfx == pytest.approx(10 / 20)


@pytest.mark.parametrize("other", [{"device": "cuda"}, {"cpus_per_worker": 8}, {"dtype": "bfloat16"}])
def test_steps_on_another_device_give_no_speed(prepared, tmp_path, other):
    store = train(tmp_path, prepared, resolved={**ALIKE, **other})
    assert of_steps(prepared.plan, store, lambda _: 1.0) is None
    with pytest.raises(PlanError, match=r"--like .*: its last run has no steps on float32 on cpu, 1 CPU a worker"):
        of_other(prepared.plan, str(tmp_path), None, prepared.parts, lambda _: 1.0)


def test_steps_of_an_unknown_device_count(prepared, tmp_path):
    assert of_steps(prepared.plan, train(tmp_path, prepared, resolved={}), lambda _: 1.0) is not None


def test_another_training_with_the_same_checkpoint_gives_the_speed(prepared, tmp_path):
    train(tmp_path, prepared, seed=7)
    found = of_other(prepared.plan, str(tmp_path), {}, prepared.parts, lambda _: 1.0)
    assert found.rtfx == pytest.approx(2.5)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"checkpoint_digest": "other"}, "checkpoint_digest 'other', here"),
        ({"schedule.checkpointing": True}, "schedule.checkpointing True, here False"),
        ({"objective.freeze": "base"}, "objective.freeze 'base', here None"),
        ({"objective.lora": {"rank": 4}}, "lora True, here False"),
    ],
)
def test_a_training_that_differs_in_what_speed_depends_on_is_refused(prepared, tmp_path, parts, message):
    train(tmp_path, prepared, **parts)
    with pytest.raises(PlanError, match=r"name the sink of a training that is alike, or state the speed") as raised:
        of_other(prepared.plan, str(tmp_path), None, prepared.parts, lambda _: 1.0)
    assert message in str(raised.value)


def test_a_folder_without_a_training_is_refused(prepared, tmp_path):
    with pytest.raises(PlanError, match="not the sink of a training"):
        of_other(prepared.plan, str(tmp_path), None, prepared.parts, lambda _: 1.0)


def test_without_steps_the_runs_are_named(prepared, tmp_path):
    store = LocalStore(tmp_path)
    run = RunEntry.now(resolved=ALIKE)
    training_record.begin(store, run, recipe={}, fingerprint="f", parts=prepared.parts)
    assert of_steps(prepared.plan, store, lambda _: 1.0) is None
    with pytest.raises(PlanError, match=r"found float32 on cpu, 1 CPU a worker\. Name another sink"):
        of_other(prepared.plan, str(tmp_path), None, prepared.parts, lambda _: 1.0)
    other = replace(prepared.plan, dtype="bfloat16")
    assert json.dumps(other.resolved) == '{"device": "cpu", "dtype": "bfloat16", "cpus_per_worker": 1}'
