"""Samples of the windows of a pack on a device, in batches whose shapes depend on none of their neighbours.

A window is in a room whose length depends on the window alone, beside a fixed number of others, as rows of a text
decoder are (`raysp.models.decoder.cohorts`). So what an op computes of a batch has one shape for a window, whatever is
in the pack, and as many launches as there are batches.
"""

import itertools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from raysp.crossing import send
from raysp.models.decoder.cohorts import cohorts
from raysp.ops.forward import Forward


class WaveRooms(NamedTuple):
    """Windows of one batch."""

    windows: Sequence[int]
    """Their numbers; the places after them have no samples."""
    waves_BS: Tensor
    """Samples, zeros behind those of each window."""
    num_samples_B: Tensor


def in_rooms(forwards: Sequence[Forward], unit: int, units_in_hand: int) -> Iterator[WaveRooms]:
    """Yield the samples of windows, results of one each.

    Args:
        forwards: results of the windows.
        unit: samples of which rooms have whole numbers.
        units_in_hand: most units of a batch, unless a window has more.
    """
    counts = [forward.lengths.samples[0] for forward in forwards]
    places = np.array([[*itertools.accumulate(counts, initial=0)][:-1], counts])
    samples_S = torch.cat([forward.waves_BS[0] for forward in forwards])
    for cohort in cohorts([-(-count // unit) for count in counts], frames_in_hand=units_in_hand):
        of_places = np.zeros((2, cohort.num_places), np.int64)
        of_places[:, : len(cohort.rows)] = places[:, cohort.rows]
        begins_B, num_samples_B = send(samples_S.device, *of_places)
        offsets_S = torch.arange(cohort.room * unit, device=samples_S.device)
        at_BS = (begins_B[:, None] + offsets_S).clamp_(max=len(samples_S) - 1)
        waves_BS = samples_S[at_BS].masked_fill_(offsets_S >= num_samples_B[:, None], 0.0)
        yield WaveRooms(cohort.rows, waves_BS, num_samples_B)
