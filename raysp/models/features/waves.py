"""Waveforms of a pass: padded to one length or end to end, sent to the device of the model, and as float32."""

import itertools
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from raysp.crossing import Room, Sending
from raysp.models.kernels.pack_sizes import ALIGNED_SAMPLES


def pad(waves: Sequence[np.ndarray]) -> tuple[Tensor, Tensor]:
    """Pad waveforms of one dtype to one length.

    Returns:
        Samples of shape (B, S), zero after the end, and the number of samples of each, int64 of shape (B,).
    """
    waves_BS, num_samples_B = fill(waves, torch.device("cpu")).tensors()
    return waves_BS, num_samples_B


def fill(waves: Sequence[np.ndarray], device: torch.device, room: Room | None = None) -> Sending:
    """Return the samples and their numbers as `pad`, ready to be sent to a device, in room for them if it is given."""
    longest = max(map(len, waves), default=0)
    padded = Sending(device, (waves[0].dtype, (len(waves), longest)), (np.int64, (len(waves),)), room=room)
    waves_BS, num_samples_B = padded.arrays
    num_samples_B[:] = [len(wave) for wave in waves]
    for row, wave in zip(waves_BS, waves, strict=True):
        row[: len(wave)] = wave
        if not padded.is_zero:
            row[len(wave) :] = 0
    return padded


def fill_pack(
    waves: Sequence[np.ndarray],
    device: torch.device,
    room: Room | None = None,
    *,
    multiple: int = ALIGNED_SAMPLES,
    samples: int = 0,
    rows: int = 0,
) -> Sending:
    """Return the samples end to end, at the places of `end_to_end`, and their numbers, to be sent to a device.

    Zeros fill the gaps between rows, the samples up to `samples`, and the numbers up to `rows`.
    """
    at = end_to_end([*map(len, waves)], multiple)
    size = max(at[-1].stop, samples)
    joined = Sending(device, (waves[0].dtype, (size,)), (np.int64, (max(len(waves), rows),)), room=room)
    samples_S, num_samples_R = joined.arrays
    num_samples_R[: len(waves)] = [len(wave) for wave in waves]
    num_samples_R[len(waves) :] = 0
    ends = [*(place.start for place in at[1:]), size]
    for wave, place, end in zip(waves, at, ends, strict=True):
        samples_S[place], samples_S[place.stop : end] = wave, 0
    return joined


def end_to_end(num_samples: Sequence[int], multiple: int = ALIGNED_SAMPLES) -> list[slice]:
    """Return slices for rows of these lengths end to end, each from a multiple of `multiple`."""
    rooms = (-(-count // multiple) * multiple for count in num_samples)
    begins = itertools.accumulate(rooms, initial=0)
    return [slice(begin, begin + count) for begin, count in zip(begins, num_samples, strict=False)]


def as_float(waves: Tensor) -> Tensor:
    """Return int16 samples as float32 in [-1, 1), exactly as a decoder does; float samples unchanged."""
    return waves.float() / 32768 if waves.dtype == torch.int16 else waves
