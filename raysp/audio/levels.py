"""Loudness, noise, bandwidth and share of speech of a recording, from the levels of its cells.

A cell is a stretch of a 50th of a second, or less. Its levels depend on its own samples, and a little before them. So
those of a recording are the same whether it is measured at once or in windows.
"""

import math
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]

CELLS_PER_SECOND = 50
"""Least number of cells per second."""
STEPS_PER_SECOND = 10
"""Steps of the blocks of loudness: ITU-R BS.1770-4 has blocks of 400 ms that overlap by 75 %."""
BLOCK_STEPS = 4
ABSOLUTE_GATE, RELATIVE_GATE = -70.0, -10.0
"""Blocks below these do not count: in LUFS, and in LU from the loudness of the others (ITU-R BS.1770-4)."""
OFFSET = -0.691
"""Makes a sine of 997 Hz as loud as its RMS level is high (ITU-R BS.1770-4)."""
SILENCE = -120.0
"""Lowest level in dBFS: below one step of 16-bit samples."""
LOWEST_SNR, HIGHEST_SNR = -20.0, 100.0
NOISE_PERCENTILE = 15
"""Percentile of the energies of cells that is the noise. With lower ones other voices count as speech, with higher ones
speech as noise, where less of a recording is pause (quality.md)."""
SPEECH_FRACTION, SPEECH_MARGIN = 0.3, 3.0
"""Speech begins at this share of the way from the noise to the loud parts, at least so many dB above the noise."""
LOUD_PERCENTILE = 95
SMOOTHED_SECONDS = 0.2
BAND = (300.0, 3400.0)
"""Hz of a telephone, which every recording of speech fills."""
BAND_RANGE = 55.0
"""dB from the mean density within `BAND` to the least that counts as signal; the level of fricatives is higher."""
SHELF_HZ, SHELF_GAIN, SHELF_Q = 1681.974450955533, 3.999843853973347, 0.7071752369554196
PASS_HZ, PASS_Q = 38.13547087602444, 0.5003270373238773
"""Analogue prototypes of the filters of ITU-R BS.1770-4, which lists their coefficients for 48 kHz alone."""


@dataclass(frozen=True)
class Cells:
    """Levels of the cells of a recording, of which the last samples may lack a cell."""

    sample_rate: int
    samples: int
    """Samples of a cell, which divide a 50th of a second."""
    energy: Floats
    """Mean square of each cell."""
    weighted: Floats
    """Energies of the cells after the filters of loudness."""
    clipped: npt.NDArray[np.int64]
    """Number of clipped samples of each cell."""
    peak: float
    """Largest magnitude."""
    spectrum: Doubles
    """Sum of the power spectra of the cells, from 0 Hz to half the sample rate."""

    @classmethod
    def joined(cls, parts: "list[Self]") -> Self:
        """Return the cells of a recording from those of its parts, in order."""
        return cls(
            parts[0].sample_rate,
            parts[0].samples,
            np.concatenate([part.energy for part in parts]),
            np.concatenate([part.weighted for part in parts]),
            np.concatenate([part.clipped for part in parts]),
            max(part.peak for part in parts),
            np.sum([part.spectrum for part in parts], axis=0),
        )


def cell_samples(sample_rate: int, frame_stride: int) -> int:
    """Return the samples of a cell: the most that divide a 50th of a second, and the distance of a model's frames."""
    return math.gcd(sample_rate // CELLS_PER_SECOND, frame_stride)


def levels(cells: Cells) -> dict[str, object]:
    """Return the signals of a recording.

    Returns:
        `loudness` (LUFS, at least -70), `peak` and `noise` (dBFS, at least -120), `clipped` and `speech_share` (shares
        of the samples), `snr` (dB, from -20 to 100), `bandwidth` (Hz); `speech`, the stretches of `speech_share`, as
        `start` and `end` in seconds.
    """
    noise = float(np.percentile(cells.energy, NOISE_PERCENTILE))
    is_speech = _is_speech(cells, float(_decibels(noise)))
    edges = np.flatnonzero(np.diff(is_speech, prepend=False, append=False)) * cells.samples / cells.sample_rate
    return {
        "loudness": loudness(cells),
        "peak": float(_decibels(cells.peak**2)),
        "clipped": float(cells.clipped.sum()) / (len(cells.clipped) * cells.samples),
        "noise": float(_decibels(noise)),
        "snr": _snr(float(cells.energy.mean(dtype=np.float64)), noise),
        "bandwidth": bandwidth(cells),
        "speech_share": float(is_speech.mean()),
        "speech": [{"start": start, "end": end} for start, end in edges.reshape(-1, 2).tolist()],
    }


def loudness(cells: Cells) -> float:
    """Return the integrated loudness of one channel in LUFS (ITU-R BS.1770-4, EBU R 128).

    A recording shorter than a block is one block. The last samples that fill no step of a block do not count.
    """
    a_step = cells.sample_rate // STEPS_PER_SECOND // cells.samples
    num_steps = len(cells.weighted) // a_step
    if num_steps < BLOCK_STEPS:
        blocks = cells.weighted.mean(dtype=np.float64, keepdims=True)
    else:
        steps = cells.weighted[: num_steps * a_step].reshape(num_steps, a_step).mean(1, dtype=np.float64)
        blocks = np.lib.stride_tricks.sliding_window_view(steps, BLOCK_STEPS).mean(1)
    heard = blocks[_lufs(blocks) > ABSOLUTE_GATE]
    if len(heard):
        heard = heard[_lufs(heard) > _lufs(heard.mean()) + RELATIVE_GATE]
    return max(ABSOLUTE_GATE, float(_lufs(heard.mean()))) if len(heard) else ABSOLUTE_GATE


def _lufs(power: "Doubles | np.float64") -> Doubles:
    return OFFSET + _decibels(power)


def bandwidth(cells: Cells) -> float:
    """Return the highest frequency in Hz where the mean spectrum is at most `BAND_RANGE` below the level of `BAND`."""
    width = cells.sample_rate / cells.samples
    frequencies = np.arange(len(cells.spectrum)) * width
    band = cells.spectrum[(frequencies >= BAND[0]) & (frequencies <= BAND[1])]
    if not len(band) or not band.any():
        return 0.0
    return float(frequencies[np.flatnonzero(cells.spectrum > band.mean() * 10 ** (-BAND_RANGE / 10))[-1]])


def _snr(power: float, noise: float) -> float:
    """Return the ratio in dB of speech to the noise in it."""
    if noise == 0:
        return HIGHEST_SNR if power else LOWEST_SNR
    return float(np.clip(10 * np.log10(max((power - noise) / noise, 1e-12)), LOWEST_SNR, HIGHEST_SNR))


def _is_speech(cells: Cells, noise: float) -> npt.NDArray[np.bool_]:
    """Return for each cell whether its smoothed level is as high as speech."""
    length = min(len(cells.energy), round(SMOOTHED_SECONDS * cells.sample_rate / cells.samples))
    smoothed = np.convolve(cells.energy.astype(np.float64), np.full(length, 1 / length), "same")
    loud = float(np.percentile(_decibels(cells.energy), LOUD_PERCENTILE))
    least = noise + max(SPEECH_MARGIN, SPEECH_FRACTION * (loud - noise))
    return np.asarray(_decibels(smoothed) > least)


def _decibels(power: "Floats | Doubles | float") -> Doubles:
    return np.asarray(10 * np.log10(np.maximum(np.asarray(power, np.float64), 10 ** (SILENCE / 10))))


def weighting(sample_rate: int, size: int) -> npt.NDArray[np.complex128]:
    """Return the frequency response of the filters of loudness, for a real FFT of `size` samples.

    The filters are the bilinear transforms of their prototypes (De Man 2018), so that those of 48 kHz are those of the
    recommendation.
    """
    shelf, high_pass = filters(sample_rate)
    z = np.exp(-2j * np.pi * np.arange(size // 2 + 1) / size)
    powers = np.stack([np.ones_like(z), z, z**2])
    response: npt.NDArray[np.complex128] = np.ones_like(z)
    for above, below in (shelf, high_pass):
        response *= (np.array(above) @ powers) / (np.array(below) @ powers)
    return response


Coefficients = tuple[tuple[float, float, float], tuple[float, float, float]]
"""Coefficients of a filter of second order, of its input and its output."""


def filters(sample_rate: int) -> tuple[Coefficients, Coefficients]:
    """Return the coefficients of the high shelf, and of the high pass after it."""
    k, gain = math.tan(math.pi * SHELF_HZ / sample_rate), 10 ** (SHELF_GAIN / 20)
    middle = gain**0.4996667741545416
    scale = 1 + k / SHELF_Q + k * k
    above = (gain + middle * k / SHELF_Q + k * k, 2 * (k * k - gain), gain - middle * k / SHELF_Q + k * k)
    shelf = (
        (above[0] / scale, above[1] / scale, above[2] / scale),
        (1.0, 2 * (k * k - 1) / scale, (1 - k / SHELF_Q + k * k) / scale),
    )
    k = math.tan(math.pi * PASS_HZ / sample_rate)
    scale = 1 + k / PASS_Q + k * k
    return shelf, ((1.0, -2.0, 1.0), (1.0, 2 * (k * k - 1) / scale, (1 - k / PASS_Q + k * k) / scale))
