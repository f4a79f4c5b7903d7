"""Columns of recordings: the types that are read, and the bytes and path of each row.

A type is read if only one reading of it is possible: bytes of audio files, in any type for bytes or lists of bytes, and
paths, if the folder that confines them is given.
"""

from collections.abc import Sequence
from typing import Any, cast

import pyarrow as pa
import pyarrow.compute as pc

from raysp.errors import AudioError, ShardError
from raysp.words import count

EXPECTED = "The expected types are binary, and struct<bytes: binary, path: string> with the bytes of audio files"
_BYTES, _PATH = "bytes", "path"


def check_columns(
    url: str, schema: pa.Schema, *, audio: str, others: Sequence[str], has_rows: bool = True, by_path: bool = False
) -> None:
    """Raise unless the shard has the columns that a pipeline reads. Types are not checked in a shard without rows.

    Args:
        url: name of the shard for messages.
        schema: its columns.
        audio: column of recordings.
        others: further columns that are read.
        has_rows: whether it has rows.
        by_path: whether recordings may be read by path.

    Raises:
        ShardError: with the shard, the column, the columns found and those expected.
    """
    for column in dict.fromkeys((audio, *others)):
        if (times := schema.names.count(column)) != 1:
            found = f"{times} columns" if times else "no column"
            raise ShardError(f"{url}: has {found} {column!r}, expected one; its columns are {', '.join(schema.names)}")
    kind = plain_type(schema.field(audio).type)
    if has_rows and not (_holds_recordings(kind) or (by_path and _is_text(kind))):
        raise ShardError(f"{url}: column {audio!r} is {kind!s:.200}. {_remedy(kind)}. {EXPECTED}")


def plain_type(kind: pa.DataType) -> pa.DataType:
    """Return the type of the values of a dictionary or of runs; other types unchanged."""
    return kind.value_type if isinstance(kind, pa.DictionaryType | pa.RunEndEncodedType) else kind


def is_without_bytes(kind: pa.DataType) -> bool:
    """Return whether a type holds nulls or paths alone."""
    kind = plain_type(kind)
    return pa.types.is_null(_child(kind, _BYTES) if pa.types.is_struct(kind) else kind)


def names_files(kind: pa.DataType) -> bool:
    """Return whether a type holds paths or nulls, and no bytes of recordings."""
    return is_without_bytes(kind) or _is_text(kind)


def _holds_recordings(kind: pa.DataType) -> bool:
    if not pa.types.is_struct(kind):
        return pa.types.is_null(kind) or _is_bytes(kind)
    held, path = _child(kind, _BYTES), _child(kind, _PATH)
    if _is_bytes(held):
        return True
    names = {field.name for field in kind}
    is_named = bool(names & {_BYTES, _PATH}) and "array" not in names  # its samples may be others than the file's
    return is_named and pa.types.is_null(held) and (_is_text(path) or pa.types.is_null(path))


def _is_bytes(kind: pa.DataType) -> bool:
    kind = plain_type(kind)
    if is_list(kind):
        return cast("pa.ListType[Any]", kind).value_type in (pa.uint8(), pa.int8())
    of_bytes = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_binary_view, pa.types.is_fixed_size_binary)
    return any(fits(kind) for fits in of_bytes)


def _is_text(kind: pa.DataType) -> bool:
    of_text = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
    return any(fits(plain_type(kind)) for fits in of_text)


def is_list(kind: pa.DataType) -> bool:
    """Return whether a type holds lists, of any size and layout."""
    of_lists = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    of_views = (pa.types.is_list_view, pa.types.is_large_list_view)
    return any(fits(kind) for fits in (*of_lists, *of_views))


def _child(kind: pa.DataType, name: str) -> pa.DataType:
    index = cast("pa.StructType", kind).get_field_index(name)
    return kind.field(index).type if index >= 0 else pa.null()


def _remedy(kind: pa.DataType) -> str:
    """Return the remedy for a column of another type than recordings."""
    if _is_text(_child(kind, _BYTES) if pa.types.is_struct(kind) else kind):
        return (
            "Of paths, set source.audio_root to the folder of the files. Of base64, write the decoded bytes: "
            "base64.b64decode(text). If another column has the recordings, "
            "set source.audio"
        )
    if is_list(kind) and _holds_recordings(cast("pa.ListType[Any]", kind).value_type):
        return "Of several recordings in a row, write a row each"
    if is_list(kind) or (pa.types.is_struct(kind) and is_list(_child(kind, "array"))):
        return (
            "Of samples, write the bytes of WAV or FLAC files, such as those of soundfile.write(io.BytesIO(), samples, "
            "rate, format='WAV'); datasets writes files with cast_column('audio', Audio()). Of several recordings in a "
            "row, write a row each"
        )
    if within := _place_within(kind):
        return f"It has recordings in {within!r}: write this field as a column, and set source.audio to it"
    return "Set source.audio to the column of recordings"


def _place_within(kind: pa.DataType) -> str:
    """Return the place of a field of recordings in nested structs, such as "a.b"; empty if there is none."""
    for field in kind if isinstance(kind, pa.StructType) else ():
        if not pa.types.is_null(field.type) and _holds_recordings(field.type):
            return field.name
        if within := _place_within(field.type):
            return f"{field.name}.{within}"
    return ""


def bytes_of(value: Any) -> memoryview | None:  # noqa: ANN401 - any scalar
    """Return the bytes of the recording in a row, without a copy; None if it has none.

    Raises:
        AudioError: it is a list of bytes of which some are null.
    """
    value = _plain(value)
    if isinstance(value, pa.StructScalar) and value.is_valid:
        value = _plain(value[_BYTES]) if _BYTES in value else None
    if value is None or not value.is_valid or isinstance(value, pa.StringScalar | pa.LargeStringScalar):
        return None
    if isinstance(value, pa.ListScalar):
        return _bytes_of_list(cast("pa.Array[Any]", value.values))
    return memoryview(value.as_buffer())


def _bytes_of_list(values: "pa.Array[Any]") -> memoryview:
    if values.null_count:
        raise AudioError("corrupt_audio", f"{values.null_count:,} of its {count(len(values), 'byte')} are null")
    buffer = values.buffers()[1]
    return memoryview(b"" if buffer is None else buffer.slice(values.offset, len(values)))


def path_of(value: Any) -> str | None:  # noqa: ANN401 - any scalar
    """Return the path of the recording in a row; None without one."""
    value = _plain(value)
    if isinstance(value, pa.StructScalar) and value.is_valid:
        value = _plain(value[_PATH]) if _PATH in value else None
    return str(value) or None if _is_valid_text(value) else None


def _is_valid_text(value: Any) -> bool:  # noqa: ANN401 - any scalar
    return value is not None and value.is_valid and _is_text(value.type)


def _plain(value: Any) -> Any:  # noqa: ANN401 - any scalar
    is_encoded = isinstance(value, pa.DictionaryScalar | pa.RunEndEncodedScalar)
    return value.value if is_encoded and value.is_valid else value


def has_paths(kind: pa.DataType) -> bool:
    """Return whether a column of a type may hold paths."""
    kind = plain_type(kind)
    return _is_text(_child(kind, _PATH) if pa.types.is_struct(kind) else kind)


def paths_of(column: "pa.ChunkedArray[Any] | pa.Array[Any]") -> list[str | None]:
    """Return the paths of the recordings in a column; None for rows without one."""
    if not has_paths(column.type):
        return [None] * len(column)
    if not pa.types.is_struct(column.type):
        return [path_of(value) for value in column]
    return [path or None for path in pc.struct_field(column, _PATH).to_pylist()]
