"""Augmentation in trainings: the same changes for any number of workers and after a stop, and what is refused."""

import pyarrow as pa
import pytest
import torch
from safetensors.torch import load_file

import raysp
from raysp import ChangedError, Schedule, finetune
from tests.corpora import AUDIO, wav, write_shard
from tests.recipes import a_recipe, words_table, write_words
from tests.training.trained import indexed, planned

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


def test_a_stopped_training_goes_on_bit_for_bit(words, tiny, sounds, tmp_path):
    finetune(noisy(words, tiny, tmp_path / "whole", sounds))
    asked = iter(range(100))
    finetune(noisy(words, tiny, tmp_path / "out", sounds), should_stop=lambda: next(asked) == 4)
    finetune(noisy(words, tiny, tmp_path / "out", sounds))
    whole, found = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "out"))
    assert all(torch.equal(found[name], value) for name, value in whole.items())


@pytest.mark.parametrize(("fastest", "left_out"), [(1.0, {}), (1.2, {"too_short": 1})])
def test_a_row_that_is_too_short_at_the_highest_speed_is_left_out(tiny, tmp_path, fastest, left_out):
    table = words_table(8, texts=["e"] * 8)
    table = table.set_column(1, "audio", pa.array([{"bytes": wav(420)}, *table["audio"].to_pylist()[1:]], AUDIO))
    write_shard(tmp_path / "in" / "a.parquet", table=table)
    recipe = a_recipe(f"{tmp_path}/in", tiny, tmp_path / "out", augment=[raysp.Speed((0.9, fastest))])
    result = finetune(recipe)
    assert (result.is_done, result.left_out) == (True, left_out)


def test_settings_are_part_of_the_fingerprint_and_other_sounds_are_refused(words, tiny, sounds, tmp_path):
    def hashed(recipe):
        return planned(recipe)["fingerprint"]

    recipe = noisy(words, tiny, tmp_path / "out", sounds)
    found = [hashed(recipe), hashed(a_recipe(words, tiny, tmp_path / "out", schedule=recipe.schedule))]
    assert found[0] != found[1]
    indexed(recipe)
    write_shard(tmp_path / "sounds" / "0.parquet", table=words_table(5, seed=9))
    with pytest.raises(ChangedError, match=r"1 shard of augment\.2\.source has another version"):
        finetune(recipe)
