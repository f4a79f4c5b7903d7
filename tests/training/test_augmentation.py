"""Augmentation: the same for a row of an epoch however it is run, exact ratios, and nothing clipped."""

import weakref
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest

from raysp import finetune
from raysp.training.data.augmenting import AugmentedRows, Speeds
from raysp.training.data.micro_batches import TrainingRow
from raysp.training.data.waveform_augmentation import as_float32, at_speed, augmented, gain, noise, room
from raysp.training.loop.worker import new_session
from raysp.training.objectives.task import Criterion
from tests.training.criteria import planned_training
from tests.training.runs.test_augmented import noisy, sounds

__all__ = ["sounds"]  # a fixture

RATE = 16_000


def speech(num_samples: int = 12_000, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 0.1, num_samples).astype(np.float32)


def tone(hertz: float, num_samples: int = RATE) -> np.ndarray:
    return np.sin(2 * np.pi * hertz * np.arange(num_samples) / RATE).astype(np.float32)


def response(seconds: float = 0.1) -> np.ndarray:
    """An impulse after 40 samples, and its reverberation."""
    num_samples = round(seconds * RATE)
    random = np.random.default_rng(3)
    tail = 0.05 * random.normal(size=num_samples) * np.exp(-np.arange(num_samples) / 300)
    tail[40] = 1.0
    return tail.astype(np.float32)


def a_gain(decibels: tuple[float, float]) -> partial:
    return partial(gain, decibels=decibels)


def a_noise(noises: list[np.ndarray], snr: tuple[float, float], **share: float) -> partial:
    return partial(noise, noises=noises, snr=snr, **share)


def a_room(responses: list[np.ndarray], **share: float) -> partial:
    return partial(room, responses=responses, **share)


def decibels(power: float, other: float) -> float:
    return 10 * np.log10(power / other)


def power(wave: np.ndarray) -> float:
    return float(np.square(wave, dtype=np.float64).mean())


ALL = [
    a_gain((-6, 6)),
    a_noise([speech(5000, 1), speech(30_000, 2)], (5, 20)),
    a_room([response(0.01 * number) for number in range(1, 30)]),
]


@pytest.mark.parametrize("augmentation", [*([one] for one in ALL), ALL], ids=["gain", "noise", "room", "all"])
def test_a_row_of_an_epoch_is_always_changed_alike_and_in_no_other_alike(augmentation):
    wave = speech()
    before = wave.copy()
    key = {"seed": 1, "epoch": 2, "row": 3}
    first = augmented(wave, augmentation, **key)
    np.random.seed(5)  # numpy's own generator has no part in it
    assert np.array_equal(augmented(wave, augmentation, **key), first)
    assert np.array_equal(wave, before)
    assert first.dtype == np.float32
    assert first.shape == wave.shape
    for name in key:
        assert not np.array_equal(augmented(wave, augmentation, **{**key, name: 7}), first), name


def test_without_augmentations_a_waveform_stays_as_it_is():
    wave = np.arange(5, dtype=np.int16)
    assert augmented(wave, [], seed=0, epoch=0, row=0) is wave


def test_an_augmentation_draws_nothing_from_those_before_it():
    """So that a gain before a noise does not change the noise."""
    wave, noise = speech(), a_noise([speech(20_000, 2)], (10, 10))
    noises = [
        augmented(wave, [gain, noise], seed=0, epoch=0, row=0) / ratio - wave
        for gain, ratio in ((a_gain((0, 0)), 1.0), (a_gain((20, 20)), 10.0))
    ]
    np.testing.assert_allclose(noises[0], noises[1], atol=1e-6)


@pytest.mark.parametrize("snr", [-5.0, 0.0, 12.5, 40.0])
@pytest.mark.parametrize("noise_samples", [300, 12_000, 50_000])
def test_the_ratio_to_the_noise_is_reached_exactly(snr, noise_samples):
    wave = speech()
    noisy = augmented(wave, [a_noise([speech(noise_samples, 4)], (snr, snr))], seed=0, epoch=0, row=0)
    assert decibels(power(wave), power(noisy.astype(np.float64) - wave)) == pytest.approx(snr, abs=1e-3)


def test_ratios_are_drawn_from_the_whole_range():
    wave, noise = speech(2000), a_noise([speech(5000, 4)], (5, 20))
    found = [
        decibels(power(wave), power(augmented(wave, [noise], seed=0, epoch=0, row=row) - wave)) for row in range(300)
    ]
    assert (min(found), max(found)) == (pytest.approx(5, abs=0.3), pytest.approx(20, abs=0.3))
    assert np.mean(found) == pytest.approx(12.5, abs=1)


def test_silence_stays_without_noise():
    silent, noisy = np.zeros(1000, np.float32), a_noise([speech(1000)], (10, 10))
    assert not augmented(silent, [noisy], seed=0, epoch=0, row=0).any()
    wave = speech(1000)
    assert np.array_equal(augmented(wave, [a_noise([silent], (10, 10))], seed=0, epoch=0, row=0), wave)


@pytest.mark.parametrize(
    "kind",
    [lambda share: a_noise([speech(9000)], (5, 5), share=share), lambda share: a_room([response()], share=share)],
)
def test_a_share_of_the_rows_is_changed(kind):
    wave = speech(500)

    def changed(share: float) -> int:
        return sum(
            not np.array_equal(augmented(wave, [kind(share)], seed=0, epoch=0, row=row), wave) for row in range(400)
        )

    assert (changed(0.0), changed(1.0)) == (0, 400)
    assert 80 < changed(0.25) < 120


@pytest.mark.parametrize("change", [-10.0, 0.0, 12.0])
def test_a_gain_is_in_decibels(change):
    wave = speech()
    louder = augmented(wave, [a_gain((change, change))], seed=0, epoch=0, row=0)
    assert decibels(power(louder), power(wave)) == pytest.approx(change, abs=1e-3)


def test_nothing_is_clipped():
    loud = np.array([32767, -32768, 20_000], np.int16)
    as_float = loud / 32768
    louder = augmented(loud, [a_gain((20, 20))], seed=0, epoch=0, row=0)
    np.testing.assert_allclose(louder, 10 * as_float, rtol=1e-6)
    noisy = augmented(loud, [a_noise([np.full(3, 0.9, np.float32)], (0, 0))], seed=0, epoch=0, row=0)
    np.testing.assert_allclose(noisy - as_float, np.full(3, np.sqrt(power(as_float))), rtol=1e-5)
    assert np.abs(noisy).max() > 1
    square = np.tile(np.repeat([32767, -32768], 40), 50).astype(np.int16)
    assert np.abs(at_speed(square, 0.9)).max() > 1  # what overshoots at the edges stays


def test_a_room_keeps_power_and_place():
    wave = speech()
    wave[:3000] = wave[5000:] = 0
    sound = augmented(wave, [a_room([response()])], seed=0, epoch=0, row=0)
    assert power(sound) == pytest.approx(power(wave), rel=1e-5)
    lags = np.correlate(sound, wave[3000:5000], "valid")
    assert lags.argmax() == 3000


def test_a_room_is_the_convolution_with_its_response():
    wave, room = speech(700), response(0.03)
    full = np.convolve(wave.astype(np.float64), room)[40 : 40 + 700]
    expected = full * np.sqrt(power(wave) / power(full))
    np.testing.assert_allclose(augmented(wave, [a_room([room])], seed=0, epoch=0, row=0), expected, atol=1e-6)


def test_an_impulse_leaves_a_waveform_as_it_is():
    wave, impulse = speech(700), np.array([0, 0, -0.5, 0], np.float32)
    np.testing.assert_allclose(augmented(wave, [a_room([impulse])], seed=0, epoch=0, row=0), -wave, atol=1e-6)
    assert not augmented(np.zeros(9, np.float32), [a_room([impulse])], seed=0, epoch=0, row=0).any()


@pytest.mark.parametrize("factor", [0.9, 1.1, 0.95, 1.3])
@pytest.mark.parametrize("num_samples", [1, 5, 3200, 16_001])
def test_speed_divides_the_number_of_samples(factor, num_samples):
    assert len(at_speed(speech(num_samples), factor)) == round(num_samples / factor)


@pytest.mark.parametrize("factor", [0.9, 1.1])
def test_speed_raises_the_pitch(factor):
    faster = at_speed(tone(440), factor)
    spectrum = np.abs(np.fft.rfft(faster))
    assert spectrum.argmax() * RATE / len(faster) == pytest.approx(440 * factor, abs=1.5)
    assert power(faster) == pytest.approx(power(tone(440)), rel=0.01)


def test_integer_samples_are_those_of_floats():
    wave = np.round(speech() * 32767).astype(np.int16)
    for change in (lambda one: at_speed(one, 1.1), lambda one: augmented(one, ALL, seed=0, epoch=0, row=0)):
        assert np.array_equal(change(wave), change(as_float32(wave)))


def test_speed_one_and_empty_waveforms_stay_as_they_are():
    wave, empty = speech(), np.zeros(0, np.float32)
    assert at_speed(wave, 1.0) is wave
    assert at_speed(empty, 0.9) is empty
    assert len(augmented(empty, ALL, seed=0, epoch=0, row=0)) == 0


def test_speeds_of_rows_depend_on_the_epoch_and_not_on_the_number_of_rows():
    speeds = Speeds((0.9, 1.0, 1.1), 1)
    factors = speeds.of(2, 3000)
    assert np.array_equal(Speeds((0.9, 1.0, 1.1), 1).of(2, 3000), factors)
    assert np.array_equal(speeds.of(2, 1000), factors[:1000])
    assert not np.array_equal(speeds.of(3, 3000), factors)
    assert np.unique(factors, return_counts=True)[1].min() > 900
    assert np.array_equal(np.unique(factors), speeds.factors)


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
    gain = a_gain((-6, 6))
    rows = AugmentedRows(
        lambda window: {row: TrainingRow(wave, []) for row, wave in waves.items()}, Speeds((1.0,), 0), [gain], 7, 5
    )
    found = rows(SimpleNamespace(epoch=2))
    assert [*found] == [3, 1]
    for row, wave in waves.items():
        np.testing.assert_array_equal(found[row].wave, augmented(wave, [gain], seed=7, epoch=2, row=row))


@pytest.fixture
def seen(monkeypatch) -> dict[tuple[int, int], list[np.ndarray]]:
    """Samples that the model saw, by row."""
    waves: dict[int, list[np.ndarray]] = {}
    original = Criterion.__call__

    def recorded(self, batch):
        for row, wave in zip(batch.rows, batch.waves, strict=True):
            waves.setdefault(row, []).append(wave)
        return original(self, batch)

    monkeypatch.setattr(Criterion, "__call__", recorded)
    return waves


@pytest.mark.slow
def test_each_row_is_changed_anew_in_each_epoch(words, tiny, sounds, tmp_path, seen):
    _, prepared = planned_training(noisy(words, tiny, tmp_path / "out", sounds))
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


@pytest.mark.slow
def test_the_changes_do_not_depend_on_the_worker(words, tiny, sounds, tmp_path):
    _, prepared = planned_training(noisy(words, tiny, tmp_path / "out", sounds))
    window = next(prepared.order.first_epoch.windows_from(0))
    read = {row: TrainingRow(np.full(8000, row + 1, np.int16), [3]) for row in window.rows.tolist()}
    whole = new_session(prepared, lambda _: read, None).rows(window)
    part = new_session(prepared, lambda _: {row: read[row] for row in [*read][::3]}, None).rows(window)
    assert len(part) == len(range(0, len(whole), 3))
    for row, found in part.items():
        assert np.array_equal(found.wave, whole[row].wave)
