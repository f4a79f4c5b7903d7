"""Rows of pieces as they are read for training: any rows of any batches, in memory of their own."""

import numpy as np
import pytest

from raysp.corpus import parquet
from raysp.storage.store import LocalStore
from raysp.training.planning.training_plan import plan_training
from raysp.training.preparing import prepare
from tests.recipes import a_recipe, write_words


@pytest.fixture
def prepared(tiny, tmp_path):
    url = write_words(tmp_path / "in", 24, 16)
    return prepare(plan_training(a_recipe(url, tiny, tmp_path / "out")), LocalStore(tmp_path / "out"))


def rows_of(prepared, number: int, rows: list[int]) -> dict[int, tuple[list[int], list[float]]]:
    found = prepared.reader()(number, rows)
    assert found.failed == []
    return {row: (one.wave.tolist(), [*one.target]) for row, one in found.rows.items()}


@pytest.mark.parametrize("rows", [range(24, 40), [24], [39], [25, 26, 33], []], ids=str)
def test_rows_are_the_same_in_batches_of_any_size(prepared, monkeypatch, rows):
    whole = rows_of(prepared, 1, [*range(24, 40)])
    seconds = {row: np.float32(len(wave) / 16_000) for row, (wave, _) in whole.items()}
    assert seconds == dict(enumerate(prepared.index.seconds[24:], 24))
    monkeypatch.setattr(parquet, "READ_BATCH_BYTES", 50_000)
    assert rows_of(prepared, 1, [*rows]) == {row: whole[row] for row in rows}
