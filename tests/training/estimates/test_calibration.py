"""Speed measured on a few micro-batches."""

import re

import pytest
import torch

import raysp
from raysp import Batching, PlanError
from tests.corpora import write_shard
from tests.recipes import a_recipe
from tests.training.runs.test_finetuning import broken_table


def seconds_of(text: str) -> float:
    """Return the seconds of a duration such as 0:12."""
    minutes, seconds = text.split(":")
    return 60 * int(minutes) + int(seconds)


@pytest.mark.slow
def test_micro_batches_of_middle_cost_are_timed_and_an_update(words, tiny, tmp_path):
    threads = torch.get_num_threads()
    recipe = a_recipe(words, tiny, tmp_path / "out", ema=0.9, batching=Batching(seconds=12, micro_batches=3))
    found = raysp.estimate(recipe, calibrate=True)
    assert found.speed.rtfx > 0
    assert found.speed.memory_bytes > 1e8
    told = re.fullmatch(
        r"measured here on 1 CPU: (\d+:\d\d) of audio in ([\d.]+) s, of which an update is ([\d.]+) s",
        found.speed.origin,
    )
    assert told
    assert 4 <= seconds_of(told[1]) <= 8  # two micro-batches of at most 4 padded seconds
    assert float(told[3]) <= float(told[2])
    assert found.cost.wall_seconds.value == pytest.approx(found.left.audio_seconds / found.speed.rtfx)
    assert torch.get_num_threads() == threads
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_rows_that_cannot_be_decoded_are_refused(tiny, tmp_path):
    write_shard(tmp_path / "in" / "z.parquet", table=broken_table(12))
    recipe = a_recipe(f"{tmp_path}/in/*.parquet", tiny, tmp_path / "out")
    with pytest.raises(PlanError, match="--calibrate: no row of a micro-batch of the first window can be decoded"):
        raysp.estimate(recipe, calibrate=True)
