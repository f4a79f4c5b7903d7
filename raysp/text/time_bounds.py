"""Times within the recording: the last frame of a model may reach beyond the last sample."""

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from raysp.columns import SECONDS

TIMES = ("start", "end")


def timed_columns(schema: pa.Schema) -> list[str]:
    """Return the names of the columns whose values are lists with times, such as words, segments and turns."""
    return [field.name for field in schema if _has_times(field.type)]


def _has_times(kind: pa.DataType) -> bool:
    if not isinstance(kind, pa.ListType) or not pa.types.is_struct(kind.value_type):
        return False
    return {*TIMES} <= {field.name for field in kind.value_type}


def within_recordings(rows: pa.Table, names: Sequence[str]) -> pa.Table:
    """Return rows with times from 0 to the seconds of the row; a row without seconds keeps its times.

    Args:
        rows: rows with their seconds.
        names: columns with times.
    """
    if not names:
        return rows
    seconds = rows.column(SECONDS).to_numpy()  # NaN for null
    seconds = np.where(np.isnan(seconds), np.inf, seconds)
    for name in names:
        place = rows.schema.get_field_index(name)
        lists = cast("pa.ListArray[Any]", rows.column(name).combine_chunks())
        rows = rows.set_column(place, rows.schema.field(place), _within(lists, seconds))
    return rows


def _within(lists: "pa.ListArray[Any]", seconds: "np.ndarray[Any, np.dtype[np.float64]]") -> "pa.ListArray[Any]":
    lengths = lists.value_lengths().fill_null(0).to_numpy()
    spans = cast("Any", lists.flatten())
    most = pa.array(np.repeat(seconds, lengths))
    fields = [
        pc.max_element_wise(pc.min_element_wise(values, most, skip_nulls=False), 0.0, skip_nulls=False)
        if field.name in TIMES
        else values
        for field, values in zip(spans.type, spans.flatten(), strict=True)
    ]
    offsets = pa.array(np.concatenate([[0], np.cumsum(lengths)]), pa.int32())
    structs = pa.StructArray.from_arrays(fields, fields=[*spans.type])
    return pa.ListArray.from_arrays(offsets, structs, type=lists.type, mask=lists.is_null())
