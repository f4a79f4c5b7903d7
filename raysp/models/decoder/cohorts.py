"""Cohorts: rows that a decoder on a device takes together, in steps whose shapes depend on none of them.

A row is in a room of frames whose length depends on the row alone, and rows of one room share a cohort, which has a
fixed number of places; places without a row have zeros. The rows of a cohort begin together and stay until the last one
has ended, so all of them are at the same token, and every op of a step has the shapes that the row alone would cause
(docs/decisions/083-texts-in-packs-on-devices.md).

Legend: R places, S frames of a row, F frames of a room, H hidden.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from raysp.crossing import send

LEAST_ROOM = 128
FRAMES_IN_HAND = 131_072
"""Frames of the rooms of a cohort: those of 2,400 s of audio at 50 frames a second fit, in rows of 10 or 30 s."""
MOST_ROWS = 240
"""Rows of 10 s in 2,400 s. With fewer a step costs more for each; more would be places that no row takes."""


def room_frames(num_frames: int) -> int:
    """Round up to a power of two, or to one and a half times one: at most a third of a long room is empty."""
    power = 1 << max(LEAST_ROOM - 1, num_frames - 1).bit_length()
    return power * 3 // 4 if power > LEAST_ROOM and num_frames <= power * 3 // 4 else power


def places_of(room: int, texts: int = 1, frames_in_hand: int = FRAMES_IN_HAND) -> int:
    """Return the number of rows of a cohort, for rooms of `room` frames and `texts` texts (beams) of each row."""
    return max(1, min(MOST_ROWS, frames_in_hand // room // 8 * 8) // texts)


@dataclass(frozen=True)
class Cohort:
    """Rows in places of a decoder."""

    rows: tuple[int, ...]
    """Their numbers; the places after them are empty."""
    num_places: int
    room: int
    """Frames of each place."""

    def of_frames(self, rows: Sequence[Tensor]) -> Tensor:
        """Return frames_RFH, zeros behind those (1, S, H) of each row."""
        zeros_FH = rows[0].new_zeros(self.room, rows[0].shape[2])
        parts = [part for row in self.rows for part in (rows[row][0], zeros_FH[rows[row].shape[1] :])]
        parts += [zeros_FH] * (self.num_places - len(self.rows))
        return torch.cat(parts).view(self.num_places, self.room, -1)

    def num_frames(self, rows: Sequence[Tensor]) -> Tensor:
        """Return the frames (R,) of each row, 0 of empty places."""
        counts = np.zeros(self.num_places, np.int64)
        counts[: len(self.rows)] = [rows[row].shape[1] for row in self.rows]
        [counts_R] = send(rows[0].device, counts)
        return counts_R

    def generators(
        self, of_rows: Sequence[torch.Generator] | None, device: torch.device
    ) -> list[torch.Generator] | None:
        """Return a random generator for each place; None: there is no sampling."""
        if of_rows is None:
            return None
        empty = range(self.num_places - len(self.rows))
        return [*(of_rows[row] for row in self.rows), *(torch.Generator(device) for _ in empty)]


def cohorts(num_frames: Sequence[int], texts: int = 1, *, frames_in_hand: int = FRAMES_IN_HAND) -> Iterator[Cohort]:
    """Divide rows into cohorts by their numbers of frames, the longest first, which mostly have long texts.

    Args:
        num_frames: Frames of each row.
        texts: Texts of each row that are searched at once.
        frames_in_hand: Frames of the rooms of a cohort, at most.
    """
    of_room: dict[int, list[int]] = {}
    for row in sorted(range(len(num_frames)), key=lambda row: -num_frames[row]):
        of_room.setdefault(room_frames(num_frames[row]), []).append(row)
    for room, rows in of_room.items():
        size = places_of(room, texts, frames_in_hand)
        for first in range(0, len(rows), size):
            yield Cohort(tuple(rows[first : first + size]), size, room)
