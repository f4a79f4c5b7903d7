"""How large the columns of a Parquet file become when they are read: a dictionary holds once what rows repeat.

A file of 3 MB may hold 10,000 rows of one recording of 300 KB. Pieces are cut by what their columns decode to, and
recordings that repeat are read as dictionaries, so that neither takes the gigabytes.
"""

from collections.abc import Collection, Iterable, Iterator
from typing import Any, cast

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

INDEX_BYTES = 8
"""A data page with fewer bytes a value holds indices into a dictionary, of at most 4 bytes, and levels."""
HEADER_BYTES = 64
WORTH_KNOWING = 64 * 1024 * 1024
"""Where a dictionary can become no more than this, its values are not looked at."""
REPEATED = 2
"""Times its stored bytes that a column with repeated values takes at least; others are taken as they are stored."""


def decoded_bytes(file: pa.NativeFile, metadata: pq.FileMetaData, columns: Collection[str] | None) -> list[int]:
    """Estimate the bytes of some columns, all by default, in each row group.

    From the footer, and for a column that may hold repeated values from the header of its first dictionary: writers
    begin every column with a dictionary, so that most hold each value once.
    """
    groups = [list(_chunks(metadata.row_group(index), columns)) for index in range(metadata.num_row_groups)]
    repeated = _repeated(file, [chunk for group in groups for chunk in group])
    return [
        sum(_bytes(file, chunk) if chunk.path_in_schema in repeated else chunk.total_uncompressed_size for chunk in one)
        for one in groups
    ]


def null_columns(metadata: pq.FileMetaData, columns: Collection[str] | None) -> frozenset[str]:
    """Return the leaves of some columns that hold nothing but nulls by the statistics of every row group."""
    found: dict[str, bool] = {}
    for index in range(metadata.num_row_groups):
        for chunk in _chunks(metadata.row_group(index), columns):
            path = chunk.path_in_schema
            if found.get(path, True):
                known = chunk.statistics
                found[path] = known is not None and known.null_count == chunk.num_values
    return frozenset(path for path, is_null in found.items() if is_null)


def _repeated(file: pa.NativeFile, chunks: Iterable[pq.ColumnChunkMetaData]) -> set[str]:
    """Return the paths of columns with repeated values, as the first large dictionary of each says."""
    found: dict[str, bool] = {}
    for chunk in chunks:
        path = chunk.path_in_schema
        if path not in found and chunk.num_values * _dictionary_bytes(chunk) > WORTH_KNOWING:
            found[path] = _bytes(file, chunk) > REPEATED * chunk.total_uncompressed_size
    return {path for path, is_repeated in found.items() if is_repeated}


def _chunks(group: pq.RowGroupMetaData, columns: Collection[str] | None) -> Iterator[pq.ColumnChunkMetaData]:
    for index in range(group.num_columns):
        chunk = group.column(index)
        if columns is None or chunk.path_in_schema.partition(".")[0] in columns:
            yield chunk


def _dictionary_bytes(chunk: pq.ColumnChunkMetaData) -> int:
    """Return the size of the dictionary that all values are read from; 0 where there is none."""
    place = chunk.dictionary_page_offset
    if place is None or chunk.physical_type != "BYTE_ARRAY" or not chunk.num_values:
        return 0
    stored = chunk.data_page_offset - place
    rest = chunk.total_compressed_size - stored
    if stored <= 0 or rest > INDEX_BYTES * chunk.num_values + 10 * HEADER_BYTES:
        return 0  # the dictionary was given up: most values stand in the pages
    return max(stored, chunk.total_uncompressed_size - rest)


def _bytes(file: pa.NativeFile, chunk: pq.ColumnChunkMetaData) -> int:
    """Return what a column takes in a row group: the mean size in its dictionary for each value."""
    dictionary = _dictionary_bytes(chunk)
    if not dictionary:
        return int(chunk.total_uncompressed_size)
    file.seek(chunk.dictionary_page_offset or 0)
    mean = _mean_bytes(file.read(HEADER_BYTES))
    return max(int(chunk.total_uncompressed_size), chunk.num_values * (dictionary if mean is None else mean))


def _mean_bytes(header: bytes) -> int | None:
    """Read the mean size of a dictionary's values from the header of its page; None where it cannot be read.

    A PageHeader in Thrift's compact protocol (parquet-format/src/main/thrift/parquet.thrift): type, uncompressed and
    compressed size, perhaps a checksum, then a DictionaryPageHeader, which begins with the number of values.
    """
    found: dict[int, int] = {}
    place = number = 0
    try:
        while (kind := header[place]) != 0:
            number += kind >> 4
            if kind & 15 == 12:  # a struct
                if number != 7:
                    return None
                value, _ = _varint(header, place + 2)
                return found[2] // max(1, value)
            found[number], place = _varint(header, place + 1)
    except (IndexError, KeyError):
        pass
    return None


def _varint(raw: bytes, place: int) -> tuple[int, int]:
    """Read a zigzag number; returns it and the place behind it."""
    value = shift = 0
    while True:
        value |= (raw[place] & 0x7F) << shift
        shift, place = shift + 7, place + 1
        if raw[place - 1] < 0x80:
            return (value >> 1) ^ -(value & 1), place


class Repeats:
    """Turns recordings that repeat into dictionaries, batch by batch.

    Args:
        file: a Parquet file.
        metadata: of the file.
        groups: the row groups that are read.
        columns: whose recordings may become dictionaries.
    """

    def __init__(
        self, file: pa.NativeFile, metadata: pq.FileMetaData, groups: Collection[int], columns: Collection[str]
    ) -> None:
        chunks = [chunk for index in groups for chunk in _chunks(metadata.row_group(index), columns)]
        self._paths = _repeated(file, chunks)
        sizes = (_dictionary_bytes(chunk) for chunk in chunks if chunk.path_in_schema in self._paths)
        self.most_a_row = max(sizes, default=0)
        """Bytes that a row's recording may have, where recordings repeat."""
        self._known: dict[str, pa.Array[Any]] = {}

    def encoded(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Return a batch with dictionaries in the place of binary columns, also in structs, that the file has so."""
        if not self._paths:
            return batch
        columns = [self._column(name, batch.column(name)) for name in batch.schema.names]
        return pa.RecordBatch.from_arrays(columns, names=batch.schema.names)

    def _column(self, name: str, column: "pa.Array[Any]") -> "pa.Array[Any]":
        if isinstance(column, pa.StructArray):
            names = [field.name for field in column.type]
            children = [self._column(f"{name}.{child}", column.field(child)) for child in names]
            return pa.StructArray.from_arrays(children, names, mask=column.is_null())
        if name not in self._paths or not (pa.types.is_binary(column.type) or pa.types.is_large_binary(column.type)):
            return column
        found = cast("pa.DictionaryArray[Any, Any]", pc.dictionary_encode(column))
        known = self._known.setdefault(name, found.dictionary)
        places = cast("pa.Array[Any]", pc.index_in(found.dictionary, value_set=known))
        if places.null_count:  # another row group has another dictionary
            self._known[name] = found.dictionary
            return found
        return pa.DictionaryArray.from_arrays(places.take(found.indices), known)
