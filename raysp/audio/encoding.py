"""Encoding of samples, and parts of decoded recordings."""

import io
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import soundfile

from raysp.audio.source import MAX_CHANNELS, MAX_SAMPLE_RATE, MIN_SAMPLE_RATE
from raysp.audio.waveforms import Samples, concatenate
from raysp.errors import SpecError


def encode_flac(samples: Samples, sample_rate: int) -> bytes:
    """Return samples, at least one, as a FLAC file of 16 bits. Values outside -1 and 1 are clipped.

    Samples are of shape (num_samples,), or (num_samples, channels) with at most 8 channels.

    The same samples give the same bytes.
    """
    file = io.BytesIO()
    soundfile.write(file, samples, sample_rate, format="FLAC", subtype="PCM_16")
    return file.getvalue()


def wav_of(samples: object, sample_rate: int, place: str) -> bytes:
    """Return an array of samples as a WAV file that decodes to the same values.

    Args:
        samples: of shape (num_samples,) or (channels, num_samples); float32, float64 or int16.
        sample_rate: samples a second.
        place: name of the array in messages.

    Raises:
        SpecError: the array has another shape or dtype, or the rate is not possible.
    """
    if isinstance(sample_rate, bool) or not isinstance(sample_rate, int | np.integer):
        raise SpecError(f"rate={sample_rate!r}: expected a whole number of samples a second, such as 16000")
    if not MIN_SAMPLE_RATE <= sample_rate <= MAX_SAMPLE_RATE:
        raise SpecError(f"rate={sample_rate}: expected {MIN_SAMPLE_RATE} to {MAX_SAMPLE_RATE:,} samples a second")
    if not isinstance(samples, np.ndarray):
        raise SpecError(f"{place}: found a {type(samples).__name__}, expected a numpy array: numpy.asarray makes one")
    if samples.dtype not in (np.float32, np.float64, np.int16):
        raise SpecError(
            f"{place}: found dtype {samples.dtype}, expected float32 or float64 from -1 to 1, or int16; convert "
            "and scale it"
        )
    if samples.ndim not in (1, 2) or (samples.ndim == 2 and not 1 <= len(samples) <= MAX_CHANNELS):
        raise SpecError(f"{place}: found shape {samples.shape}, expected (num_samples,) or (channels, num_samples)")
    if samples.ndim == 2 and len(samples) > samples.shape[1] > 0:
        raise SpecError(
            f"{place}: found shape {samples.shape}, more channels than samples; expected (channels, num_samples): "
            "transpose it"
        )
    file, subtype = io.BytesIO(), "PCM_16" if samples.dtype == np.int16 else "FLOAT"
    soundfile.write(file, samples.T, int(sample_rate), format="WAV", subtype=subtype)
    return file.getvalue()


def cut_parts(chunks: Iterable[Samples], parts: Sequence[tuple[int, int]]) -> Iterator[Samples]:
    """Yield parts of a recording while it is decoded. A part beyond its end is shorter, or empty.

    Args:
        chunks: all samples in order.
        parts: first sample and end of each part, ascending and without overlaps.
    """
    rest = iter(chunks)
    buffer: Samples = np.empty(0, np.float32)
    place = 0  # of the first held sample
    for first, end in parts:
        while place + len(buffer) < end and (chunk := next(rest, None)) is not None:
            kept = buffer[max(0, first - place) :]
            place += len(buffer) - len(kept)
            buffer = concatenate([kept, chunk]) if len(kept) else chunk
        start = max(0, first - place)
        yield buffer[start : max(start, end - place)]
