"""Samples of recordings: their type, the mean of channels, the change of their rate, and joining."""

from collections.abc import Iterator, Sequence
from typing import Literal, cast

import numpy as np
import numpy.typing as npt

from raysp.audio.excerpts import AudioHeader, Channel
from raysp.errors import AudioError

Samples = npt.NDArray[np.float32 | np.int16]

GROWTH = 1.25  # numpy zeroes the added memory, so this is also the ratio of peak to result

# libsndfile decodes these to 16 bits or fewer and divides by 32768 for float32, so int16 is lossless.
INT16_SUBTYPES = frozenset(
    {
        "PCM_16",
        "PCM_S8",
        "PCM_U8",
        "ULAW",
        "ALAW",
        "IMA_ADPCM",
        "MS_ADPCM",
        "GSM610",
        "G721_32",
        "G723_24",
        "G723_40",
        "NMS_ADPCM_16",
        "NMS_ADPCM_24",
        "NMS_ADPCM_32",
        "ALAC_16",
    }
)
# Integers cannot hold NaN. All other subtypes are checked.
FINITE_SUBTYPES = INT16_SUBTYPES | {"PCM_24", "PCM_32", "ALAC_20", "ALAC_24", "ALAC_32"}


def choose_dtype(header: AudioHeader, channel: Channel, sample_rate: int) -> Literal["int16", "float32"]:
    """Return the type of decoded samples: int16 where that loses nothing."""
    is_one_channel = header.channels == 1 or channel != "mean"
    is_lossless = is_one_channel and header.sample_rate == sample_rate and header.subtype in INT16_SUBTYPES
    return "int16" if is_lossless else "float32"


def mix(frames: Samples, channel: Channel) -> Samples:
    """Convert (num_frames, channels) to one channel (num_frames,)."""
    if channel != "mean" or frames.shape[1] == 1:
        return np.ascontiguousarray(frames[:, 0 if channel == "mean" else channel])
    with np.errstate(over="ignore", invalid="ignore"):  # checked afterwards
        if frames.shape[1] == 2:  # the same sum as `mean`, several times faster than a reduction over two channels
            return (frames[:, 0] + frames[:, 1]) * np.float32(0.5)
        mean: Samples = frames.mean(axis=1, dtype=np.float32)
        return mean


def resample(
    chunks: Iterator[tuple[Samples, bool]], source_rate: int, sample_rate: int
) -> Iterator[tuple[Samples, bool]]:
    """Resample chunk by chunk. The result is bit-equal to `soxr.resample` of the whole recording."""
    import soxr

    # A recording of one chunk needs no stream, whose result is equal bit by bit.
    samples, is_last = next(chunks)
    if is_last:
        yield soxr.resample(samples, source_rate, sample_rate, quality="HQ"), True
        return
    stream = soxr.ResampleStream(source_rate, sample_rate, 1, dtype="float32", quality="HQ")
    yield stream.resample_chunk(samples), False
    for samples, is_last in chunks:
        yield stream.resample_chunk(samples, last=is_last), is_last


def check_finite(samples: Samples, header: AudioHeader) -> None:
    """Raise if samples are not finite.

    Raises:
        AudioError: `invalid_audio`.
    """
    if not np.isfinite(samples).all():
        message = f"{header.container} {header.subtype}: NaN or infinite samples; expected finite ones"
        raise AudioError("invalid_audio", message)


def join(chunks: Iterator[Samples]) -> Samples:
    """Concatenate chunks in an array that grows in place (realloc moves pages, not bytes)."""
    first = next(chunks)
    num_samples = len(first)
    samples = first
    for chunk in chunks:
        if samples.dtype == np.int16 and chunk.dtype != np.int16:
            samples, first = as_float32(samples[:num_samples]), chunk
        elif samples.dtype != chunk.dtype:
            chunk = as_float32(chunk)
        if samples is first:
            samples = first.copy()  # memory of soxr cannot be resized
        if num_samples + len(chunk) > len(samples):
            # refcheck counts names of this function; nothing else refers to the array.
            samples.resize(int((num_samples + len(chunk)) * GROWTH), refcheck=False)
        samples[num_samples : num_samples + len(chunk)] = chunk
        num_samples += len(chunk)
    if num_samples < len(samples):
        samples.resize(num_samples, refcheck=False)
    return samples


def concatenate(parts: Sequence[Samples]) -> Samples:
    """Concatenate samples, which are of joined streams if their dtypes differ: int16 if all are, else float32."""
    if len({part.dtype for part in parts}) > 1:
        parts = [as_float32(part) for part in parts]
    return np.concatenate(parts)


def as_float32(samples: Samples) -> npt.NDArray[np.float32]:
    """Return samples as float32."""
    return samples * np.float32(1 / 32768) if samples.dtype == np.int16 else cast("npt.NDArray[np.float32]", samples)
