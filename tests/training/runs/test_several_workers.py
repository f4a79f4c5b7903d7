"""Trainings of several workers on Ray: the same weights for any number, and after any of their processes was killed."""

from pathlib import Path

import pytest
import torch

import raysp
from raysp import Batching, PlanError, RunError, Schedule, finetune
from tests.corpora import write_shard
from tests.recipes import MASKS, a_recipe, broken_table, write_words
from tests.runs import processes
from tests.training.objectives.originals import save_decoder
from tests.training.runs.test_speakers import others
from tests.training.runs.test_taking_over import take_over
from tests.training.trained import evaluations_of, same, steps_of, weights

__all__ = ["others"]  # a fixture

pytestmark = [pytest.mark.cluster, pytest.mark.drivers, pytest.mark.slow]


def several(words, tiny, sink, num_workers: int, **fields):
    schedule = Schedule(epochs=6, learning_rate=1e-3)
    batching = Batching(seconds=6, micro_batches=3, window_seconds=10)
    given = {"schedule": schedule, "objective": {"masks": MASKS}, "batching": batching, **fields}
    return a_recipe(words, tiny, sink, **{"pool": raysp.Pool(num_workers, cpus=1), **given})


def curve(sink: Path) -> list[float]:
    return [step["loss"] for step in steps_of(sink)]


@pytest.fixture(scope="module")
def alone(words, tiny, tmp_path_factory) -> Path:
    sink = tmp_path_factory.mktemp("alone")
    finetune(several(words, tiny, sink, 1))
    return sink


@pytest.fixture(scope="module")
def by_two(local_ray, words, tiny, tmp_path_factory) -> Path:
    sink = tmp_path_factory.mktemp("by two")
    assert finetune(several(words, tiny, sink, 2)).is_done
    return sink


def check_same_curve(found: Path, expected: Path) -> None:
    assert curve(found) == pytest.approx(curve(expected), rel=1e-5)
    values = weights(found)
    for name, value in weights(expected).items():
        torch.testing.assert_close(values[name], value, rtol=1e-3, atol=1e-4)


def test_two_workers_have_the_curve_of_one(alone, by_two):
    check_same_curve(by_two, alone)


def test_a_named_cluster_trains_with_as_many_workers_as_it_has_room_for(local_ray, words, tiny, alone, tmp_path):
    recipe = several(words, tiny, tmp_path / "out", 1, pool=raysp.Pool((1, 2), cpus=1))
    assert finetune(recipe, address="the-one-that-is-connected").is_done
    check_same_curve(tmp_path / "out", alone)


def test_workers_that_leave_no_cpu_for_reading_are_refused(local_ray, words, tiny, tmp_path):
    with pytest.raises(PlanError, match=r"3 workers of 1 CPU each, and at least 0.5 CPUs for reading; found 3 CPUs"):
        finetune(several(words, tiny, tmp_path / "out", 3))


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


def test_rows_of_all_workers_that_fail_are_in_the_records_of_steps(local_ray, tiny, tmp_path):
    write_words(tmp_path / "in", 12)
    write_shard(tmp_path / "in" / "z.parquet", table=broken_table(6))
    result = finetune(several(f"{tmp_path}/in/*.parquet", tiny, tmp_path / "out", 2))
    assert (result.is_done, sum(result.errors.values())) == (True, 6 * result.epochs)
    assert result.error_examples[0].startswith("z.parquet:")
    listed = [(row["shard"], row["row"]) for step in steps_of(tmp_path / "out") for row in step.get("errors", ())]
    assert sorted(listed) == [("z.parquet", row) for row in range(6)]


def test_two_workers_have_the_curve_and_the_evaluation_of_one_for_other_objectives(
    local_ray, words, headless, listener, others, tmp_path
):
    """Before the first step the weights are the same, and so is each value of the evaluation."""
    decoder = save_decoder("bert", tmp_path / "decoder")
    objectives = {
        "texts": raysp.Seq2Seq(str(headless), decoder=str(decoder), lora=raysp.LoRA(4, dropout=0.2)),
        "speakers": raysp.Speakers(listener, column="speaker", crop_seconds=0.5),
    }
    evaluations = {
        "texts": raysp.Evaluation(raysp.Shards(words, text="text"), every=4),
        "speakers": raysp.Evaluation(raysp.Shards(others), every=4, best="eer"),
    }
    schedule = Schedule(steps=4, learning_rate=1e-3)
    for kind, objective in objectives.items():
        fields = {"objective": objective, "evaluation": evaluations[kind], "schedule": schedule}
        for number in (1, 2):
            finetune(several(words, headless, tmp_path / f"{kind}{number}", number, **fields))
        check_same_curve(tmp_path / f"{kind}2", tmp_path / f"{kind}1")
        one, two = (evaluations_of(tmp_path / f"{kind}{number}") for number in (1, 2))
        assert two[0] == one[0]


def test_mixed_epochs_pieces_and_further_corpora_are_those_of_one_worker(local_ray, words, tiny, tmp_path):
    """What follows from the index, the texts and the recipe is the same on all workers."""
    source = raysp.Shards(words, text="text")
    fields = {
        "objective": {"vocabulary": "bpe:30", "masks": MASKS, "blank_bias": -1.0},
        "mix": raysp.Mix({"0*": 1, "1*": 3}),
        "evaluation": raysp.Evaluation(source, every=10, others={"again": source}),
        "schedule": Schedule(epochs=4, learning_rate=1e-3, optimizer="tests.training.optimizers:nadam"),
    }
    for number in (1, 2):
        assert finetune(several(words, tiny, tmp_path / f"by {number}", number, **fields)).is_done
    one, two = curve(tmp_path / "by 1"), curve(tmp_path / "by 2")
    assert two == pytest.approx(one, abs=1e-4)
    alone, both = (evaluations_of(tmp_path / f"by {number}") for number in (1, 2))
    assert [*alone] == [*both]
    assert alone[0] == both[0]
    assert any(row["hypothesis"] for row in alone[0]["worst"])
    for found in (*alone.values(), *both.values()):
        assert found["others"]["again"]["scores"] == found["scores"]
