"""Augmentation in trainings: the same changes for any number of workers and after a stop, and what is refused."""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import raysp
from raysp import PlanError, Schedule, SpecError, finetune
from raysp.training.data.micro_batches import TrainingRow
from raysp.training.finetuning import plan_recipe
from raysp.training.loop.worker import new_session
from raysp.training.tasks.ctc_task import CTCObjective
from tests.corpora import write_shard
from tests.recipes import a_recipe, words_table, write_words

pytestmark = pytest.mark.slow


@pytest.fixture
def sounds(tmp_path) -> str:
    return write_words(tmp_path / "sounds", 4)


def noisy(words, tiny, sink, sounds):
    augment = [
        raysp.Speed((0.9, 1.1)),
        raysp.Gain((-3, 3)),
        raysp.Noise(sounds, snr=(5, 10), share=0.5),
        raysp.Room(raysp.Shards(sounds, id=None), share=0.5),
    ]
    return a_recipe(words, tiny, sink, augment=augment, schedule=Schedule(epochs=2, learning_rate=1e-3))


@pytest.fixture
def seen(monkeypatch) -> dict[tuple[int, int], list[np.ndarray]]:
    """Samples that the model saw, by row."""
    waves: dict[int, list[np.ndarray]] = {}
    original = CTCObjective.__call__

    def recorded(self, batch):
        for row, wave in zip(batch.rows, batch.waves, strict=True):
            waves.setdefault(row, []).append(wave)
        return original(self, batch)

    monkeypatch.setattr(CTCObjective, "__call__", recorded)
    return waves


def test_each_row_is_changed_anew_in_each_epoch(words, tiny, sounds, tmp_path, seen):
    _, prepared = plan_recipe(noisy(words, tiny, tmp_path / "out", sounds))
    finetune(noisy(words, tiny, tmp_path / "out", sounds))
    assert sorted(seen) == [*range(30)]
    lengths = set()
    for row, waves in seen.items():
        first, second = waves
        before = round(float(prepared.index.seconds[row]) * 16_000)
        assert {len(first), len(second)} <= {round(before / 0.9), round(before / 1.1)}
        lengths.add(len(first) == len(second))
        assert len(first) != len(second) or not np.array_equal(first, second)
    assert lengths == {True, False}


def test_a_stopped_training_goes_on_bit_for_bit(words, tiny, sounds, tmp_path):
    finetune(noisy(words, tiny, tmp_path / "whole", sounds))
    asked = iter(range(100))
    finetune(noisy(words, tiny, tmp_path / "out", sounds), should_stop=lambda: next(asked) == 4)
    finetune(noisy(words, tiny, tmp_path / "out", sounds))
    whole, found = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "out"))
    assert all(torch.equal(found[name], value) for name, value in whole.items())


def test_the_changes_do_not_depend_on_the_worker(words, tiny, sounds, tmp_path):
    _, prepared = plan_recipe(noisy(words, tiny, tmp_path / "out", sounds))
    window = next(prepared.first_epoch.windows_from(0))
    read = {row: TrainingRow(np.full(8000, row + 1, np.int16), [3]) for row in window.rows.tolist()}
    whole = new_session(prepared, lambda _: read, None).rows(window)
    part = new_session(prepared, lambda _: {row: read[row] for row in [*read][::3]}, None).rows(window)
    assert len(part) == len(range(0, len(whole), 3))
    for row, found in part.items():
        assert np.array_equal(found.wave, whole[row].wave)


def test_sounds_and_settings_are_part_of_the_fingerprint(words, tiny, sounds, tmp_path):
    def hashed(recipe):
        return plan_recipe(recipe)[1].fingerprint

    recipe = noisy(words, tiny, tmp_path / "out", sounds)
    found = [hashed(recipe), hashed(a_recipe(words, tiny, tmp_path / "out", schedule=recipe.schedule))]
    write_shard(tmp_path / "sounds" / "0.parquet", table=words_table(5, seed=9))
    found.append(hashed(recipe))
    assert len({*found}) == 3


@pytest.mark.parametrize(
    ("augment", "message"),
    [
        (
            [raysp.Gain(), raysp.Speed()],
            r"found Speed at the places \[1\] of augment; expected one at most",
        ),
        ([raysp.Speed(), raysp.Speed()], "expected one at most"),
    ],
)
def test_the_speed_comes_first(words, tiny, tmp_path, augment, message):
    with pytest.raises(SpecError, match=message):
        a_recipe(words, tiny, tmp_path / "out", augment=augment)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: raysp.Gain((3, -3)), "expected the lower bound first"),
        (lambda: raysp.Noise("in", snr=(9, 1)), "expected the lower bound first"),
        (lambda: raysp.Speed(()), "found 0 factors; expected 1 to 256"),
        (lambda: raysp.Speed((0.0,)), "greater than 0"),
        (lambda: raysp.Room("in", share=2), "less than or equal to 1"),
    ],
)
def test_impossible_changes_are_refused(make, message):
    with pytest.raises(SpecError, match=message):
        make()


def test_sounds_that_do_not_exist_or_cannot_be_decoded_are_refused(words, tiny, tmp_path):
    with pytest.raises(PlanError, match=r"augment\.0\.source\.url: "):
        finetune(a_recipe(words, tiny, tmp_path / "out", augment=[raysp.Noise(f"{tmp_path}/none/*.parquet")]))
    table = words_table(3)
    silent = table.set_column(1, "audio", [[{"bytes": b"no", "path": None}] * 3])
    write_shard(tmp_path / "broken" / "a.parquet", table=silent)
    with pytest.raises(PlanError, match=r"augment\.0\.source: .*: no recording can be decoded"):
        finetune(a_recipe(words, tiny, tmp_path / "out", augment=[raysp.Room(f"{tmp_path}/broken/*.parquet")]))
