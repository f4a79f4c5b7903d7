"""Columns of a row besides source and output columns: their names, types and values, defined once.

Types are names of Arrow types, since a pipeline is made without pyarrow.
"""

from collections.abc import Mapping
from typing import Literal

ColumnType = Literal["int32", "int64", "float64", "string"]

RESULT_COLUMNS: Mapping[str, ColumnType] = {
    "row": "int64",
    "seconds": "float64",
    "status": "string",
    "error_type": "string",
    "error_message": "string",
}
"""Columns of the result of a row, from decoding to the label shard."""

OUTCOME = ("status", "error_type", "error_message")
"""Those of its outcome."""

WINDOW_COLUMNS: Mapping[str, ColumnType] = {"window": "int32", "windows": "int32"}
"""Columns of a window of a row until windows are joined: its number, and on the last one their number."""

RECORDING_COLUMNS: Mapping[str, ColumnType] = {"recording": "string", "version": "string"}
"""Columns of the file of a row that is read by path, until its version is compared at the commit."""

WAVE = "wave"
"""Column of the samples of a window, from decoding to the model."""

INNER_PREFIX = "raysp."
"""Prefix of the names of further columns of a window, which no column that a step adds may have."""

DIGEST = f"{INNER_PREFIX}digest"
"""Name under which blocks carry the digests of decoded recordings to outputs."""

INNER_COLUMNS = (*WINDOW_COLUMNS, *RECORDING_COLUMNS, WAVE)
"""Columns of a window that no label shard has."""

ROW_COLUMNS = ("id", *RESULT_COLUMNS)
"""Columns of every label shard."""

SECONDS = "seconds"
"""Name of the column of a row's duration."""
STATUS = "status"
OK, SKIPPED, ERROR = "ok", "skipped", "error"
"""Name of the column of a row's outcome, and its values."""
