"""Augmentation of waveforms: speed, gain, noise, rooms.

All that is drawn depends on the seed, the epoch and the number of the row in the corpus. Samples are float32 and are
never clipped: they may exceed 1, as features do not depend on the level.
"""

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import soxr

from raysp.audio.waveforms import Samples
from raysp.training.planning.ordering import generator_of

Wave = npt.NDArray[np.float32]

OF_ROWS, OF_SPEED = 2, 3
"""Parts of seeds, distinct from the seeds of the order of rows."""


Augmentation = Callable[[Wave, np.random.Generator], Wave]
"""A change of a waveform that keeps its number of samples; the input is not modified."""


def augmented(wave: Samples, augmentations: Sequence[Augmentation], *, seed: int, epoch: int, row: int) -> Samples:
    """Apply augmentations in order; without any the waveform is returned as it is.

    Args:
        wave: int16 or float32.
        augmentations: each draws from a generator of its own.
        seed: seed of the training.
        epoch: number of the epoch.
        row: number of the row in the corpus.
    """
    if not augmentations:
        return wave
    changed = as_float32(wave)
    for place, augmentation in enumerate(augmentations):
        changed = augmentation(changed, generator_of(seed, epoch, OF_ROWS, row, place))
    return changed


def as_float32(wave: Samples) -> Wave:
    """Return int16 samples as float32 in [-1, 1); float samples unchanged."""
    return (
        wave.astype(np.float32) / np.float32(32768) if wave.dtype == np.int16 else wave.astype(np.float32, copy=False)
    )


def at_speed(wave: Samples, factor: float) -> Samples:
    """Return a waveform that is played faster by a factor, and sounds higher.

    It has `round(num_samples / factor)` samples. A factor of 1 returns the waveform as it is.
    """
    if factor == 1 or not len(wave):
        return wave
    faster: Wave = soxr.resample(as_float32(wave), factor, 1.0, quality="HQ")
    return faster


def gain(wave: Wave, random: np.random.Generator, *, decibels: tuple[float, float]) -> Wave:
    """Return a waveform at another level.

    Args:
        wave: the waveform.
        random: generator of what is drawn.
        decibels: lowest and highest change; one is drawn between them.
    """
    return wave * np.float32(_ratio(random.uniform(*decibels)))


def noise(
    wave: Wave, random: np.random.Generator, *, noises: Sequence[Wave], snr: tuple[float, float], share: float = 1.0
) -> Wave:
    """Return the sum of a waveform with a stretch of a noise.

    Waveforms and stretches of silence stay without noise.

    Args:
        wave: the waveform.
        random: generator of what is drawn.
        noises: noises at the sample rate of the rows; shorter noises are repeated.
        snr: lowest and highest ratio of the waveform's power to the noise's, in decibels; one is drawn between
            them, and is reached over the whole waveform.
        share: share of the rows that get noise.
    """
    is_chosen, ratio = random.random() < share, random.uniform(*snr)
    stretch = _stretch(noises[int(random.integers(len(noises)))], len(wave), random)
    power, noise_power = _power(wave), _power(stretch)
    if not is_chosen or not power or not noise_power:
        return wave
    return wave + np.float32(np.sqrt(power / noise_power) / _ratio(ratio)) * stretch


def room(wave: Wave, random: np.random.Generator, *, responses: Sequence[Wave], share: float = 1.0) -> Wave:
    """Return the convolution of a waveform with the impulse response of a room.

    The waveform keeps its power, and its place in time: the highest peak of a response counts as its start.

    Args:
        wave: the waveform.
        random: generator of what is drawn.
        responses: impulse responses at the sample rate of the rows.
        share: share of the rows that are changed.
    """
    is_chosen, response = random.random() < share, responses[int(random.integers(len(responses)))]
    if not is_chosen or not len(wave):
        return wave
    start = int(np.abs(response).argmax())
    sound = _convolved(wave, response)[start : start + len(wave)]
    power = _power(sound)
    return sound * np.float32(np.sqrt(_power(wave) / power)) if power else wave


def _convolved(wave: Wave, response: Wave) -> Wave:
    """Return the full convolution, float32 (num_samples + num_response_samples - 1,)."""
    num_samples = len(wave) + len(response) - 1
    size = 1 << (num_samples - 1).bit_length()
    spectrum = np.fft.rfft(wave.astype(np.float64), size) * np.fft.rfft(response.astype(np.float64), size)
    return np.fft.irfft(spectrum, size)[:num_samples].astype(np.float32)


def _stretch(noise: Wave, num_samples: int, random: np.random.Generator) -> Wave:
    """Return a stretch of a noise from a random place on; a noise that is too short begins again."""
    if len(noise) >= num_samples:
        start = int(random.integers(len(noise) - num_samples + 1))
        return noise[start : start + num_samples]
    places = np.arange(num_samples) + int(random.integers(len(noise)))
    return noise[places % len(noise)]


def _power(wave: Wave) -> float:
    """Return the mean square; 0 without samples."""
    return float(np.square(wave, dtype=np.float64).mean()) if len(wave) else 0.0


def _ratio(decibels: float) -> float:
    """Return the ratio of amplitudes."""
    return float(10 ** (decibels / 20))
