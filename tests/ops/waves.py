"""Blocks of waveforms, and the labels that an op gives them, for tests of passes."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from raysp.ops.rows import RowStatus, statuses_table, with_waves


def block_of(waves: Sequence[np.ndarray], rows: Sequence[int] | None = None) -> pa.Table:
    """Return a block of windows at 16 kHz, which are rows of their own."""
    statuses = [RowStatus(row) for row in (range(len(waves)) if rows is None else rows)]
    for row_status, wave in zip(statuses, waves, strict=True):
        row_status.seconds = len(wave) / 16_000
    return with_waves(statuses_table(statuses), waves)


def labels(op: Any, block: pa.Table) -> dict[int, dict[str, Any]]:
    """Return the label rows of a block by their numbers."""
    table, _ = op(block)
    return {row["row"]: row for row in table.to_pylist()}
