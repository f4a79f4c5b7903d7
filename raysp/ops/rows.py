"""The tables passed between ops: one row per window of a recording, regardless of its status.

A table always has the columns of `ROW_SCHEMA`. A row whose `status` is not "ok" is passed on unchanged to the label
shard. `window` numbers the windows of a recording from 0. `windows` is their number; it is null on all but the last,
since it is not known earlier. `seconds` is the duration that a window adds to the earlier ones, so that the sum is the
duration of the recording. `recording` and `version` identify the file of a row that is read by path. Decoding adds
`wave`, which the model replaces by the columns of its outputs: samples as bytes, one contiguous buffer per block, with
their dtype, int16 or float32, in the metadata of the field. Columns that steps add stand in the last window of a row.
"""

import re
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, cast

import numpy as np
import pyarrow as pa

from raysp.audio import Samples
from raysp.columns import ERROR as ERROR
from raysp.columns import OK as OK
from raysp.columns import RECORDING_COLUMNS, RESULT_COLUMNS, WINDOW_COLUMNS
from raysp.columns import SKIPPED as SKIPPED
from raysp.columns import WAVE as WAVE
from raysp.ops.places import Place

_COLUMNS = {**RESULT_COLUMNS, **WINDOW_COLUMNS, **RECORDING_COLUMNS}
ROW_SCHEMA = pa.schema([(name, pa.type_for_alias(kind)) for name, kind in _COLUMNS.items()])

MAX_MESSAGE = 500
NO_SPEECH = "no_speech"


class RowStatus:
    """Outcome of a window or row."""

    __slots__ = tuple(_COLUMNS)

    def __init__(self, row: int, window: int = 0, windows: int | None = 1) -> None:
        self.row = row
        self.window = window
        self.windows = windows
        self.seconds: float | None = None
        self.status = OK
        self.error_type: str | None = None
        self.error_message: str | None = None
        self.recording: str | None = None
        """Path, relative to its root, of the file that was read; None if no file was read."""
        self.version: str | None = None

    @property
    def is_part(self) -> bool:
        """Whether this is a window of a longer row, not a row that is one window."""
        return self.windows != 1

    def skip(self, reason: str, message: str) -> None:
        """Mark the row as skipped."""
        self.status, self.error_type, self.error_message = SKIPPED, reason, plain(message)

    def fail(self, error_type: str, message: str) -> None:
        """Mark the row as an error row."""
        self.status, self.error_type, self.error_message = ERROR, error_type, plain(message)


class Window(NamedTuple):
    """A decoded window with its outcome; the outcome of the last window of a row is that of the row."""

    row_status: RowStatus
    wave: Samples | None
    chunks: Sequence[Samples] = ()
    """All samples of the row, on its last window, if it has several or is cut at pauses, and a step reads them."""
    place: Place | None = None
    """Place in the recording, if rows are cut at pauses."""


def plain(message: str) -> str:
    """Return a message that is safe to store and print: one line, no control characters, at most `MAX_MESSAGE` long."""
    cleaned = re.sub(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]+", " ", message).strip()
    return cleaned if len(cleaned) <= MAX_MESSAGE else cleaned[: MAX_MESSAGE - 1] + "…"


def statuses_table(statuses: list[RowStatus]) -> pa.Table:
    """Return a table of outcomes, with columns `ROW_SCHEMA`."""
    columns = [[getattr(one, name) for one in statuses] for name in ROW_SCHEMA.names]
    return pa.table([pa.array(c, f.type) for c, f in zip(columns, ROW_SCHEMA, strict=True)], schema=ROW_SCHEMA)


def row_statuses(table: pa.Table) -> list[RowStatus]:
    """Return the outcomes of the rows of a table."""
    statuses: list[RowStatus] = []
    for row, seconds, status, error_type, message, window, windows, recording, version in zip(
        *(table.column(name).to_pylist() for name in ROW_SCHEMA.names), strict=True
    ):
        one = RowStatus(row, window, windows)
        one.seconds, one.status, one.error_type, one.error_message = seconds, status, error_type, message
        one.recording, one.version = recording, version
        statuses.append(one)
    return statuses


def with_waves(table: pa.Table, waves: Sequence[np.ndarray | None]) -> pa.Table:
    """Append the recordings to a table as one contiguous column: int16 if all of them are, else float32."""
    given = [wave for wave in waves if wave is not None]
    dtype = np.dtype(np.int16) if given and all(w.dtype == np.int16 for w in given) else np.dtype(np.float32)
    lengths = np.array([0 if w is None else len(w) for w in waves], np.int64)
    offsets = np.zeros(len(waves) + 1, np.int64)
    np.cumsum(lengths * dtype.itemsize, out=offsets[1:])
    values = np.empty(int(lengths.sum()), dtype)
    start = 0
    for wave in given:
        part = values[start : start + len(wave)]
        if wave.dtype == dtype:
            part[:] = wave
        else:
            np.multiply(wave, np.float32(1 / 32768), out=part)
        start += len(wave)
    valid = np.packbits(np.array([w is not None for w in waves], bool), bitorder="little").tobytes()
    buffers: list[pa.Buffer | None] = [
        pa.py_buffer(valid),
        pa.py_buffer(offsets.data),
        pa.py_buffer(values.data),
    ]
    column = pa.Array.from_buffers(pa.large_binary(), len(waves), buffers)
    field = pa.field(WAVE, pa.large_binary(), metadata={"dtype": dtype.name})
    return table.append_column(field, column)


def waves_of(table: pa.Table) -> list[np.ndarray | None]:
    """Return the recordings stored by `with_waves`, without a copy."""
    field = table.schema.field(WAVE)
    dtype = np.dtype((field.metadata or {})[b"dtype"].decode())
    waves: list[np.ndarray | None] = []
    for chunk in table.column(WAVE).chunks:
        _, offsets, values = cast("list[Any]", chunk.buffers())
        edges = np.frombuffer(offsets, np.int64)[chunk.offset : chunk.offset + len(chunk) + 1] // dtype.itemsize
        samples = np.frombuffer(values, dtype) if values is not None else np.empty(0, dtype)
        valid = chunk.is_valid().to_pylist()
        waves += [samples[a:b] if ok else None for a, b, ok in zip(edges, edges[1:], valid, strict=False)]
    return waves


def with_labels(
    table: pa.Table, columns: "Iterable[pa.Field[Any]]", labels: Sequence[tuple[object, ...] | None]
) -> pa.Table:
    """Return a table with columns of outputs.

    Args:
        table: the rows.
        columns: the columns.
        labels: for each row a value of each column; None: all are null.
    """
    for place, column in enumerate(columns):
        values = [None if label is None else label[place] for label in labels]
        single = _single(column.type)  # pyarrow takes no float32 values for half precision
        table = table.append_column(column, pa.array(values, single).cast(column.type))
    return table


def _single(kind: pa.DataType) -> pa.DataType:
    """Return a type with half precision, at any depth of lists, replaced by single precision."""
    if pa.types.is_float16(kind):
        return pa.float32()
    if isinstance(kind, pa.FixedSizeListType):
        return pa.list_(_single(kind.value_type), kind.list_size)
    if isinstance(kind, pa.ListType) and not pa.types.is_struct(kind.value_type):
        return pa.list_(_single(kind.value_type))
    return kind
