"""Signals: loudness as recommended, noise and clipping of known size, in any batch and any windows."""

import numpy as np
import pytest

import raysp
from benchmarks.inputs.corpus import read_utterances
from tests.corpora import CHECKPOINT, DEMO, label_arrays

RATE = 16_000
LEVELS = ("loudness", "peak", "clipped", "noise", "snr", "bandwidth", "speech_share")
SHELF = (1.53512485958697, -2.69169618940638, 1.19839281085285), (1, -1.69065929318241, 0.73248077421585)
HIGH_PASS = (1, -2, 1), (1, -1.99004745483398, 0.99007225036621)
"""Filters of ITU-R BS.1770-4 at 48 kHz: coefficients of numerators and denominators."""


def measured(*waves: np.ndarray, **label: object) -> list[dict[str, float]]:
    """Return the levels of recordings."""
    rows = label_arrays(CHECKPOINT, raysp.Signals(), waves, dtype="float32", device="cpu", **label)
    assert {row["status"] for row in rows} == {"ok"}
    return [row["signal"] for row in rows]


def sine(hertz: float, level: float, seconds: float) -> np.ndarray:
    """Make a sine whose peaks have a level in dBFS."""
    return 10 ** (level / 20) * np.sin(2 * np.pi * hertz * np.arange(int(seconds * RATE)) / RATE)


def recommended(hertz: float) -> float:
    """Return the gain of the filters in decibels."""
    powers = np.exp(-2j * np.pi * hertz / 48_000 * np.arange(3))
    gains = [abs(np.dot(over, powers) / np.dot(under, powers)) for over, under in (SHELF, HIGH_PASS)]
    return float(20 * np.log10(np.prod(gains)))


@pytest.fixture(scope="module")
def speech() -> np.ndarray:
    """Spoken digits with pauses of little noise: 12 s at 16 kHz, from 8 kHz."""
    draw = np.random.default_rng(0)
    words = read_utterances(str(DEMO / "audio" / "*.parquet"), RATE)["jackson"]
    parts = []
    while sum(map(len, parts)) < 12 * RATE:
        parts += [words[int(draw.integers(len(words)))].samples / 32768, np.zeros(int(draw.integers(3_000, 9_000)))]
    wave = np.concatenate(parts)[: 12 * RATE]
    return wave + 1e-5 * draw.standard_normal(len(wave))


def test_loudness_is_that_of_the_recommendation():
    parts_of = [
        ([(0, 5)], -3.01),  # a full sine of 997 Hz on one channel
        ([(-36, 10), (-23, 60), (-36, 10)], -26.01),  # EBU Tech 3341: the quiet parts are below the relative gate
        ([(-72, 10), (-36, 10), (-23, 60), (-36, 10), (-72, 10)], -26.01),
        ([(-23, 0.1)], -26.01),  # shorter than a block
    ]
    waves = [np.concatenate([sine(997, *part) for part in parts]) for parts, _ in parts_of]
    for found, wave, (parts, expected) in zip(measured(*waves), waves, parts_of, strict=True):
        assert found["loudness"] == pytest.approx(expected, abs=0.2 if len(wave) < 0.4 * RATE else 0.1)
        assert found["peak"] == pytest.approx(max(level for level, _ in parts), abs=0.1)
    hertz = (30, 60, 200, 1_500)
    for one, found in zip(hertz, measured(*(sine(one, -10, 3) for one in hertz)), strict=True):
        assert found["loudness"] == pytest.approx(-10 - 3.01 - 0.691 + recommended(one), abs=0.1), one


def test_noise_of_a_known_level_is_found_in_speech(speech):
    noise = np.random.default_rng(1).standard_normal(len(speech))
    noise *= np.sqrt((speech**2).mean() / (noise**2).mean())
    scales = {0: 0.25, 20: 0.025}  # no sample is beyond full scale
    waves = [0.25 * speech + scale * noise for scale in scales.values()]
    for (snr, scale), found in zip(scales.items(), measured(*waves), strict=True):
        assert found["snr"] == pytest.approx(snr, abs=1)
        assert found["noise"] == pytest.approx(10 * np.log10(((scale * noise) ** 2).mean()), abs=1)


def test_levels_depend_on_no_other_row_of_a_batch_nor_on_windows(speech):
    loud = np.clip(6 * speech, -1, 1)
    waves = [speech, speech[:400], speech[:5_000], speech[:60_000], 0.99 * np.ones(9_000), loud]
    together = measured(*waves)
    assert together == [row for wave in waves for row in measured(wave)]
    assert all(row[name] is not None for row in together for name in LEVELS)
    assert measured(loud, window_seconds=5, overlap_seconds=1) == together[-1:]
