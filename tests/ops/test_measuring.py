"""Signals: loudness as recommended, noise, bandwidth and clipping of known size, in any batch and any windows."""

import numpy as np
import pyarrow as pa
import pytest
import torch

import raysp
from benchmarks.inputs.corpus import read_utterances
from raysp.audio.levels import filters
from raysp.ops.forward import Forward
from raysp.ops.measuring import Measuring
from raysp.specs.outputs.signals import LEVELS
from tests.corpora import DEMO
from tests.ops.phases import a_pass, columns_of

RATE, STRIDE = 16_000, 320
STAGED = pa.schema(
    [
        *((name, pa.list_(pa.float32())) for name in ("energies", "weighted")),
        ("clipped", pa.list_(pa.int32())),
        ("cells", pa.int32()),
        ("peak", pa.float64()),
        ("spectrum", pa.list_(pa.float64())),
    ]
)
SCHEMA = raysp.Signals().schema(None)


def op(rate: int = RATE, *, at_quiet_points: bool = False) -> Measuring:
    return Measuring(
        SCHEMA, STAGED, sample_rate=rate, frame_stride=rate * STRIDE // RATE, at_quiet_points=at_quiet_points
    )


def forward(waves: list[np.ndarray], parts: list[tuple[int, int] | None] | None = None) -> Forward:
    frames = [(len(wave) - 400) // STRIDE + 1 for wave in waves]
    return a_pass(frames, parts, waves=[torch.from_numpy(one).float() for one in waves])


def measured(*waves: np.ndarray, rate: int = RATE) -> list[dict[str, float]]:
    """Return the levels of recordings, in single precision as they are stored."""
    return pa.array(columns_of(op(rate), forward([*waves]))[0], SCHEMA[0].type).to_pylist()


def sine(hertz: float, level: float, seconds: float, rate: int = RATE) -> np.ndarray:
    """Make a sine whose peaks have a level in dBFS."""
    return 10 ** (level / 20) * np.sin(2 * np.pi * hertz * np.arange(int(seconds * rate)) / rate)


@pytest.fixture(scope="module")
def speech() -> np.ndarray:
    """Spoken digits with pauses of little noise: 30 s at 16 kHz, from 8 kHz."""
    draw = np.random.default_rng(0)
    words = read_utterances(str(DEMO / "audio" / "*.parquet"), RATE)["jackson"]
    parts = []
    while sum(map(len, parts)) < 30 * RATE:
        parts += [words[int(draw.integers(len(words)))].samples / 32768, np.zeros(int(draw.integers(3_000, 9_000)))]
    wave = np.concatenate(parts)[: 30 * RATE]
    return wave + 1e-5 * draw.standard_normal(len(wave))


def test_the_filters_of_48_khz_are_those_of_the_recommendation():
    shelf, high_pass = filters(48_000)
    assert shelf[0] == pytest.approx((1.53512485958697, -2.69169618940638, 1.19839281085285), abs=1e-12)
    assert shelf[1] == pytest.approx((1, -1.69065929318241, 0.73248077421585), abs=1e-12)
    assert high_pass[0] == (1, -2, 1)
    assert high_pass[1] == pytest.approx((1, -1.99004745483398, 0.99007225036621), abs=1e-12)


@pytest.mark.parametrize("rate", [8_000, 48_000])
@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ([(0, 5)], -3.01),  # a full sine of 997 Hz on one channel
        ([(-36, 10), (-23, 60), (-36, 10)], -26.01),  # EBU Tech 3341: the quiet parts are below the relative gate
        ([(-72, 10), (-36, 10), (-23, 60), (-36, 10), (-72, 10)], -26.01),
        ([(-23, 0.1)], -26.01),  # shorter than a block
    ],
)
def test_loudness_is_that_of_the_recommendation(rate, parts, expected):
    wave = np.concatenate([sine(997, level, seconds, rate) for level, seconds in parts])
    [found] = measured(wave, rate=rate)
    assert found["loudness"] == pytest.approx(expected, abs=0.2 if len(wave) < 0.4 * rate else 0.1)
    assert found["peak"] == pytest.approx(max(level for level, _ in parts), abs=0.1)


@pytest.mark.parametrize("snr", [0, 20])
def test_noise_of_a_known_level_is_found_in_speech(speech, snr):
    noise = np.random.default_rng(1).standard_normal(len(speech))
    noise *= np.sqrt((speech**2).mean() / (noise**2).mean() / 10 ** (snr / 10))
    [found] = measured(speech + noise)
    assert found["snr"] == pytest.approx(snr, abs=1)
    assert found["noise"] == pytest.approx(10 * np.log10((noise**2).mean()), abs=1)


@pytest.mark.parametrize(("gain", "expected"), [(0.9, 0), (1.01, 0.127), (2, 0.67)])
def test_samples_at_the_rail_are_counted_unless_they_are_single(gain, expected):
    wave = np.clip(gain * sine(200, 0, 3), -1, 1)
    assert measured(wave)[0]["clipped"] == pytest.approx(expected, abs=0.01)
    wave = np.zeros(RATE)
    wave[::100] = wave[1::100] = 1
    assert measured(wave)[0]["clipped"] == 0
    wave[2::100] = -1
    assert measured(wave)[0]["clipped"] == pytest.approx(0.03)


@pytest.mark.slow
def test_levels_depend_on_no_other_row_of_a_batch(speech):
    waves = [speech[:at] for at in (480_000, 400, 5_000, 123_456)] + [np.ones(9_000)]
    alone = [row for wave in waves for row in measured(wave)]
    assert measured(*waves) == alone
    assert all(None not in [row[name] for name in LEVELS] for row in alone)


@pytest.mark.parametrize(("length", "overlap"), [(5.0, 1.0), (12.0, 0.26)])
def test_levels_of_windows_are_those_of_the_whole_row_to_the_last_bit(speech, length, overlap):
    wave = np.clip(6 * speech, -1, 1)
    size, step = (round(RATE * one / STRIDE) * STRIDE for one in (length, length - overlap))
    starts = list(range(0, len(wave) - (size - step), step))
    half = (size - step) // 2 // STRIDE
    windows = [wave[start : start + size] for start in starts[:-1]] + [wave[starts[-1] :]]
    ends = [half + step // STRIDE] * (len(starts) - 1) + [(len(windows[-1]) - 400) // STRIDE + 1]
    parts = [(half if number else 0, end) for number, end in enumerate(ends)]
    assert joined(op(), windows, parts) == measured(wave)[0]


def joined(op: Measuring, windows: list[np.ndarray], parts: list[tuple[int, int]]) -> dict[str, float]:
    nulls, *staged = columns_of(op, forward(windows, parts))
    assert nulls == [None] * len(windows)
    [found] = op.join(pa.table(staged, schema=STAGED))
    return pa.array([found], SCHEMA[0].type).to_pylist()[0]
