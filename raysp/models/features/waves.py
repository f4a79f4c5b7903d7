"""Waveforms of a pass: padded to one length, sent to the device of the model, and as float32."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from raysp.crossing import Room, Sending


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


def as_float(waves: Tensor) -> Tensor:
    """Return int16 samples as float32 in [-1, 1), exactly as a decoder does; float samples unchanged."""
    return waves.float() / 32768 if waves.dtype == torch.int16 else waves
