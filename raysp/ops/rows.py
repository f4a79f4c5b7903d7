"""The tables passed between ops: one row per window of a recording, and places of windows that are cut at pauses.

A table always has the columns of `ROW_SCHEMA`. A row whose `status` is not "ok" is passed on unchanged to the label
shard. `window` numbers the windows of a recording from 0. `windows` is their number; it is null on all but the last,
since it is not known earlier. `seconds` is the duration that a window adds to the earlier ones, so that the sum is the
duration of the recording. `recording` and `version` identify the file of a row that is read by path. Decoding adds
`wave`, which the model replaces by the columns of its outputs: samples as bytes, one contiguous buffer per block, with
their dtype, int16 or float32, in the metadata of the field. Columns that steps add stand in the last window of a row.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from raysp.audio import Samples
from raysp.audio.waveforms import as_float32
from raysp.columns import ERROR as ERROR
from raysp.columns import INNER_PREFIX, RECORDING_COLUMNS, RESULT_COLUMNS, WINDOW_COLUMNS
from raysp.columns import OK as OK
from raysp.columns import SKIPPED as SKIPPED
from raysp.columns import WAVE as WAVE
from raysp.ops.pasts import Past

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Value = TypeVar("Value")

# Without the column windows cover a recording without gaps.
LEAST_SHARE = 0.01
"""Share of a sample from which a duration is not in whole samples; sums of windows are exact to a thousandth."""
WHOLE_SECONDS = 1.0
"""Longest recording that is one window where windows are cut at pauses: a pause of this length is not cut either. The
speech detector misses words that fill a recording: without this, 10 % of 750 spoken digits were lost."""
PLACE = f"{INNER_PREFIX}place"
"""Column of the places in recordings."""


@dataclass(frozen=True)
class Place:
    """Place of a window in a recording, and the probabilities of speech up to its end."""

    frame: int
    """Frame of the recording with which the window begins."""
    first: int
    """First frame that the window owns, counted from the start of the window."""
    end: int
    """End of these frames."""
    probabilities: npt.NDArray[np.float32]
    """Probabilities of chunks after the end of the previous window; in the last window up to the recording's end."""
    offset: int
    """Samples from the end of the previous window to the first of these chunks."""
    num_samples: int
    """Samples of the recording from the end of the previous window."""


class CutWave(NamedTuple):
    """A window that is cut from a recording."""

    wave: Samples
    num_samples: int
    """Samples of the recording that no later window counts."""
    is_last: bool
    place: Place | None = None
    """Place of a window that is cut at pauses."""


PLACE_TYPE = pa.struct(
    [
        ("frame", pa.int64()),
        ("first", pa.int32()),
        ("end", pa.int32()),
        ("probabilities", pa.list_(pa.float32())),
        ("offset", pa.int32()),
        ("num_samples", pa.int64()),
    ]
)


def staged_places(places: Sequence[Place | None]) -> pa.Table:
    """Return the staged form of the column: the recording's frame that is the first one a window owns."""
    frames = [None if place is None else place.frame + place.first for place in places]
    return pa.table({PLACE: pa.array(frames, pa.int64())})


def stretches(windows: pa.Table, num_frames: Sequence[int]) -> Iterator[tuple[pa.Table, int]]:
    """Yield windows of a row that follow each other without a gap, with the frame of the recording that they begin at.

    Windows without places are a single stretch.

    Args:
        windows: staged windows of the row in order.
        num_frames: number of frames that each of them owns.
    """
    if PLACE not in windows.column_names:
        yield windows, 0
        return
    frames = np.asarray(windows.column(PLACE).to_numpy(), np.int64)
    ends = frames + np.asarray(num_frames, np.int64)
    edges = [0, *(np.flatnonzero(frames[1:] != ends[:-1]) + 1).tolist(), len(frames)]
    for first, end in pairwise(edges):
        yield windows.slice(first, end - first), int(frames[first])


def seconds_of_row(num_samples: int, sample_rate: int, claimed: float) -> float:
    """Return the duration of a recording, to a sample of its own rate where its header has it.

    Resampling rounds the number of samples. A header whose duration differs by a whole sample or more is an estimate,
    or belongs to a damaged file.

    Args:
        num_samples: decoded samples.
        sample_rate: rate of these samples in Hz.
        claimed: duration by the header in seconds; 0 if unknown.
    """
    decoded = num_samples / sample_rate
    return on_grid(claimed, sample_rate) if abs(claimed - decoded) * sample_rate < 1 else decoded


def on_grid(seconds: float, sample_rate: int) -> float:
    """Return a duration without rounding errors of sums: in whole samples if close to them, else in nanoseconds."""
    whole = round(seconds * sample_rate) / sample_rate
    return whole if abs(whole - seconds) * sample_rate < LEAST_SHARE else round(seconds, 9)


_COLUMNS = {**RESULT_COLUMNS, **WINDOW_COLUMNS, **RECORDING_COLUMNS}
ROW_SCHEMA = pa.schema([(name, pa.type_for_alias(kind)) for name, kind in _COLUMNS.items()])

MAX_MESSAGE = 500
NO_SPEECH = "no_speech"


@dataclass(slots=True, eq=False)
class RowStatus:
    """Outcome of a window or row."""

    row: int
    window: int = 0
    windows: int | None = 1
    seconds: float | None = None
    status: str = OK
    error_type: str | None = None
    error_message: str | None = None
    recording: str | None = None
    """Path, relative to its root, of the file that was read; None if no file was read."""
    version: str | None = None
    digest: str | None = None
    """Digest of the decoded samples of the row, on its last window; None if no output reads it."""

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

    def fail_ok(self, error_type: str, message: str) -> None:
        """Mark an ok row as an error row; a damaged row of which a prefix is labelled keeps its error."""
        if self.status == OK:
            self.fail(error_type, message)


class Window(NamedTuple):
    """A decoded window with its outcome; the last window of a row has the outcome of the row."""

    row_status: RowStatus
    wave: Samples | None
    chunks: Sequence[Samples] = ()
    """All samples of the row, on its last window, if it has several or is cut at pauses, and a step reads them."""
    place: Place | None = None
    """Place in the recording, if rows are cut at pauses."""
    past: Past | None = None
    """Samples before a window of a longer row, if an output reads them."""


def plain(message: str) -> str:
    """Return a message that is safe to store and print: one line, no control characters, at most `MAX_MESSAGE` long."""
    cleaned = re.sub(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]+", " ", message).strip()
    return cleaned if len(cleaned) <= MAX_MESSAGE else cleaned[: MAX_MESSAGE - 1] + "…"


def statuses_table(statuses: list[RowStatus]) -> pa.Table:
    """Return a table of outcomes, with columns `ROW_SCHEMA`."""
    columns = {name: [getattr(row_status, name) for row_status in statuses] for name in ROW_SCHEMA.names}
    return pa.table(columns, schema=ROW_SCHEMA)


def row_statuses(table: pa.Table) -> list[RowStatus]:
    """Return the outcomes of the rows of a table."""
    columns = {name: table.column(name).to_pylist() for name in ROW_SCHEMA.names}
    return [RowStatus(**dict(zip(columns, values, strict=True))) for values in zip(*columns.values(), strict=True)]


def with_waves(table: pa.Table, waves: Sequence[np.ndarray | None]) -> pa.Table:
    """Append the recordings to a table as one contiguous column: int16 if all recordings are, else float32."""
    return table.append_column(WAVE, sample_lists([None if wave is None else [wave] for wave in waves]))


def sample_lists(recordings: Sequence[Sequence[Samples] | None], *, as_float: bool = False) -> "pa.LargeListArray[Any]":
    """Return recordings, each in chunks, as lists of samples: int16 if all are, unless `as_float`, else float32."""
    chunks = [chunk for of_recording in recordings for chunk in of_recording or ()]
    is_int16 = bool(chunks) and not as_float and all(chunk.dtype == np.int16 for chunk in chunks)
    edges = np.cumsum([0, *(sum(map(len, of_recording or ())) for of_recording in recordings)], dtype=np.int64)
    values = np.empty(int(edges[-1]), np.int16 if is_int16 else np.float32)
    for chunk, end in zip(chunks, np.cumsum([*map(len, chunks)]).tolist(), strict=True):
        values[end - len(chunk) : end] = chunk if is_int16 else as_float32(chunk)
    is_null = pa.array([of_recording is None for of_recording in recordings], pa.bool_())
    return pa.LargeListArray.from_arrays(
        pa.array(edges, pa.int64()), cast("pa.FloatArray", pa.array(values)), mask=is_null
    )


def waves_of(table: pa.Table) -> list[np.ndarray | None]:
    """Return the recordings stored by `with_waves`, without a copy."""
    recordings = cast("Iterable[Any]", table.column(WAVE))
    return [recording.values.to_numpy() if recording.is_valid else None for recording in recordings]


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
        kind = in_single_precision(column.type)  # pyarrow takes no float32 values for half precision
        table = table.append_column(column, pa.array(values, kind).cast(column.type))
    return table


def in_single_precision(kind: pa.DataType) -> pa.DataType:
    """Return a type with half precision, at any depth of lists, replaced by single precision."""
    if pa.types.is_float16(kind):
        return pa.float32()
    if isinstance(kind, pa.FixedSizeListType):
        return pa.list_(in_single_precision(kind.value_type), kind.list_size)
    if isinstance(kind, pa.ListType) and not pa.types.is_struct(kind.value_type):
        return pa.list_(in_single_precision(kind.value_type))
    return kind


def chosen(table: pa.Table, schema: pa.Schema, rows: Sequence[int | None]) -> pa.Table:
    """Return the added columns of some rows of a table, null for None and if the table lacks the columns."""
    numbers = pa.array(rows, pa.int64())
    columns = [
        table.column(field.name).take(numbers) if field.name in table.column_names else pa.nulls(len(rows), field.type)
        for field in schema
    ]
    return pa.table(columns, schema=schema)


def with_columns(table: pa.Table, added: pa.Table) -> pa.Table:
    """Return a table with the columns of another table appended."""
    for field, column in zip(added.schema, added.columns, strict=True):
        table = table.append_column(field, column)
    return table


FILTERED = "filtered"
"""Reason of rows skipped by a `Keep` step, which need no remedy."""
WITHDRAWN = "withdrawn"
"""Reason of rows whose labels `raysp forget` removed, which need no remedy."""
_CONVERT = "convert the recordings to FLAC or WAV, for example with `ffmpeg -i IN -ac 1 OUT.flac`"
REMEDIES: Mapping[str, str] = {
    "no_audio": "embed the recordings (audio.bytes), or set source.audio_root if rows have only paths",
    "path_not_allowed": "set source.audio_root to the folder that contains the files, or the targets of their links, "
    "or embed the recordings",
    "not_found": "check that the files exist, and that paths are relative to source.audio_root",
    "unreadable_text": "correct the texts that error_message of these rows names, or remove those beside recordings; "
    "if they are links, set source.audio_root to a folder that contains their targets",
    "not_readable": "give permission to read the recordings, and restore archived ones",
    "unsupported_format": f"{_CONVERT}, or exclude them with a glob, such as source.url='corpus/**/*.wav'; fetch or "
    "decompress them where error_message asks for it",
    "corrupt_audio": "copy the recordings again from their source",
    "invalid_audio": f"check sample rate, channels and samples of one recording, and {_CONVERT}",
    "decoder_crashed": _CONVERT,
    "decoder_timeout": _CONVERT,
    "out_of_memory": f"split the recordings into shorter ones, or {_CONVERT}",
    "worker_crashed": "check the workers' logs for the cause, and raise pool.memory if they ran out of memory",
    "step_failed": "correct the function of the pipeline that raised the error",
    "unknown_language": "correct the column of the languages, or leave these rows out with Keep(where=...)",
    "model_output": "set dtype='float32' on the Label step, and check the checkpoint with `raysp inspect`",
    "no_speech": "check Decode(channel=...): another channel may hold the speech",
    "too_short": "check source.audio: the recordings are shorter than a frame of the model",
    "too_long": "raise Decode(max_seconds=...)",
}


def remedy(error_type: str) -> str:
    """Return the remedy for rows of this type, as an imperative without a full stop."""
    return REMEDIES.get(error_type, "see error_message of these rows")


def with_values(
    block: pa.Table, name: str, values: "Sequence[DataclassInstance | None]", kind: pa.DataType
) -> pa.Table:
    """Return a block with a dataclass of each window, or None, as a column of structs."""
    return block.append_column(name, pa.array([None if value is None else vars(value) for value in values], kind))


def values_of(block: pa.Table, name: str, make: Callable[..., Value]) -> list[Value | None]:
    """Return the values of a column of `with_values`; None for each window without the column."""
    if name not in block.column_names:
        return [None] * block.num_rows
    return [
        make(**{field: _plain(part) for field, part in value.items()}) if value.is_valid else None
        for value in cast("Any", block.column(name))
    ]


def _plain(part: Any) -> Any:  # noqa: ANN401 - a scalar of pyarrow
    return np.asarray(part.values, np.float32) if isinstance(part, pa.ListScalar) else part.as_py()
