"""Trainings of several workers on Ray: the same weights for any number, and after any of their processes was killed."""

from pathlib import Path

import pytest
import torch

import raysp
from raysp import Batching, PlanError, RunError, Schedule, finetune
from tests.corpora import write_shard
from tests.recipes import MASKS, a_recipe, broken_table, second_shard, write_words
from tests.runs import processes
from tests.training.runs.test_speakers import others
from tests.training.runs.test_taking_over import take_over
from tests.training.trained import evaluations_of, same, steps_of, weights

__all__ = ["others"]  # a fixture

pytestmark = [pytest.mark.cluster, pytest.mark.drivers, pytest.mark.slow]


def several(words, tiny, sink, num_workers: int, **fields):
    """Make a recipe: what follows from its index, its texts and its fields has to be equal on all workers."""
    few = second_shard(words)
    given = {
        "objective": {"vocabulary": "bpe:30", "masks": MASKS, "blank_bias": -1.0, "lora": raysp.LoRA(4, dropout=0.2)},
        "mix": raysp.Mix({"0*": 1, "1*": 3}),
        "evaluation": raysp.Evaluation(few, every=9, others={"again": few}),
        "schedule": Schedule(steps=18, learning_rate=1e-3, optimizer="tests.training.optimizers:nadam"),
        "batching": Batching(seconds=6, micro_batches=3, window_seconds=10),
        "pool": raysp.Pool(num_workers, cpus=1),
    }
    return a_recipe(words, tiny, sink, **{**given, **fields})


def curve(sink: Path) -> list[float]:
    return [step["loss"] for step in steps_of(sink)]


@pytest.fixture(scope="module")
def alone(words, tiny, tmp_path_factory) -> Path:
    sink = tmp_path_factory.mktemp("alone")
    finetune(several(words, tiny, sink, 1))
    return sink


@pytest.fixture(scope="module")
def by_two(local_ray, words, tiny, tmp_path_factory) -> Path:
    """A training on a named cluster, by as many workers as that has room for."""
    sink = tmp_path_factory.mktemp("by two")
    recipe = several(words, tiny, sink, 1, pool=raysp.Pool((1, 2), cpus=1, memory=2**20))
    assert finetune(recipe, address="the-one-that-is-connected").is_done
    return sink


def check_same_curve(found: Path, expected: Path) -> None:
    assert curve(found) == pytest.approx(curve(expected), rel=1e-5)
    values = weights(found)
    for name, value in weights(expected).items():
        torch.testing.assert_close(values[name], value, rtol=1e-3, atol=1e-4)


def test_as_many_workers_as_there_is_room_for_have_the_curve_and_the_evaluations_of_one(alone, by_two):
    """Before the first step the weights are the same, and so is each value of the evaluation."""
    check_same_curve(by_two, alone)
    one, two = evaluations_of(alone), evaluations_of(by_two)
    assert [*one] == [*two]
    assert one[0] == two[0]
    assert any(row["hypothesis"] for row in one[0]["worst"])
    for found in (*one.values(), *two.values()):
        assert found["others"]["again"]["scores"] == found["scores"]


def test_workers_for_which_ray_has_no_cpus_or_memory_are_refused(local_ray, words, tiny, tmp_path):
    with pytest.raises(PlanError, match=r"3 workers of 1 CPU each, and at least 0.5 CPUs for reading; found 3 CPUs"):
        finetune(several(words, tiny, tmp_path / "out", 3))
    with pytest.raises(PlanError, match=r"2 workers need .* of memory; Ray has .*: lower pool.actors or pool.memory"):
        finetune(several(words, tiny, tmp_path / "out", 2, pool=raysp.Pool(2, cpus=1, memory=2**50)))


def test_after_a_worker_was_killed_the_weights_are_bit_for_bit_the_same(words, tiny, by_two, tmp_path):
    killed = []

    def kill(progress):
        if progress.committed and not killed:
            killed.append(processes("ray::RayTrainWorker")[0])
            killed[0].kill()

    result = finetune(several(words, tiny, tmp_path / "out", 2), on_progress=kill)
    assert result.is_done
    assert killed
    assert same(weights(tmp_path / "out"), weights(by_two))


def test_workers_whose_lease_was_taken_over_end_and_replace_nothing(local_ray, words, tiny, tmp_path):
    """They hold no lease themselves, and go on while their driver is suspended."""
    sink, theirs = tmp_path / "out", {}
    paths = ("config.json", "model.safetensors", "vocab.json", ".raysp/recipe.json", ".raysp/steps/4.json")

    def suspend(progress):
        if progress.committed and not theirs:
            take_over(str(sink))
            theirs.update({path: (sink / path).read_bytes() for path in paths})

    with pytest.raises(RunError, match="another run took over"):
        finetune(several(words, tiny, tmp_path / "out", 2), on_progress=suspend)
    assert {path: (sink / path).read_bytes() for path in paths} == theirs


def test_speakers_that_two_workers_evaluate_have_the_values_of_one_and_all_rows_that_fail_are_in_the_records(
    local_ray, headless, listener, others, tmp_path
):
    words = write_words(tmp_path / "in", 18, 12)
    write_shard(tmp_path / "in" / "z.parquet", table=broken_table(6))
    fields = {
        "objective": raysp.Speakers(listener, column="speaker", crop_seconds=0.5),
        "evaluation": raysp.Evaluation(raysp.Shards(others), every=4, best="eer"),
        "schedule": Schedule(epochs=1, learning_rate=1e-3),
        "mix": None,
    }
    sinks = [tmp_path / "by one", tmp_path / "by two"]
    for number, sink in enumerate(sinks, 1):
        result = finetune(several(words, headless, sink, number, **fields))
        assert (result.is_done, sum(result.errors.values())) == (True, 6)
        assert result.error_examples[0].startswith("z.parquet:")
        listed = [(row["shard"], row["row"]) for step in steps_of(sink) for row in step.get("errors", ())]
        assert sorted(listed) == [("z.parquet", row) for row in range(6)]
    check_same_curve(sinks[1], sinks[0])
    one, two = map(evaluations_of, sinks)
    assert two[0] == one[0]
