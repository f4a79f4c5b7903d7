"""Decoded sizes of the columns of a Parquet file, in which a dictionary stores repeated values once.

A file of 3 MB may hold 10,000 rows of one recording of 300 KB. Pieces are cut by the decoded size of their columns, and
repeated recordings are read as dictionaries, so that neither needs gigabytes of memory.
"""

from collections.abc import Collection, Iterable
from typing import Any, cast

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from raysp.corpus.pages import leaves, page_header

INDEX_BYTES = 8
"""Data pages with fewer bytes per value hold indices into a dictionary (at most 4 bytes each) and levels."""
HEADER_BYTES = 64
WORTH_KNOWING = 64 * 1024 * 1024
"""Columns whose decoded size cannot exceed this are not checked for repeats."""
REPEATED = 2
"""Minimum ratio of decoded to stored bytes of a column with repeats. Other columns count their stored bytes."""


def decoded_bytes(file: pa.NativeFile, metadata: pq.FileMetaData, columns: Collection[str] | None) -> list[int]:
    """Estimate the decoded bytes of some columns (None: all) in each row group.

    The estimate uses the footer, and for a column that may hold repeated values the header of its dictionary. Writers
    start every column with a dictionary, so a dictionary alone does not show that values repeat.
    """
    groups = [list(leaves(metadata.row_group(index), columns)) for index in range(metadata.num_row_groups)]
    repeated = _repeated(file, [chunk for group in groups for chunk in group])
    return [
        sum(_bytes(file, chunk) if chunk.path_in_schema in repeated else chunk.total_uncompressed_size for chunk in one)
        for one in groups
    ]


def null_columns(metadata: pq.FileMetaData, columns: Collection[str] | None) -> frozenset[str]:
    """Return the leaves of some columns whose values are all null by the statistics of every row group."""
    found: dict[str, bool] = {}
    for index in range(metadata.num_row_groups):
        for chunk in leaves(metadata.row_group(index), columns):
            path = chunk.path_in_schema
            if found.get(path, True):
                known = chunk.statistics
                found[path] = known is not None and known.null_count == chunk.num_values
    return frozenset(path for path, is_null in found.items() if is_null)


def _repeated(file: pa.NativeFile, chunks: Iterable[pq.ColumnChunkMetaData]) -> set[str]:
    """Return the paths of columns with repeated values, judged by the first large dictionary of each."""
    found: dict[str, bool] = {}
    for chunk in chunks:
        path = chunk.path_in_schema
        if path not in found and chunk.num_values * _dictionary_bytes(chunk) > WORTH_KNOWING:
            found[path] = _bytes(file, chunk) > REPEATED * chunk.total_uncompressed_size
    return {path for path, is_repeated in found.items() if is_repeated}


def _dictionary_bytes(chunk: pq.ColumnChunkMetaData) -> int:
    """Return the size of the dictionary that holds all values; 0 if there is none."""
    place = chunk.dictionary_page_offset
    if place is None or chunk.physical_type != "BYTE_ARRAY" or not chunk.num_values:
        return 0
    stored = chunk.data_page_offset - place
    rest = chunk.total_compressed_size - stored
    if stored <= 0 or rest > INDEX_BYTES * chunk.num_values + 10 * HEADER_BYTES:
        return 0  # the writer abandoned the dictionary: most values are in the pages
    return max(stored, chunk.total_uncompressed_size - rest)


def _bytes(file: pa.NativeFile, chunk: pq.ColumnChunkMetaData) -> int:
    """Return the decoded bytes of a column in a row group: number of values times mean size in its dictionary."""
    dictionary = _dictionary_bytes(chunk)
    if not dictionary:
        return int(chunk.total_uncompressed_size)
    place = chunk.dictionary_page_offset or 0
    try:
        header, _ = page_header(file, place, place + HEADER_BYTES)
        mean: int = header[2] // max(1, header[7][1])
    except (ValueError, KeyError, TypeError):
        mean = dictionary
    return max(int(chunk.total_uncompressed_size), chunk.num_values * mean)


class Repeats:
    """Dictionary encoding of repeated recordings, batch by batch.

    Args:
        file: a Parquet file.
        metadata: metadata of the file.
        groups: row groups to read.
        columns: columns whose recordings may be encoded.
    """

    def __init__(
        self, file: pa.NativeFile, metadata: pq.FileMetaData, groups: Collection[int], columns: Collection[str]
    ) -> None:
        chunks = [chunk for index in groups for chunk in leaves(metadata.row_group(index), columns)]
        self._paths = _repeated(file, chunks)
        sizes = (_dictionary_bytes(chunk) for chunk in chunks if chunk.path_in_schema in self._paths)
        self.most_a_row = max(sizes, default=0)
        """Upper bound of the bytes of a repeated recording; 0 if no column repeats."""
        self._known: dict[str, pa.Array[Any]] = {}

    def encoded(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Return a batch with dictionaries in place of binary columns, also inside structs, that have repeats."""
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
