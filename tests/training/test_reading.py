"""Rows of pieces as they are read for training: any rows of any batches, in memory of their own."""

import numpy as np
import pytest

from raysp.corpus import parquet
from raysp.storage.store import LocalStore
from raysp.training.data.row_windows import BUFFER_BYTES, WaveBuffer
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


def test_waves_are_kept_apart_from_each_other_and_from_what_they_were_copied_from():
    buffer = WaveBuffer()
    waves = [np.arange(n, dtype=dtype) for n in (0, 3, 5) for dtype in (np.int16, np.float32)]
    waves.append(np.ones(BUFFER_BYTES // 2 + 1, np.int16))
    waves.append(np.full(7, 0.5, np.float32))
    kept = [buffer.kept(wave) for wave in waves]
    for wave, copy in zip(waves, kept, strict=True):
        assert copy.dtype == wave.dtype
        assert copy.flags.aligned
        assert np.array_equal(copy, wave)
    kept[2][:] = -1
    waves[3][:] = 9
    assert kept[3].tolist() == [0, 1, 2]
    assert kept[4].tolist() == [0, 1, 2, 3, 4]
