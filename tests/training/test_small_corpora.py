"""What a recipe leaves open follows the corpus, and stays as it began."""

import dataclasses
import itertools

import pytest

from raysp import Batching, Evaluation, Schedule, Shards, finetune
from raysp.storage.store import LocalStore
from raysp.training.planning import workers
from raysp.training.sink.training_record import TrainingRecord
from tests.recipes import a_recipe, second_shard
from tests.training.criteria import planned_training


def planned(words, tiny, sink, **fields):
    fields = {"batching": Batching(micro_batches=2), "schedule": Schedule(epochs=5), "dtype": "float32", **fields}
    evaluation = Evaluation(Shards(words, text="text"))
    return planned_training(a_recipe(words, tiny, sink, evaluation=evaluation, **fields))[1]


def test_epochs_of_a_small_corpus_have_fifty_steps_and_twenty_evaluations(words, tiny, tmp_path):
    found = planned(words, tiny, tmp_path / "out", schedule=Schedule(epochs=30))
    recipe, of_training = found.plan.recipe, float(found.index.seconds.sum()) * 30
    assert recipe.batching.seconds == of_training // 50 < 30
    assert recipe.batching.window_seconds == 3000
    steps = found.order.first_epoch.num_steps * 30
    assert steps >= 50
    assert steps // recipe.evaluation.every >= 20


def test_a_step_is_no_shorter_than_the_longest_row(words, tiny, tmp_path):
    found = planned(words, tiny, tmp_path / "out", schedule=Schedule(epochs=1))
    longest = found.index.seconds.max()
    assert longest <= found.plan.recipe.batching.seconds < longest + 1


def test_steps_of_a_small_corpus_are_as_short_with_the_usual_micro_batches(words, tiny, tmp_path):
    found = planned(words, tiny, tmp_path / "out", batching=Batching(), schedule=Schedule(epochs=10))
    sizes = found.plan.sizes
    assert 1 < sizes.micro_batches < 8
    assert sizes.micro_seconds >= found.index.seconds.max()
    assert found.order.first_epoch.num_steps * 10 >= 40
    told = planned(words, tiny, tmp_path / "out", batching=Batching(micro_batches=8), schedule=Schedule(epochs=10))
    assert told.plan.sizes.micro_batches == 8
    assert planned(words, tiny, tmp_path / "out", batching=Batching(seconds=20)).plan.sizes.micro_batches == 8


@pytest.mark.parametrize(
    ("fields", "seconds", "every"),
    [
        ({"batching": Batching(seconds=20, micro_batches=2)}, 20, None),
        ({"schedule": Schedule(steps=40)}, 30, 2),
        ({"schedule": Schedule(steps=100_000)}, 30, 1000),
        ({"schedule": Schedule(steps=3)}, 30, 1),
    ],
)
def test_what_is_told_stays(words, tiny, tmp_path, fields, seconds, every):
    recipe = planned(words, tiny, tmp_path / "out", **fields).plan.recipe
    assert recipe.batching.seconds == seconds
    assert every in (None, recipe.evaluation.every)


@pytest.mark.slow
def test_a_training_that_has_begun_keeps_its_steps_wherever_it_goes_on(words, tiny, tmp_path, monkeypatch):
    batching, schedule = Batching(micro_batches=2), Schedule(epochs=2)
    recipe = a_recipe(words, tiny, tmp_path / "out", batching=batching, schedule=schedule, dtype="float32")
    recipe = dataclasses.replace(recipe, evaluation=Evaluation(second_shard(words)))
    asked = itertools.cycle([False, True])  # both stop after two steps
    first = finetune(recipe, should_stop=lambda: next(asked))
    begun = TrainingRecord.existing(LocalStore(tmp_path / "out"))
    seconds, every = begun.value("batching.seconds"), begun.value("evaluation.every")
    assert finetune(recipe, should_stop=lambda: next(asked)).steps > first.steps
    after = TrainingRecord.existing(LocalStore(tmp_path / "out"))
    assert (after.value("batching.seconds"), after.value("evaluation.every")) == (seconds, every)
    monkeypatch.setattr(workers, "count_gpus", lambda: 1)
    assert planned_training(recipe)[1].plan.recipe.batching.seconds == seconds


def test_sizes_that_follow_the_device_are_part_of_the_fingerprint(words, tiny, tmp_path, monkeypatch):
    recipe = a_recipe(words, tiny, tmp_path / "out", batching=Batching(micro_batches=3), dtype="float32")
    on_cpu = planned_training(recipe)[1]
    assert (on_cpu.parts["batching.seconds"], on_cpu.parts["batching.window_seconds"]) == (45.0, 4500.0)
    monkeypatch.setattr(workers, "count_gpus", lambda: 1)
    on_gpu = planned_training(recipe)[1]
    assert on_gpu.parts["batching.seconds"] == 240.0
    assert on_gpu.fingerprint != on_cpu.fingerprint
