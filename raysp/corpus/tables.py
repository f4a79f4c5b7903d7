"""Tables of shards: pages of Parquet within bounds, types that every kernel takes, and the columns of recordings.

A page of Parquet or a compressed buffer of Arrow announces how many bytes it decodes to, and values that refer to
others (dictionaries, differences to the value before) decode from a kilobyte to gigabytes. So the memory of the process
is limited while it decodes. Where a batch takes more, the rows of its row group are read in smaller ones.

The decoder of differences ends the process if it gets no memory. So the headers of pages are read before the pages, and
a batch has as few rows as the largest value in a page of differences allows.

Columns of more than `WALKED_BYTES` in object storage are judged by their first pages, since each header is a request.

A type of recordings is read if only one reading of it is possible: bytes of audio files, in any type for bytes or lists
of bytes, and paths, if the folder that confines them is given.
"""

import contextlib
import functools
import math
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, Literal, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from raysp import bounds
from raysp.devices import memory_bytes
from raysp.errors import AudioError, ShardError
from raysp.storage.opened import digest_of
from raysp.words import count, suggestion

WALKED_BYTES = 8 * bounds.MIB
BATCH_BYTES = 256 * bounds.MIB
"""Most bytes of a batch if each row holds the largest value that its pages of differences allow, or without views."""
FEWER = 16
"""Divisor of the rows of a batch that takes more memory."""
_ROWS_AT_ONCE = 10_000
_PROBED_BYTES = bounds.MIB
_HEADER_BYTES, _MOST_HEADER_BYTES = 512, 16 * bounds.MIB

# Numbers of fields of a PageHeader (parquet-format/src/main/thrift/parquet.thrift).
_TYPE, _DECODED_BYTES, _STORED_BYTES = 1, 2, 3
_DATA, _DATA_V2 = 0, 3
_DETAILS = {_DATA: (5, 2), _DATA_V2: (8, 4)}
"""By the type of page: the field that holds the header of this type, and the field of the encoding therein."""
_NUM_VALUES = 1
_DELTA_BYTE_ARRAY = 7
# Types of Thrift's compact protocol.
_BOOLEANS, _INTEGERS, _BINARY, _STRUCT = (1, 2), (4, 5, 6), 8, 12


def leaves(group: pq.RowGroupMetaData, columns: Collection[str] | None) -> Iterator[pq.ColumnChunkMetaData]:
    """Yield the leaves of some columns (None: all) in a row group. A column is named as it is read, such as "a.b"."""
    for index in range(group.num_columns):
        chunk = group.column(index)
        path = chunk.path_in_schema
        if columns is None or path in columns or any(path.startswith(f"{name}.") for name in columns):
            yield chunk


@contextlib.contextmanager
def limited_decoding(stored_bytes: int) -> Iterator[None]:
    """Limit the memory of this process while it decodes data.

    A process that runs a model allocates in other threads too, and may take half of the machine's memory meanwhile.

    Raises:
        TooLargeError: decoding takes more.
    """
    more_bytes = bounds.MOST_DECODED_BYTES + bounds.MOST_GROWTH * stored_bytes
    if "torch" in sys.modules:
        more_bytes = max(more_bytes, _half_of_memory())
    with bounds.limited_memory(more_bytes):
        yield


@functools.cache
def _half_of_memory() -> int:
    return memory_bytes() // 2


class PagedFile:
    """A Parquet file whose row groups are read in batches, each after a look at the headers of its pages.

    Args:
        file: the file.
        metadata: its metadata; None: it is read.
        digests: digests of the page headers of each column in each row group, by the offset of its first page; with
            them, headers and checksums of pages are compared. None: neither is.
    """

    def __init__(
        self,
        file: pa.NativeFile,
        metadata: pq.FileMetaData | None = None,
        *,
        digests: Mapping[int, bytes] | None = None,
    ) -> None:
        # pre_buffer and threads cost memory: 135 MB without, 336 MB with them, measured on half of a 512 MB shard.
        self._reader = pq.ParquetFile(
            file,
            metadata=metadata,
            buffer_size=bounds.MIB,
            pre_buffer=False,
            page_checksum_verification=digests is not None,
        )
        self._file, self._digests = file, digests
        self.metadata = self._reader.metadata
        self.schema: pa.Schema = self._reader.schema_arrow

    def batches(self, group: int, num_rows: int, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
        """Yield the rows of a row group in batches of at most `num_rows`.

        Raises:
            TooLargeError: a row takes more memory to decode than the limit.
        """
        row_group = self.metadata.row_group(group)
        if not row_group.num_rows:
            return
        chunks = [*leaves(row_group, columns)]
        row_bytes = max((self._row_bytes(row_group, chunk) for chunk in chunks), default=0)
        num_rows = max(1, min(num_rows, BATCH_BYTES // max(1, row_bytes)))
        names, num_yielded = None if columns is None else list(columns), 0
        stored_bytes = min(self._file.size(), sum(max(0, chunk.total_compressed_size) for chunk in chunks))
        while True:
            batches = self._reader.iter_batches(num_rows, row_groups=[group], columns=names, use_threads=False)
            row = 0
            try:
                while True:
                    with limited_decoding(stored_bytes):
                        batch = next(batches, None)
                    if batch is None:
                        return
                    rows = batch.slice(max(0, num_yielded - row))  # others were yielded in larger batches
                    row += batch.num_rows
                    num_yielded = max(num_yielded, row)
                    if rows.num_rows:
                        yield rows
            except bounds.TooLargeError as error:
                if num_rows == 1:
                    raise bounds.TooLargeError(f"a row {error}") from None
                num_rows = max(1, num_rows // FEWER)

    def _row_bytes(self, group: pq.RowGroupMetaData, chunk: pq.ColumnChunkMetaData) -> int:
        """Check the pages of a column. Return a bound on the bytes of a decoded row; 0 without delta encoding."""
        try:
            digest = None if self._digests is None else self._digests[first_page(chunk)]
            shared_bytes = _check_pages(self._file, chunk, digest)
        except bounds.TooLargeError as error:
            raise bounds.TooLargeError(f"column {bounds.shortened(chunk.path_in_schema)} {error}") from None
        except (KeyError, TypeError):
            raise ValueError(
                f"column {bounds.shortened(chunk.path_in_schema)}: a header of a page is damaged"
            ) from None
        return shared_bytes * math.ceil(chunk.num_values / group.num_rows)


def read_whole(file: pa.NativeFile, most: int) -> pa.Table:
    """Read all rows of a file, with plain columns in place of dictionaries and extension types.

    Raises:
        TooLargeError: it decodes to more than `most` bytes.
    """
    paged, decoded = PagedFile(file), 0
    tables = [_plain(pa.Table.from_batches([], paged.schema))]
    for group in range(paged.metadata.num_row_groups):
        for batch in paged.batches(group, _ROWS_AT_ONCE):
            tables.append(_plain(pa.Table.from_batches([batch])))
            decoded += tables[-1].nbytes
            bounds.check(decoded, most, "bytes decoded")
    return pa.concat_tables(tables)


def _plain(table: pa.Table) -> pa.Table:
    for number, field in enumerate(table.schema):
        if isinstance(field.type, pa.DictionaryType | pa.BaseExtensionType):
            plain = field.type.value_type if isinstance(field.type, pa.DictionaryType) else field.type.storage_type
            table = table.set_column(number, field.name, table.column(number).cast(plain))
    return table.replace_schema_metadata(None)


def digest_of_headers(file: pa.NativeFile, chunk: pq.ColumnChunkMetaData) -> bytes:
    """Return the digest of the page headers of a column in a row group."""
    return digest_of(*(raw for _, raw in _headers(file, chunk)))


def _headers(file: pa.NativeFile, chunk: pq.ColumnChunkMetaData) -> Iterator[tuple[dict[int, Any], bytes]]:
    """Yield the headers of the pages of a column in a row group, each parsed and as bytes."""
    place, values = first_page(chunk), 0
    end = place + chunk.total_compressed_size
    while place < end and values < chunk.num_values:
        header, num_bytes = page_header(file, place, end)
        file.seek(place)
        yield header, file.read(num_bytes)
        if header[_TYPE] in _DETAILS:
            values += header[_DETAILS[header[_TYPE]][0]][_NUM_VALUES]
        # A negative size in a damaged header would lead back without end.
        place += num_bytes + max(0, header[_STORED_BYTES])


def _check_pages(file: pa.NativeFile, chunk: pq.ColumnChunkMetaData, digest: bytes | None = None) -> int:
    """Read the headers of pages, without the pages, and compare them with their digest, if one is known.

    Returns the size of the largest page of differences, a bound of each value; 0 if there is none.

    Raises:
        ValueError: the headers differ from their digest.
        TooLargeError: the pages have more values than the footer counts.
    """
    shared = values = num_bytes = 0
    raws, most = list[bytes](), chunk.total_compressed_size
    if isinstance(file, pa.PythonFile):
        if chunk.total_compressed_size <= WALKED_BYTES:
            file.seek(first_page(chunk))
            file.read(chunk.total_compressed_size)  # one request, whose answer is kept for the pages
        elif digest is None:
            most = _PROBED_BYTES
    for header, raw in _headers(file, chunk):
        kind = header[_TYPE]
        raws.append(raw)
        if kind in _DETAILS:
            number, encoding = _DETAILS[kind]
            values += header[number][_NUM_VALUES]
            if header[number][encoding] == _DELTA_BYTE_ARRAY:
                shared = max(shared, header[_DECODED_BYTES])
        num_bytes += len(raw) + max(0, header[_STORED_BYTES])
        if num_bytes >= most:
            break
    if digest is not None and digest_of(*raws) != digest:
        raise ValueError("the digest of the headers of its pages differs")
    if values > chunk.num_values:
        raise bounds.TooLargeError(f"has {values:,} values in its pages; expected {chunk.num_values:,} by its footer")
    return shared if chunk.physical_type == "BYTE_ARRAY" else 0


def first_page(chunk: pq.ColumnChunkMetaData) -> int:
    """Return the offset of the first page of a column in a row group."""
    return min(chunk.data_page_offset, chunk.dictionary_page_offset or chunk.data_page_offset)


def page_header(file: pa.NativeFile, place: int, end: int) -> tuple[dict[int, Any], int]:
    """Read the header of a page. Return its fields by number, and its size.

    Raises:
        ValueError: it is truncated or damaged.
    """
    num_bytes = _HEADER_BYTES
    while True:
        file.seek(place)
        raw = file.read(min(num_bytes, end - place))
        try:
            return _struct(raw, 0)
        except IndexError:
            if len(raw) < num_bytes or num_bytes >= _MOST_HEADER_BYTES:
                raise ValueError(f"the header of its page at {place:,} is damaged") from None
            num_bytes *= 32


def _struct(raw: bytes, place: int) -> tuple[dict[int, Any], int]:
    """Read a struct in Thrift's compact protocol. Return its fields by number, and the offset after it.

    Raises:
        IndexError: it goes on past the bytes, or has a field of a type that headers of pages have not.
    """
    fields: dict[int, Any] = {}
    number = 0
    while kind := raw[place]:
        place += 1
        if kind >> 4:
            number += kind >> 4
        else:
            number, place = _integer(raw, place)
        fields[number], place = _value(raw, place, kind & 15)
    return fields, place + 1


def _value(raw: bytes, place: int, kind: int) -> tuple[Any, int]:
    if kind in _BOOLEANS:
        return kind == _BOOLEANS[0], place
    if kind in _INTEGERS:
        return _integer(raw, place)
    if kind == _STRUCT:
        return _struct(raw, place)
    if kind != _BINARY:
        raise IndexError
    num_bytes, place = varint(raw, place)
    raw[place + num_bytes]  # the header goes on after it
    return None, place + num_bytes


def _integer(raw: bytes, place: int) -> tuple[int, int]:
    value, place = varint(raw, place)
    return (value >> 1) ^ -(value & 1), place


def varint(raw: bytes, place: int) -> tuple[int, int]:
    """Read an integer in Thrift's compact protocol. Return it, and the offset after it."""
    value = shift = 0
    while True:
        value |= (raw[place] & 0x7F) << shift
        shift, place = shift + 7, place + 1
        if raw[place - 1] < 0x80:
            return value, place


EXPECTED = "The expected types are binary, and struct<bytes: binary, path: string> with the bytes of audio files"
_BYTES, _PATH = "bytes", "path"
RECORDINGS = ("bytes", "paths", "null")
"""Values of `recording_type` of columns that may be labelled."""
WITHOUT_BYTES = ("paths", "text", "null")
"""Those of columns without bytes of recordings."""
_BINARY_NAMES = ("binary", "large_binary", "binary_view", "fixed_size_binary")
_TEXT_NAMES = ("string", "large_string", "string_view")
_LISTS = (pa.ListType, pa.LargeListType, pa.FixedSizeListType, pa.ListViewType, pa.LargeListViewType)


def check_columns(
    url: str, schema: pa.Schema, *, audio: str, others: Sequence[str], has_rows: bool = True, by_path: bool = False
) -> None:
    """Raise unless the shard has the columns that a pipeline reads. Types are not checked in a shard without rows.

    Args:
        url: name of the shard for messages.
        schema: its columns.
        audio: column of recordings; empty: they are not read.
        others: further columns that are read.
        has_rows: whether it has rows.
        by_path: whether recordings may be read by path.

    Raises:
        ShardError: with the shard, the column, the columns found and those expected.
    """
    for column in dict.fromkeys((audio, *others) if audio else others):
        if (times := schema.names.count(column)) != 1:
            number = f"{times} columns" if times else "no column"
            close = "" if times else suggestion(column, schema.names)
            raise ShardError(
                f"{url}: has {number} {column!r}{close}, expected one; its columns are {', '.join(schema.names)}"
            )
    kind = plain_type(schema.field(audio).type) if audio else pa.null()
    if has_rows and recording_type(kind) not in ((*RECORDINGS, "text") if by_path else RECORDINGS):
        raise ShardError(f"{url}: column {audio!r} is {kind!s:.200}. {_remedy(kind)}. {EXPECTED}")


def plain_type(kind: pa.DataType) -> pa.DataType:
    """Return the type of the values of a dictionary or of runs; other types unchanged."""
    return kind.value_type if isinstance(kind, pa.DictionaryType | pa.RunEndEncodedType) else kind


def recording_type(kind: pa.DataType) -> Literal["bytes", "paths", "text", "null", "other"]:
    """Return the kind of recordings in a column of this type: "paths" is a struct with paths, "text" plain text."""
    kind = plain_type(kind)
    if not pa.types.is_struct(kind):
        return _content(kind)
    content, path = _content(_child(kind, _BYTES)), _content(_child(kind, _PATH))
    if content == "bytes":
        return "bytes"
    names = {field.name for field in kind}
    is_named = bool(names & {_BYTES, _PATH}) and "array" not in names  # its samples may be others than the file's
    return "paths" if is_named and content == "null" and path in ("text", "null") else "other"


def _content(kind: pa.DataType) -> Literal["bytes", "text", "null", "other"]:
    """Return the content of a type that is no struct."""
    kind = plain_type(kind)
    if isinstance(kind, _LISTS):
        return "bytes" if kind.value_type in (pa.uint8(), pa.int8()) else "other"
    if pa.types.is_null(kind):
        return "null"
    name = str(kind).partition("[")[0]
    return "bytes" if name in _BINARY_NAMES else "text" if name in _TEXT_NAMES else "other"


def _child(kind: pa.DataType, name: str) -> pa.DataType:
    index = cast("pa.StructType", kind).get_field_index(name)
    return kind.field(index).type if index >= 0 else pa.null()


def _remedy(kind: pa.DataType) -> str:
    """Return the remedy for a column of another type than recordings."""
    if _content(_child(kind, _BYTES) if pa.types.is_struct(kind) else kind) == "text":
        return (
            "Of paths, set source.audio_root to the folder of the files. Of base64, write the decoded bytes: "
            "base64.b64decode(text). If another column has the recordings, "
            "set source.audio"
        )
    if isinstance(kind, _LISTS) and recording_type(kind.value_type) in RECORDINGS:
        return "Of several recordings in a row, write a row each"
    if isinstance(_child(kind, "array") if pa.types.is_struct(kind) else kind, _LISTS):
        return (
            "Of samples, write the bytes of WAV or FLAC files, such as soundfile.write(io.BytesIO(), samples, "
            "rate, format='WAV'); datasets writes files with cast_column('audio', Audio()). Of several recordings in a "
            "row, write a row each"
        )
    if within := _place_within(kind):
        return f"It has recordings in {within!r}: write this field as a column, and set source.audio to it"
    return "Set source.audio to the column of recordings"


def _place_within(kind: pa.DataType) -> str:
    """Return the place of a field of recordings in nested structs, such as "a.b"; empty if there is none."""
    for field in kind if isinstance(kind, pa.StructType) else ():
        if not pa.types.is_null(field.type) and recording_type(field.type) in RECORDINGS:
            return field.name
        if within := _place_within(field.type):
            return f"{field.name}.{within}"
    return ""


def bytes_of(value: Any) -> memoryview | None:  # noqa: ANN401 - any scalar
    """Return the bytes of the recording in a row, without a copy; None if it has none.

    Raises:
        AudioError: it is a list of bytes of which some are null.
    """
    value = _decoded(value)
    if isinstance(value, pa.StructScalar) and value.is_valid:
        value = _decoded(value[_BYTES]) if _BYTES in value else None
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
    value = _decoded(value)
    if isinstance(value, pa.StructScalar) and value.is_valid:
        value = _decoded(value[_PATH]) if _PATH in value else None
    is_path = value is not None and value.is_valid and _content(value.type) == "text"
    return str(value) or None if is_path else None


def _decoded(value: Any) -> Any:  # noqa: ANN401 - any scalar
    is_encoded = isinstance(value, pa.DictionaryScalar | pa.RunEndEncodedScalar)
    return value.value if is_encoded and value.is_valid else value


def has_paths(kind: pa.DataType) -> bool:
    """Return whether a column of a type may hold paths."""
    kind = plain_type(kind)
    content = _content(_child(kind, _PATH) if pa.types.is_struct(kind) else kind)
    return content == "text"


def paths_of(column: "pa.ChunkedArray[Any] | pa.Array[Any]") -> list[str | None]:
    """Return the paths of the recordings in a column; None for rows without one."""
    if not has_paths(column.type):
        return [None] * len(column)
    if not pa.types.is_struct(column.type):
        return [path_of(value) for value in column]
    return [path or None for path in pc.struct_field(column, _PATH).to_pylist()]


# In pyarrow 26 no view type can be taken from by row numbers, compared with a list, or sorted, and Parquet has no
# runs.
def without_views(kind: pa.DataType) -> pa.DataType:
    """Return a type with strings, bytes and lists in place of views, at any depth, and values in place of runs.

    Runs in lists stay: one value of them may be as large as all rows may be together.
    """
    if isinstance(kind, pa.RunEndEncodedType):
        return without_views(kind.value_type)
    if isinstance(kind, pa.FixedShapeTensorType):  # pyarrow 26 does not join arrays of them
        return kind.storage_type
    if pa.types.is_string_view(kind):
        return pa.string()
    if pa.types.is_binary_view(kind):
        return pa.binary()
    if pa.types.is_struct(kind):
        fields = [field.with_type(without_views(field.type)) for field in kind]
        return kind if fields == [*kind] else pa.struct(fields)
    if not isinstance(kind, (pa.MapType, *_LISTS)) or _holds_runs(kind):
        return kind
    if isinstance(kind, pa.MapType):
        key, item = without_views(kind.key_type), without_views(kind.item_type)
        return kind if (key, item) == (kind.key_type, kind.item_type) else pa.map_(key, item)
    value = kind.value_field.with_type(without_views(kind.value_type))
    if pa.types.is_list_view(kind):
        return pa.list_(value)
    if pa.types.is_large_list_view(kind):
        return pa.large_list(value)
    if pa.types.is_fixed_size_list(kind) and not kind.list_size:  # pyarrow 26 does not write them if one is null
        return pa.list_(value)
    if value.type == kind.value_type:
        return kind
    if pa.types.is_fixed_size_list(kind):
        return pa.list_(value, int(kind.list_size))
    return pa.large_list(value) if pa.types.is_large_list(kind) else pa.list_(value)


def _holds_runs(kind: pa.DataType) -> bool:
    children = (cast("Any", kind).field(index).type for index in range(kind.num_fields))
    return isinstance(kind, pa.RunEndEncodedType) or any(_holds_runs(child) for child in children)


def schema_without_views(schema: pa.Schema) -> pa.Schema:
    """Return a schema with plain types in place of views; itself if it has none."""
    fields = [field.with_type(without_views(field.type)) for field in schema]
    return schema if fields == [*schema] else pa.schema(fields)


VIEW_BYTES = 16
"""Bytes of a view of a string, without the string."""


def is_view(kind: pa.DataType) -> bool:
    """Return whether an array of a type refers to strings that others of its values may share."""
    return bool(pa.types.is_string_view(kind) or pa.types.is_binary_view(kind))


def parts_of(batch: pa.RecordBatch, except_for: Collection[str] = ()) -> Iterator[pa.RecordBatch]:
    """Yield the rows of a batch in parts of which each takes at most `BATCH_BYTES` without views."""
    columns = zip(batch.schema.names, batch.columns, strict=True)
    most = max((_most_bytes_a_row(column) for name, column in columns if name not in except_for), default=0)
    num_rows = max(1, BATCH_BYTES // max(1, most))
    for row in range(0, max(1, batch.num_rows), num_rows):
        yield batch.slice(row, num_rows)


def _most_bytes_a_row(array: "pa.Array[Any]") -> int:
    """Return the most bytes of a row when its views are replaced by the values to which they refer."""
    if isinstance(array, pa.StructArray):
        return max((_most_bytes_a_row(array.field(index)) for index in range(array.type.num_fields)), default=0)
    is_shared = is_view(array.type) or isinstance(
        array, pa.ListViewArray | pa.LargeListViewArray | pa.RunEndEncodedArray
    )
    return sum(buffer.size for buffer in array.buffers() if buffer) if is_shared else 0


def table_without_views(table: pa.Table, except_for: Collection[str] = ()) -> pa.Table:
    """Return a table with plain types in place of views, except in columns `except_for`; itself if it has none."""
    for place, field in enumerate(table.schema):
        kind = without_views(field.type)
        if kind != field.type and field.name not in except_for:
            chunks = [_converted(chunk, kind) for chunk in table.column(place).chunks]
            table = table.set_column(place, field.with_type(kind), cast("Any", pa.chunked_array)(chunks, kind))
    return table


def _converted(array: Any, kind: Any) -> "pa.Array[Any]":  # noqa: ANN401 - an array of any type
    """Return an array as another type, which differs in views alone."""
    if array.type == kind:
        return cast("pa.Array[Any]", array)
    if isinstance(array, pa.RunEndEncodedArray):
        return _converted(cast("Any", pc).run_end_decode(array), kind)
    if isinstance(array, pa.FixedShapeTensorArray):
        return cast("pa.Array[Any]", array.storage)
    if isinstance(array, pa.StructArray):
        fields = [_converted(array.field(index), field.type) for index, field in enumerate(kind)]
        return _made(pa.StructArray, fields, fields=[*kind], mask=array.is_null())
    if isinstance(array, pa.MapArray):
        return _converted_map(array, kind)
    if pa.types.is_fixed_size_list(kind):
        values = _converted(
            array.values.slice(array.offset * kind.list_size, len(array) * kind.list_size), kind.value_type
        )
        return _made(pa.FixedSizeListArray, values, type=kind, mask=array.is_null())
    if not isinstance(kind, _LISTS):
        return cast("pa.Array[Any]", array.cast(kind))
    return _converted_lists(array, kind)


def _converted_lists(array: Any, kind: Any) -> "pa.Array[Any]":  # noqa: ANN401 - an array of any type of lists
    """Return lists as another type, rebuilt from their lengths.

    pyarrow 26 casts views of lists to lists without the end of the last one, which then has arbitrary values.
    """
    lengths = np.asarray(pc.list_value_length(array).to_numpy(zero_copy_only=False))
    ends = np.cumsum(np.nan_to_num(lengths), dtype=np.int64)
    of = (pa.LargeListArray, pa.int64()) if pa.types.is_large_list(kind) else (pa.ListArray, pa.int32())
    offsets = pa.array(np.concatenate(([0], ends)), of[1])
    return _made(of[0], offsets, _converted(array.flatten(), kind.value_type), type=kind, mask=array.is_null())


def _converted_map(array: Any, kind: Any) -> "pa.Array[Any]":  # noqa: ANN401 - an array of any type of maps
    offsets = array.offsets.to_numpy()
    first, number = offsets[0], offsets[-1] - offsets[0]
    key = _converted(array.keys.slice(first, number), kind.key_type)
    item = _converted(array.items.slice(first, number), kind.item_type)
    return _made(pa.MapArray, pa.array(offsets - first), key, item, type=kind, mask=array.is_null())


def _made(of: Any, *parts: object, **options: object) -> "pa.Array[Any]":  # noqa: ANN401 - the stubs lack `mask`
    return cast("pa.Array[Any]", of.from_arrays(*parts, **options))
