"""Augmentation: the same for a row of an epoch however it is run, exact ratios, and nothing clipped."""

from functools import partial

import numpy as np
import pytest

from raysp.training.data.waveform_augmentation import at_speed, augmented, gain, noise, room

RATE = 16_000


def speech(num_samples: int = 12_000, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 0.1, num_samples).astype(np.float32)


def tone(hertz: float) -> np.ndarray:
    return np.sin(2 * np.pi * hertz * np.arange(RATE) / RATE).astype(np.float32)


def response(seconds: float = 0.1) -> np.ndarray:
    """An impulse after 40 samples, and its reverberation."""
    num_samples = round(seconds * RATE)
    random = np.random.default_rng(3)
    tail = 0.05 * random.normal(size=num_samples) * np.exp(-np.arange(num_samples) / 300)
    tail[40] = 1.0
    return tail.astype(np.float32)


def a_noise(noises: list[np.ndarray], snr: tuple[float, float], **share: float) -> partial:
    return partial(noise, noises=noises, snr=snr, **share)


def changed(wave: np.ndarray, *augmentation: partial, row: int = 0) -> np.ndarray:
    return augmented(wave, augmentation, seed=0, epoch=0, row=row)


def decibels(power: float, other: float) -> float:
    return 10 * np.log10(power / other)


def power(wave: np.ndarray) -> float:
    return float(np.square(wave, dtype=np.float64).mean())


KINDS = {
    "gain": partial(gain, decibels=(-6, 6)),
    "noise": a_noise([speech(5000, 1), speech(30_000, 2)], (5, 20)),
    "room": partial(room, responses=[response(0.01 * number) for number in range(1, 30)]),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_row_of_an_epoch_is_always_changed_alike_and_in_no_other_alike(kind):
    wave, augmentation = speech(), [KINDS[kind]]
    before, key = wave.copy(), {"seed": 1, "epoch": 2, "row": 3}
    first = augmented(wave, augmentation, **key)
    np.random.seed(5)  # numpy's own generator has no part in it
    assert np.array_equal(augmented(wave, augmentation, **key), first)
    assert np.array_equal(wave, before)
    assert (first.dtype, first.shape) == (np.float32, wave.shape)
    for name in key:
        assert not np.array_equal(augmented(wave, augmentation, **{**key, name: 7}), first), name


def test_an_augmentation_draws_nothing_from_those_before_it():
    """So that a gain before a noise does not change the noise."""
    wave, noise = speech(), a_noise([speech(20_000, 2)], (10, 10))
    noises = [
        changed(wave, partial(gain, decibels=(level, level)), noise) / ratio - wave
        for level, ratio in ((0, 1.0), (20, 10.0))
    ]
    np.testing.assert_allclose(noises[0], noises[1], atol=1e-6)


@pytest.mark.parametrize(("noise_samples", "snr"), [(300, -5.0), (12_000, 12.5), (50_000, 40.0)])
def test_the_ratio_to_the_noise_is_reached_exactly(noise_samples, snr):
    wave = speech()
    noisy = changed(wave, a_noise([speech(noise_samples, 4)], (snr, snr)))
    assert decibels(power(wave), power(noisy.astype(np.float64) - wave)) == pytest.approx(snr, abs=1e-3)


@pytest.mark.parametrize("kind", [a_noise([speech(9000)], (5, 5)), partial(room, responses=[response()])])
def test_a_share_of_the_rows_is_changed(kind):
    wave = speech(500)
    counts = [
        sum(not np.array_equal(changed(wave, partial(kind, share=share), row=row), wave) for row in range(400))
        for share in (0.0, 0.25, 1.0)
    ]
    assert (counts[0], counts[2]) == (0, 400)
    assert 80 < counts[1] < 120


def test_nothing_is_clipped():
    loud = np.array([32767, -32768, 20_000], np.int16)
    as_float = loud / 32768
    np.testing.assert_allclose(changed(loud, partial(gain, decibels=(20, 20))), 10 * as_float, rtol=1e-6)
    noisy = changed(loud, a_noise([np.full(3, 0.9, np.float32)], (0, 0)))
    np.testing.assert_allclose(noisy - as_float, np.full(3, np.sqrt(power(as_float))), rtol=1e-5)
    assert np.abs(noisy).max() > 1
    square = np.tile(np.repeat([32767, -32768], 40), 50).astype(np.int16)
    assert np.abs(at_speed(square, 0.9)).max() > 1  # what overshoots at the edges stays


def test_a_room_is_the_convolution_with_its_response_and_keeps_power_and_place():
    wave, impulses = speech(700), response(0.03)
    sound = changed(wave, partial(room, responses=[impulses]))
    full = np.convolve(wave.astype(np.float64), impulses)[40 : 40 + 700]  # the impulse comes after 40 samples
    np.testing.assert_allclose(sound, full * np.sqrt(power(wave) / power(full)), atol=1e-6)


@pytest.mark.parametrize("factor", [0.9, 1.1])
def test_speed_raises_the_pitch(factor):
    faster = at_speed(tone(440), factor)
    spectrum = np.abs(np.fft.rfft(faster))
    assert spectrum.argmax() * RATE / len(faster) == pytest.approx(440 * factor, abs=1.5)
    assert power(faster) == pytest.approx(power(tone(440)), rel=0.01)
