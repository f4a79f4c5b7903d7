"""Speed and memory measured on a few micro-batches."""

import multiprocessing

import numpy as np
import pytest

import raysp
from raysp import PlanError
from tests.corpora import wav, write_shard
from tests.recipes import a_recipe, broken_table, words_table

pytestmark = pytest.mark.slow

LONG = 24
"""Seconds of the longest row."""


def memories(usual, long):
    """Return the calibrated memory of a recipe, of it again after much memory was used and freed, and of another."""
    found = [raysp.estimate(usual, calibrate=True).memory]
    held = np.ones(60_000_000)
    del held
    return [*found, *(raysp.estimate(recipe, calibrate=True).memory for recipe in (usual, long))]


@pytest.mark.drivers
def test_the_memory_is_that_of_the_longest_row_wherever_it_is_and_nothing_from_before(tiny, tmp_path):
    table = words_table(12)
    long = table.slice(0, 1).set_column(1, "audio", [[{"bytes": wav(LONG * 16_000), "path": None}]])
    for number, part in enumerate((table, long.cast(table.schema), table)):
        write_shard(tmp_path / "in" / f"{number}.parquet", table=part)
    recipes = [a_recipe(f"{tmp_path}/in/{name}.parquet", tiny, tmp_path / "out") for name in ("0", "*")]
    with multiprocessing.get_context("spawn").Pool(1) as pool:  # a process in which other tests left nothing
        first, usual, found = pool.apply(memories, recipes)
    assert 1e8 < first.peak < 1.5e9
    assert usual.peak < first.peak + 2.4e8
    assert 0 <= usual.growth < usual.peak
    # Scores of attention of two layers with two heads, their dropped values, and masks.
    assert found.peak > usual.peak + 2 * 2 * (50 * LONG) ** 2 * 4
    assert found.rows == pytest.approx(2 * 2 * 16_000 * LONG, rel=0.05)  # two windows of its seconds, in int16
    assert found.needed == found.peak + found.rows


def test_rows_that_cannot_be_decoded_are_refused(tiny, tmp_path):
    write_shard(tmp_path / "in" / "z.parquet", table=broken_table(12))
    recipe = a_recipe(f"{tmp_path}/in/*.parquet", tiny, tmp_path / "out")
    with pytest.raises(PlanError, match="--calibrate: no row of a micro-batch can be decoded; state the speed"):
        raysp.estimate(recipe, calibrate=True)
