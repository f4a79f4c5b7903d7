"""What a recipe leaves open follows the corpus, and stays as it began."""

import pytest

from raysp import Batching, Evaluation, Pool, Schedule, finetune
from tests import kit
from tests.recipes import a_recipe, second_shard
from tests.training.trained import indexed, planned, recorded, stopping_after


def chosen(words, tiny, sink, **fields) -> dict[str, float]:
    """Begin a training, and return what it chose: seconds and micro-batches of a step, steps between evaluations."""
    given = {"batching": Batching(micro_batches=2), "schedule": Schedule(epochs=5), "dtype": "float32", **fields}
    recipe = a_recipe(words, tiny, sink, evaluation=Evaluation(second_shard(words)), **given)
    indexed(recipe)
    names = ("batching.seconds", "batching.window_seconds", "batching.micro_batches", "evaluation.every")
    return {"per_epoch": planned(recipe)["steps_per_epoch"], **{name: recorded(sink, name) for name in names}}


@pytest.mark.parametrize("epochs", [1, 30])
def test_a_small_corpus_has_fifty_steps_and_twenty_evaluations_unless_its_rows_are_longer(
    words, tiny, tmp_path, epochs
):
    found = chosen(words, tiny, tmp_path / "out", schedule=Schedule(epochs=epochs))
    steps = found["per_epoch"] * epochs
    assert 0.6 < found["batching.seconds"] < 30  # of which the longest row has almost 0.7
    assert (steps >= 50) == (epochs == 30)
    assert epochs == 1 or steps // found["evaluation.every"] >= 20


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        (
            {"batching": Batching(seconds=20), "schedule": Schedule(steps=40)},
            {"batching.seconds": 20, "batching.micro_batches": 8, "evaluation.every": 2},
        ),
        (
            {"batching": Batching(micro_batches=8), "schedule": Schedule(steps=100_000)},
            {"batching.micro_batches": 8, "evaluation.every": 1000},
        ),
        ({"schedule": Schedule(steps=3)}, {"batching.seconds": 30, "evaluation.every": 1}),
    ],
)
def test_what_is_given_stays(words, tiny, tmp_path, fields, expected):
    found = chosen(words, tiny, tmp_path / "out", **fields)
    assert {name: found[name] for name in expected} == expected


@pytest.mark.slow
def test_a_training_that_has_begun_keeps_its_steps(words, tiny, tmp_path):
    sink, batching, schedule = tmp_path / "out", Batching(micro_batches=2), Schedule(epochs=2)
    evaluation = Evaluation(second_shard(words))
    recipe = a_recipe(words, tiny, sink, batching=batching, schedule=schedule, dtype="float32", evaluation=evaluation)
    first = finetune(recipe, should_stop=stopping_after(2))
    before = [recorded(sink, name) for name in ("batching.seconds", "evaluation.every")]
    assert finetune(recipe, should_stop=stopping_after(2)).steps > first.steps
    assert [recorded(sink, name) for name in ("batching.seconds", "evaluation.every")] == before


def test_workers_for_which_a_begun_training_has_no_micro_batches_are_refused(words, tiny, tmp_path):
    def of(actors):
        fields = {"batching": Batching(), "schedule": Schedule(epochs=1), "pool": Pool(actors, cpus=1)}
        return a_recipe(words, tiny, tmp_path / "out", **fields)

    indexed(of(1))
    begun = recorded(tmp_path / "out", "batching.micro_batches")
    assert begun < 8
    ran = kit.run(["plan", kit.pipeline_file(tmp_path / "more_workers.py", of(begun + 1))])
    message = f"pool.actors={begun + 1}: a step has {begun} micro-batch"
    assert (ran.code, message in ran.err, "or start over with --restart" in ran.err) == (2, True, True)
    assert planned(of((1, 8))).facts["workers"].startswith(f"{begun} worker")
