"""Speed and memory measured on a few micro-batches."""

import multiprocessing

import numpy as np
import pytest

import raysp
from raysp import Batching, PlanError
from tests.corpora import wav, write_shard
from tests.recipes import a_recipe, words_table
from tests.training.runs.test_finetuning import broken_table


def memory_in_a_process(recipe):
    """Return the calibrated memory in a process of its own, in which other tests left nothing."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_memory, (recipe,))


def _memory(recipe):
    held = np.ones(200_000_000)
    del held
    return raysp.estimate(recipe, calibrate=True).memory


@pytest.mark.slow
def test_the_memory_is_that_of_the_longest_row_wherever_it_is_and_nothing_from_before(words, tiny, tmp_path):
    batching = Batching(seconds=6, micro_batches=2, window_seconds=10)
    usual = memory_in_a_process(a_recipe(words, tiny, tmp_path / "out", batching=batching))
    assert 1e8 < usual.peak < 1.5e9
    assert 0 <= usual.growth < usual.peak
    table = words_table(30)
    long = table.slice(0, 1).set_column(1, "audio", [[{"bytes": wav(60 * 16_000), "path": None}]])
    for number, part in enumerate((table, long.cast(table.schema), table)):
        write_shard(tmp_path / "in" / f"{number}.parquet", table=part)
    recipe = a_recipe(f"{tmp_path}/in/*.parquet", tiny, tmp_path / "out", batching=batching)
    found = memory_in_a_process(recipe)
    # Scores of attention of two layers with two heads, their dropped values, and masks.
    assert found.peak > usual.peak + 2 * 2 * 3000**2 * 4
    assert found.rows == pytest.approx(2 * 2 * 16_000 * 60, rel=0.05)  # two windows of its 60 s, in int16
    assert found.needed == found.peak + found.rows


@pytest.mark.slow
def test_rows_that_cannot_be_decoded_are_refused(tiny, tmp_path):
    write_shard(tmp_path / "in" / "z.parquet", table=broken_table(12))
    recipe = a_recipe(f"{tmp_path}/in/*.parquet", tiny, tmp_path / "out")
    with pytest.raises(PlanError, match="--calibrate: no row of a micro-batch can be decoded; state the speed"):
        raysp.estimate(recipe, calibrate=True)
