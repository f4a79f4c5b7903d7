"""Blocks of waveforms, the labels that an op gives them, and comparisons of labels, for tests of passes."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

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


def assert_alike(
    found: Any, expected: Any, rel: float = 1e-4, abs: float = 1e-4, *, only: str = "", name: str = ""
) -> None:
    """Compare labels: numbers within a tolerance, in fields whose names have a word if it is given; else exactly."""
    if isinstance(expected, dict):
        assert found.keys() == expected.keys()
        for key, value in expected.items():
            assert_alike(found[key], value, rel, abs, only=only, name=key)
    elif isinstance(expected, (list, tuple)):
        assert len(found) == len(expected)
        for pair in zip(found, expected, strict=True):
            assert_alike(*pair, rel, abs, only=only, name=name)
    elif isinstance(expected, float) and only in name:
        assert found == pytest.approx(expected, rel=rel, abs=abs, nan_ok=True), name
    else:
        assert found == expected, name
