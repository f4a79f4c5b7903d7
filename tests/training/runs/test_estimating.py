"""`raysp.estimate` of recipes, compared with their trainings."""

import json

import pytest

import raysp
from raysp import Batching, Checkpoint, PlanError, Schedule, finetune
from tests.corpora import rows_table, wav, write_shard
from tests.recipes import a_recipe

BY_THREE = Batching(seconds=6, micro_batches=3, window_seconds=10)
"""Steps that two workers cannot divide evenly."""


@pytest.mark.lengthy
def test_a_stated_speed_gives_time_and_money_and_nothing_is_written(words, tiny, tmp_path):
    recipe = a_recipe(words, tiny, tmp_path / "out", schedule=Schedule(epochs=3), batching=BY_THREE)
    found = raysp.estimate(recipe, rtfx=2.0, price=0.5)
    assert found.left.steps == 3 * 4  # of 9 and of 6 seconds an epoch has two windows, of two steps each
    assert found.cost.wall_seconds.value == pytest.approx(found.left.audio_seconds / 2)
    assert found.cost.money.value == pytest.approx(found.left.audio_seconds / 2 / 3600 * 0.5)
    assert found.imbalance.keys() == {2, 3}
    assert found.imbalance[2] > 1.3
    assert (found.speed.origin, found.notes) == ("as stated", ())
    assert not (tmp_path / "out").exists()
    assert repr(found).startswith("TrainingEstimate\n")
    assert "<table>" in found._repr_html_()


@pytest.mark.slow
def test_a_training_that_has_begun_gives_the_speed_of_what_is_left_and_of_another_one(words, tiny, tmp_path):
    recipe = a_recipe(words, tiny, Checkpoint(str(tmp_path / "out"), every=2), schedule=Schedule(steps=6))
    assert raysp.estimate(recipe).speed is None
    asked = iter([False, False, False, True])
    stopped = finetune(recipe, should_stop=lambda: next(asked))
    found = raysp.estimate(recipe)
    assert (stopped.steps, found.left.steps, found.left.share) == (4, 2, pytest.approx(1 / 3))
    assert found.speed.origin.startswith(f"3 steps in {tmp_path}/out: 0:1")
    assert found.speed.rtfx > 0
    other = a_recipe(words, tiny, tmp_path / "other", seed=4, schedule=Schedule(steps=8))
    alike = raysp.estimate(other, like=str(tmp_path / "out"))
    assert alike.speed.rtfx == pytest.approx(found.speed.rtfx)
    assert alike.left.share == 1
    assert raysp.estimate(other).speed is None
    changed = a_recipe(words, tiny, Checkpoint(str(tmp_path / "out"), every=2), seed=4, schedule=Schedule(steps=6))
    assert raysp.estimate(changed).speed is None
    finetune(recipe)
    done = raysp.estimate(recipe)
    assert (done.left.steps, done.left.share, done.cost.wall_seconds.value) == (0, 0, 0)


def test_of_more_rows_than_an_estimate_indexes_the_time_of_full_steps_is_known(tiny, tmp_path):
    table = rows_table(20_001, audio=wav(800))
    many = str(write_shard(tmp_path / "many" / "0.parquet", table=table))
    found = raysp.estimate(a_recipe(many, tiny, tmp_path / "out", batching=BY_THREE), rtfx=3.0)
    assert found.left.audio_seconds == 4 * 6.0
    assert found.cost.wall_seconds.value == pytest.approx(8.0)
    assert (found.commit.num_bytes > 100_000, found.memory) == (True, None)
    assert found.imbalance == {2: pytest.approx(4 / 3), 3: 1.0}
    assert found.notes[0] == "20,001 rows are not indexed yet: the training counts rows, tokens and steps"
    with pytest.raises(PlanError, match=r"--calibrate: 20,001 rows are not indexed yet; begin the training"):
        raysp.estimate(a_recipe(many, tiny, tmp_path / "out"), calibrate=True)
    epochs = a_recipe(many, tiny, tmp_path / "out", schedule=Schedule(epochs=2))
    found = raysp.estimate(epochs, rtfx=3.0)
    assert (found.left, found.cost) == (None, None)  # without declared durations


def test_declared_durations_count_as_epochs_mix_them(tiny, tmp_path):
    """Two manifests that declare 10,000 and 30,000 seconds."""
    (tmp_path / "a.wav").write_bytes(wav(800))
    for name, num_rows, seconds in (("a", 10_000, 1.0), ("b", 15_000, 2.0)):
        line = json.dumps({"audio_filepath": "a.wav", "duration": seconds, "text": "a"})
        (tmp_path / f"{name}.jsonl").write_text(f"{line}\n" * num_rows)
    source = raysp.Shards([f"{tmp_path}/a.jsonl", f"{tmp_path}/b.jsonl"], text="text")
    for mix, expected in ((None, 40_000), (raysp.Mix({"a-*": 1, "b-*": 1}), 20_000)):
        fields = {"schedule": Schedule(epochs=2), "mix": mix}
        found = raysp.estimate(a_recipe("", tiny, tmp_path / "out", source=source, **fields))
        assert (found.left.steps, found.left.share) == (None, 1.0)
        assert found.left.audio_seconds == pytest.approx(2 * expected)
