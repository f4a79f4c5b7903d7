"""Rows of windows, augmented: one is held as it was read or augmented, not both."""

import weakref
from types import SimpleNamespace

import numpy as np

from raysp.training.data.augmenting import AugmentedRows, Speeds
from raysp.training.data.micro_batches import TrainingRow
from raysp.training.data.waveform_augmentation import Gain, augmented

NUM_ROWS = 6


def test_a_row_as_it_was_read_is_freed_once_it_is_augmented():
    read: list[weakref.ref[np.ndarray]] = []
    held: list[int] = []

    def rows(window):
        waves = {row: np.full(100 + row, row, np.int16) for row in range(NUM_ROWS)}
        read.extend(weakref.ref(wave) for wave in waves.values())
        return {row: TrainingRow(wave, [row]) for row, wave in waves.items()}

    def counted(wave, random):
        held.append(sum(one() is not None for one in read))
        return wave + np.float32(1)

    found = AugmentedRows(rows, None, [counted], 0, NUM_ROWS)(SimpleNamespace(epoch=0))
    assert held == [*range(NUM_ROWS, 0, -1)]
    assert not any(one() is not None for one in read)
    assert [(row, *one.target, len(one.wave)) for row, one in found.items()] == [
        (row, row, 100 + row) for row in range(NUM_ROWS)
    ]


def test_rows_of_a_window_are_augmented_by_seed_epoch_and_number():
    waves = {row: np.random.default_rng(row).integers(-99, 99, 500).astype(np.int16) for row in (3, 1)}
    gain = Gain((-6, 6))
    rows = AugmentedRows(
        lambda window: {row: TrainingRow(wave, []) for row, wave in waves.items()}, Speeds((1.0,), 0), [gain], 7, 5
    )
    found = rows(SimpleNamespace(epoch=2))
    assert [*found] == [3, 1]
    for row, wave in waves.items():
        np.testing.assert_array_equal(found[row].wave, augmented(wave, [gain], seed=7, epoch=2, row=row))
