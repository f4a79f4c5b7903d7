"""Pages of Parquet files, read within bounds.

A page announces in its header how many bytes and values it decodes to. The decoder allocates what it announces, and
encodings that store a value by reference to others (dictionaries, differences to the value before) decode a page of a
kilobyte to gigabytes. So the headers are read before the pages, and a batch has as few rows as the largest value that
its pages can hold allows.

Columns of more than `WALKED_BYTES` in object storage are judged by their first pages, since each header is a request.
"""

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from raysp import bounds
from raysp.storage.opened import digest_of

WALKED_BYTES = 8 * bounds.MIB
BATCH_BYTES = 256 * bounds.MIB
"""Most bytes of a batch if each row holds the largest value that its pages allow."""
_ROWS_AT_ONCE = 10_000
_PROBED_BYTES = bounds.MIB
_HEADER_BYTES, _MOST_HEADER_BYTES = 512, 16 * bounds.MIB
_WIDTHS = {"BOOLEAN": 1, "INT32": 4, "FLOAT": 4, "INT64": 8, "DOUBLE": 8, "INT96": 12}
_LEVELS_BYTES = 4
"""Bytes of the definition and repetition level of a value."""

# Numbers of fields of a PageHeader (parquet-format/src/main/thrift/parquet.thrift).
_TYPE, _DECODED_BYTES, _STORED_BYTES = 1, 2, 3
_DATA, _DICTIONARY, _DATA_V2 = 0, 2, 3
_DETAILS = {_DATA: (5, 2), _DICTIONARY: (7, 2), _DATA_V2: (8, 4)}
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
            TooLargeError: its pages decode to more than any that a writer makes.
        """
        found = self.metadata.row_group(group)
        if not found.num_rows:
            return
        row_bytes = max((self._row_bytes(found, one) for one in leaves(found, columns)), default=0)
        num_rows = max(1, min(num_rows, BATCH_BYTES // max(1, row_bytes)))
        names = None if columns is None else list(columns)
        yield from self._reader.iter_batches(num_rows, row_groups=[group], columns=names, use_threads=False)

    def _row_bytes(self, group: pq.RowGroupMetaData, chunk: pq.ColumnChunkMetaData) -> int:
        """Return the most bytes of a row of a column whose values refer to others; 0 for other columns."""
        try:
            digest = None if self._digests is None else self._digests[first_page(chunk)]
            shared_bytes = _check_pages(self._file, chunk, digest)
            if chunk.num_values > group.num_rows:  # lists, all of which may be in one row
                width = _LEVELS_BYTES + _WIDTHS.get(chunk.physical_type, 0)
                most = max(bounds.MOST_DECODED_BYTES, bounds.MOST_GROWTH * chunk.total_uncompressed_size)
                bounds.check(chunk.num_values * width, most, "bytes in a row group")
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
    for number, one in enumerate(table.schema):
        if isinstance(one.type, pa.DictionaryType | pa.BaseExtensionType):
            plain = one.type.value_type if isinstance(one.type, pa.DictionaryType) else one.type.storage_type
            table = table.set_column(number, one.name, table.column(number).cast(plain))
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
        if header[_TYPE] in (_DATA, _DATA_V2):
            values += header[_DETAILS[header[_TYPE]][0]][_NUM_VALUES]
        # A negative size in a damaged header would lead back without end.
        place += num_bytes + max(0, header[_STORED_BYTES])


def _check_pages(file: pa.NativeFile, chunk: pq.ColumnChunkMetaData, digest: bytes | None = None) -> int:
    """Read the headers of pages, without the pages, and compare them with their digest, if one is known.

    Returns the size of the largest page to whose values others refer, a bound of each of them; 0 if there is none.

    Raises:
        ValueError: the headers differ from their digest.
        TooLargeError: a page announces too many bytes, or the pages more values than the footer.
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
        kind, decoded, stored = header[_TYPE], header[_DECODED_BYTES], header[_STORED_BYTES]
        raws.append(raw)
        bounds.check(decoded, max(bounds.MOST_PAGE_BYTES, bounds.MOST_RATIO * stored), f"bytes in a page of {stored:,}")
        if kind in _DETAILS:
            number, encoding = _DETAILS[kind]
            details = header[number]
            if kind == _DICTIONARY:
                bounds.check(details[_NUM_VALUES], max(1, decoded), f"values in a page of {decoded:,} bytes")
            else:
                values += details[_NUM_VALUES]
            if kind == _DICTIONARY or details[encoding] == _DELTA_BYTE_ARRAY:
                shared = max(shared, decoded)
        num_bytes += len(raw) + max(0, stored)
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
    """Read a struct in Thrift's compact protocol. Return its fields by number, and the offset behind it.

    Raises:
        IndexError: it goes on behind the bytes, or has a field of a type that headers of pages have not.
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
    num_bytes, place = _varint(raw, place)
    raw[place + num_bytes]  # the header goes on behind it
    return None, place + num_bytes


def _integer(raw: bytes, place: int) -> tuple[int, int]:
    value, place = _varint(raw, place)
    return (value >> 1) ^ -(value & 1), place


def _varint(raw: bytes, place: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        value |= (raw[place] & 0x7F) << shift
        shift, place = shift + 7, place + 1
        if raw[place - 1] < 0x80:
            return value, place
