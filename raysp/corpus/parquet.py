"""Shards in Parquet: cut by their footers, read by row group in small batches; and sealed files of raysp.

Planning a corpus reads kilobytes per shard, and the memory of a reader does not depend on the size of a shard. A file
of 3 MB may hold 10,000 rows of one recording of 300 KB, stored once in a dictionary. So pieces are cut by the decoded
size of their columns, and repeated recordings are read as dictionaries.

A sealed file is a Parquet file like any other. Before its footer stands a block that other readers ignore: the digest
of the page headers of each column in each row group, the digest of these digests, and the digest of the footer. Pages
have checksums. So every byte that is read is covered, and damage is found before a reader decodes a byte. Another
program can write right digests, so its footers and headers are checked as in any shard.
"""

import base64
import hashlib
import re
import struct
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any, cast

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from raysp import bounds
from raysp.bounds import HEAD_BYTES, complaint
from raysp.corpus.shards import (
    Group,
    Options,
    Piece,
    Shard,
    SourceKind,
    Survey,
    check_same,
    estimated_seconds,
    one_line,
    place_of,
    refuse_ray_types,
)
from raysp.corpus.tables import (
    PagedFile,
    digest_of_headers,
    first_page,
    has_paths,
    leaves,
    limited_decoding,
    page_header,
    varint,
)
from raysp.errors import ShardError, StoreError
from raysp.storage.opened import DIGEST_BYTES, digest_of
from raysp.words import count

INDEX_BYTES = 8
"""Data pages with fewer bytes per value hold indices into a dictionary (at most 4 bytes each) and levels."""
HEADER_BYTES = 64
WORTH_KNOWING = 64 * 1024 * 1024
"""Columns whose decoded size cannot exceed this are not checked for repeats."""
REPEATED = 2
"""Minimum ratio of decoded to stored bytes of a column with repeats. Other columns count their stored bytes."""


Leaf = tuple[str, int]
"""Path and decoded bytes of a leaf of a column in a row group."""


def decoded_bytes(file: pa.NativeFile, metadata: pq.FileMetaData, columns: Collection[str] | None) -> list[list[Leaf]]:
    """Estimate the decoded bytes of the leaves of some columns (None: all) in each row group.

    The estimate uses the footer, and for a column that may hold repeated values the header of its dictionary. Writers
    start every column with a dictionary, so a dictionary alone does not show that values repeat.
    """
    groups = [list(leaves(metadata.row_group(index), columns)) for index in range(metadata.num_row_groups)]
    repeated = _repeated(file, [chunk for group in groups for chunk in group])
    return [
        [
            (path, _bytes(file, chunk) if path in repeated else chunk.total_uncompressed_size)
            for chunk, path in ((chunk, chunk.path_in_schema) for chunk in group)
        ]
        for group in groups
    ]


def null_columns(metadata: pq.FileMetaData, columns: Collection[str] | None) -> frozenset[str]:
    """Return the leaves of some columns whose values are all null by the statistics of every row group."""
    is_null_by_path: dict[str, bool] = {}
    for index in range(metadata.num_row_groups):
        for chunk in leaves(metadata.row_group(index), columns):
            path = chunk.path_in_schema
            if is_null_by_path.get(path, True):
                statistics = chunk.statistics
                is_null_by_path[path] = statistics is not None and statistics.null_count == chunk.num_values
    return frozenset(path for path, is_null in is_null_by_path.items() if is_null)


def _repeated(file: pa.NativeFile, chunks: Iterable[pq.ColumnChunkMetaData]) -> set[str]:
    """Return the paths of columns with repeated values, judged by the first large dictionary of each."""
    is_repeated_by_path: dict[str, bool] = {}
    for chunk in chunks:
        path = chunk.path_in_schema
        if path not in is_repeated_by_path and chunk.num_values * _dictionary_bytes(chunk) > WORTH_KNOWING:
            is_repeated_by_path[path] = _bytes(file, chunk) > REPEATED * chunk.total_uncompressed_size
    return {path for path, is_repeated in is_repeated_by_path.items() if is_repeated}


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
        encoded = cast("pa.DictionaryArray[Any, Any]", pc.dictionary_encode(column))
        dictionary = self._known.setdefault(name, encoded.dictionary)
        places = cast("pa.Array[Any]", pc.index_in(encoded.dictionary, value_set=dictionary))
        if places.null_count:  # another row group has another dictionary
            self._known[name] = encoded.dictionary
            return encoded
        return pa.DictionaryArray.from_arrays(places.take(encoded.indices), dictionary)


READ_BATCH_BYTES = 16 * 1024 * 1024
MAX_FOOTER_BYTES = 512 * 1024 * 1024
_MAGIC = b"PAR1"
_ENCRYPTED = b"PARE"
"""The magic bytes of a file with an encrypted footer."""
_SIGNATURE_BYTES = 28
"""Nonce and tag after the footer of a file with a plain footer and encrypted columns (Parquet Modular Encryption)."""
_MOST_INDEX_BYTES = 16 * bounds.MIB
"""Bytes after the pages of a file that are searched for its end: indexes of pages and its footer."""
SHOWN_COLUMNS = 5
"""Columns that a message names."""
_ARROW_SCHEMA = b"ARROW:schema"
_STRING_FIELD = 0x18
"""First byte of the second of two fields that are strings, in Thrift's compact protocol."""


@dataclass(frozen=True)
class Footer:
    """The parsed footer of a Parquet file."""

    metadata: pq.FileMetaData
    schema: pa.Schema
    digest: str


def read_footer(url: str, storage_options: Options = None) -> Footer:
    """Read the footer of a Parquet shard.

    Raises:
        ShardError: the file is not Parquet, is truncated, or has a schema that would run foreign code.
        StoreError: the file is missing or not readable.
    """
    with _open(url, storage_options) as file:
        return footer_of(url, file)


def _open(url: str, storage_options: Options) -> pa.NativeFile:
    store, name = place_of(url, storage_options)
    return store.open(name)


def footer_of(url: str, file: pa.NativeFile) -> Footer:
    """Read the footer of an open Parquet file; see `read_footer`."""
    num_bytes = file.size()
    if num_bytes < 12:
        raise ShardError(f"{url}: found {count(num_bytes, 'byte')}; expected a Parquet file. Copy the shard again")
    file.seek(num_bytes - 8)
    tail = file.read(8)
    footer_bytes = int.from_bytes(tail[:4], "little")
    if tail[4:] != _MAGIC:
        file.seek(0)
        raise ShardError(_no_parquet(url, file.read(HEAD_BYTES), tail[4:]))
    if not 0 < footer_bytes <= min(num_bytes - 12, MAX_FOOTER_BYTES):
        raise ShardError(
            f"{url}: its footer length is {footer_bytes:,} bytes in a file of {num_bytes:,}. Copy the shard again"
        )
    file.seek(num_bytes - 8 - footer_bytes)
    raw = file.read(footer_bytes)
    _refuse_foreign_code(url, raw)
    try:
        metadata = pq.read_metadata(pa.BufferReader(_MAGIC + raw + tail))
        bounds.check(metadata.num_rows, bounds.MOST_SHARD_ROWS, "rows")
        groups = [metadata.row_group(index) for index in range(metadata.num_row_groups)]
        rows = [group.num_rows for group in groups]
        if min([*rows, *(group.total_byte_size for group in groups)], default=0) < 0 or sum(rows) != metadata.num_rows:
            counts = f"counts {metadata.num_rows:,} rows, its row groups {sum(rows):,}"
            raise ShardError(f"{url}: its footer {counts}. Write the shard again")
        schema = metadata.schema.to_arrow_schema()
    except (pa.ArrowException, OSError, ValueError) as error:
        raise ShardError(f"{url}: its footer cannot be read: {one_line(error)}. Copy the shard again") from None
    if footer_bytes - metadata.serialized_size == _SIGNATURE_BYTES:
        raise ShardError(_with_encrypted_columns(url, file, metadata, schema))
    _refuse_joined(url, file, metadata, num_bytes - 8 - footer_bytes)
    return Footer(metadata, schema, hashlib.sha256(raw).hexdigest()[:16])


def _no_parquet(url: str, head: bytes, end: bytes) -> str:
    """Return the message for a file without the end of a Parquet file, chosen by its first bytes."""
    if (reason := complaint(head, "a Parquet file")) is not None:
        return f"{url}: {reason}"
    if _ENCRYPTED in (head[:4], end):
        return f"{url}: is an encrypted Parquet file (its footer is encrypted). Write it decrypted, and label that"
    if head.startswith(_MAGIC) or url.endswith(".parquet"):
        return f"{url}: ends in {end!r}; expected {_MAGIC!r}, the end of a Parquet file. Copy the shard again"
    return (
        f"{url}: begins with {head[:8]!r}; expected a Parquet file. Exclude it from source.url; other formats "
        "are recognised by their suffix: *.arrow, *.jsonl, ..."
    )


def _with_encrypted_columns(url: str, file: pa.NativeFile, metadata: pq.FileMetaData, schema: pa.Schema) -> str:
    """Return the message for a file whose footer is signed, since some of its columns are encrypted.

    Metadata of an encrypted column must not be accessed: pyarrow ends the process. So each column is read.
    """
    names = [name for name in dict.fromkeys(schema.names) if not _can_be_read(file, metadata, name)]
    shown = ", ".join(map(repr, names[:SHOWN_COLUMNS])) + (", ..." if len(names) > SHOWN_COLUMNS else "")
    reason = f"its columns {shown} are encrypted" if names else "its footer is signed"
    return f"{url}: {reason}; expected a Parquet file without encryption. Write it decrypted, and label that"


def _can_be_read(file: pa.NativeFile, metadata: pq.FileMetaData, name: str) -> bool:
    try:
        with limited_decoding(0):
            next(pq.ParquetFile(file, metadata=metadata).iter_batches(1, columns=[name], use_threads=False), None)
    except (pa.ArrowException, OSError, bounds.TooLargeError):
        return False
    return True


def _refuse_joined(url: str, file: pa.NativeFile, metadata: pq.FileMetaData, footer: int) -> None:
    """Raise if a file is several joined ones, of which the last footer would read the rows of the first."""
    if not metadata.num_row_groups:
        return
    chunks = leaves(metadata.row_group(metadata.num_row_groups - 1), None)
    try:
        end = max((first_page(chunk) + chunk.total_compressed_size for chunk in chunks), default=0)
    except UnicodeDecodeError as error:  # the name of a column
        raise ShardError(f"{url}: its footer cannot be read: {one_line(error)}. Copy the shard again") from None
    if end < 0 or footer - end < end - len(_MAGIC):  # less than a second file; indexes of pages are small
        return
    file.seek(end)
    if (place := file.read(min(footer - end, _MOST_INDEX_BYTES)).find(_MAGIC * 2)) >= 0:
        raise ShardError(
            f"{url}: a Parquet file ends at byte {end + place + len(_MAGIC):,} of {footer:,}, and another follows; "
            "expected one (are several joined?). Write the shard again, or split it there"
        )


def _refuse_foreign_code(url: str, raw: bytes) -> None:
    """Raise if a footer holds Arrow extension types of Ray, which unpickle data of the file.

    Unpickling happens as soon as a schema is deserialised, and pyarrow does that when it parses a footer. The check
    therefore reads the raw bytes, in which the schema is the base64 value after its key.
    """
    for key in re.finditer(re.escape(_ARROW_SCHEMA), raw):
        try:
            if raw[key.end()] != _STRING_FIELD:
                raise ValueError("expected a string field")
            num_bytes, place = varint(raw, key.end() + 1)
            schema = base64.b64decode(raw[place : place + num_bytes], validate=True)
        except (IndexError, ValueError):
            raise ShardError(f"{url}: its stored Arrow schema cannot be checked. Write the shard again") from None
        refuse_ray_types(url, schema)


def _groups(file: pa.NativeFile, metadata: pq.FileMetaData, columns: Sequence[str] | None) -> list[Group]:
    """Return the row groups of a shard; the first of `columns` holds the recordings, or names their files."""
    audio = columns[:1] if columns else None
    chunks = [*leaves(metadata.row_group(0), audio)] if metadata.num_row_groups else []
    recordings = {chunk.path_in_schema for chunk in chunks}
    of_paths = [chunk.statistics for chunk in chunks if audio and chunk.path_in_schema == f"{audio[0]}.path"]
    least = next(
        (statistics.min_raw for statistics in of_paths if statistics is not None and statistics.has_min_max), None
    )
    name = least.decode(errors="replace") if isinstance(least, bytes) else ""
    return [
        Group(
            metadata.row_group(index).num_rows,
            sum(num_bytes for _, num_bytes in decoded),
            estimated_seconds(sum(num_bytes for path, num_bytes in decoded if path in recordings), name),
        )
        for index, decoded in enumerate(decoded_bytes(file, metadata, columns))
    ]


def _batches(
    file: pa.NativeFile,
    metadata: pq.FileMetaData,
    piece: Piece,
    columns: Sequence[str],
    as_dictionaries: Collection[str],
) -> Iterator[pa.RecordBatch]:
    starts = [0]
    for index in range(metadata.num_row_groups):
        starts.append(starts[-1] + metadata.row_group(index).num_rows)
    groups = [i for i in range(metadata.num_row_groups) if starts[i] < piece.end and starts[i + 1] > piece.first]
    if not groups:
        return
    num_bytes = sum(metadata.row_group(i).total_byte_size for i in groups)
    rows = starts[groups[-1] + 1] - starts[groups[0]]
    repeats = Repeats(file, metadata, groups, as_dictionaries)
    row_bytes = max(num_bytes / max(1, rows), repeats.most_a_row)
    batch_rows = max(1, min(10_000, int(READ_BATCH_BYTES / max(row_bytes, 1e-3))))
    paged = PagedFile(file, metadata)
    for group in groups:
        row = starts[group]
        for batch in paged.batches(group, min(batch_rows, piece.end - row), columns):
            first, end = max(piece.first - row, 0), min(piece.end - row, batch.num_rows)
            if first < end:
                yield repeats.encoded(batch.slice(first, end - first))
            row += batch.num_rows
            if row >= piece.end:
                return


class ParquetKind(SourceKind):
    """Parquet files with the recordings in a column."""

    name = "parquet"
    suffixes = (".parquet",)
    folder_suffixes = (".parquet",)
    described = "Parquet (*.parquet)"

    def survey(
        self, url: str, part: str, storage_options: Options = None, columns: Sequence[str] | None = None
    ) -> Survey:
        """Survey a shard by its footer.

        Raises:
            ShardError, StoreError: see `read_footer`.
        """
        with _open(url, storage_options) as file:
            footer = footer_of(url, file)
            groups = _groups(file, footer.metadata, columns)
        nulls = null_columns(footer.metadata, columns)
        return Survey(footer.schema, footer.metadata.num_rows, groups, footer.digest, nulls)

    def read_rows(
        self,
        shard: Shard,
        piece: Piece,
        columns: Sequence[str],
        storage_options: Options = None,
        as_dictionaries: Collection[str] = (),
    ) -> Iterator[pa.RecordBatch]:
        """Yield a piece's rows in order, in batches of some megabytes."""
        try:
            with _open(shard.url, storage_options) as file:
                footer = footer_of(shard.url, file)
                check_same(shard, file.size(), footer)
                yield from _batches(file, footer.metadata, piece, columns, as_dictionaries)
        except ShardError:
            raise
        except StoreError as error:
            raise ShardError(str(error)) from error
        except bounds.TooLargeError as error:
            rows = f"rows {piece.first} to {piece.end}"
            raise ShardError(f"{shard.url}: {rows}: {error}. Write the shard again, without such values") from None
        except (pa.ArrowException, OSError, ValueError) as error:
            rows, reason = f"rows {piece.first} to {piece.end}", one_line(error)
            raise ShardError(f"{shard.url}: {rows}: {reason}. Copy the shard again") from error

    def starts(self, shard: Shard, storage_options: Options = None) -> list[int]:
        """Return the first row of each row group with rows, from the footer.

        Raises:
            ShardError, StoreError: see `read_footer`.
        """
        metadata = read_footer(shard.url, storage_options).metadata
        rows = [metadata.row_group(index).num_rows for index in range(metadata.num_row_groups)]
        ends = list(accumulate(rows, initial=0))
        return [first for first, end in pairwise(ends) if first < end]

    def path_column(self, shard: Shard, audio: str, storage_options: Options = None) -> str | None:
        """Return the name of the child `path`, so that no recording is read, or of a column of paths."""
        kind = read_footer(shard.url, storage_options).schema.field(audio).type
        if not has_paths(kind):
            return None
        return f"{audio}.path" if pa.types.is_struct(kind) else audio


_END = struct.Struct(f"<{DIGEST_BYTES}s{DIGEST_BYTES}s8s")
"""End of the block: digest of the digests of headers, digest of the footer, `_MARK`."""
_MARK = b"raysp.1\n"
_TAIL = struct.Struct("<I4s")
"""End of a Parquet file: bytes of the footer, `_MAGIC`."""


class NotSealedError(ValueError):
    """A file that is not a sealed Parquet file, or a damaged one; the message has the reason alone."""


def seal(path: Path) -> None:
    """Insert the digests into a Parquet file that was written with checksums of pages."""
    with pa.OSFile(str(path), "rb") as file:
        footer = _footer_of(file)
        digests = b"".join(digest_of_headers(file, chunk) for chunk in _all_chunks(pq.read_metadata(path)))
    with path.open("r+b") as sealed:
        sealed.seek(-len(footer), 2)
        sealed.write(digests + _END.pack(digest_of(digests), digest_of(footer), _MARK) + footer)


@dataclass(frozen=True)
class SealedFile:
    """A sealed file whose footer was compared with its digest.

    Args:
        file: the file.
        metadata: its metadata.
        end: offset of the end of the digests.
    """

    file: pa.NativeFile
    metadata: pq.FileMetaData
    end: int

    @classmethod
    def of(cls, file: pa.NativeFile) -> "SealedFile":
        """Read the footer of an open file.

        Raises:
            NotSealedError: the file is not sealed, or its footer is damaged.
            StoreError: it cannot be read.
        """
        footer = _footer_of(file)
        place = file.size() - len(footer) - _END.size
        if place < 0:
            raise NotSealedError("it has no digests before its footer")
        file.seek(place)
        _, digest, mark = _END.unpack(file.read(_END.size))
        if mark != _MARK:
            raise NotSealedError("it has no digests before its footer")
        if digest != digest_of(footer):
            raise NotSealedError("the digest of its footer differs")
        try:
            return cls(file, footer_of("its footer", file).metadata, place)
        except ShardError as error:
            raise NotSealedError(str(error)) from error

    def pages(self) -> PagedFile:
        """Return the rows, of which every page is compared with its digests when it is read.

        Raises:
            NotSealedError: the digests are damaged.
        """
        chunks = _all_chunks(self.metadata)
        num_bytes = len(chunks) * DIGEST_BYTES
        if self.end < num_bytes:
            raise NotSealedError(f"it has no digests of its {count(len(chunks), 'column')}")
        self.file.seek(self.end - num_bytes)
        digests = self.file.read(num_bytes)
        digest, _, _ = _END.unpack(self.file.read(_END.size))
        if digest != digest_of(digests):
            raise NotSealedError("the digest of the digests of its pages differs")
        starts = range(0, num_bytes, DIGEST_BYTES)
        of_chunks = (digests[start : start + DIGEST_BYTES] for start in starts)
        by_place = dict(zip(map(first_page, chunks), of_chunks, strict=True))
        return PagedFile(self.file, self.metadata, digests=by_place)


def _all_chunks(metadata: pq.FileMetaData) -> Sequence[pq.ColumnChunkMetaData]:
    groups = [metadata.row_group(index) for index in range(metadata.num_row_groups)]
    return [group.column(index) for group in groups for index in range(group.num_columns)]


def _footer_of(file: pa.NativeFile) -> bytes:
    """Return the footer of a file, with its length and the magic bytes after it."""
    num_bytes = file.size()
    if num_bytes < _TAIL.size:
        raise NotSealedError(f"it has {count(num_bytes, 'byte')}")
    file.seek(num_bytes - _TAIL.size)
    footer_bytes, magic = _TAIL.unpack(file.read(_TAIL.size))
    if magic != _MAGIC or footer_bytes > min(num_bytes - _TAIL.size, MAX_FOOTER_BYTES):
        raise NotSealedError("it does not end like a Parquet file")
    file.seek(num_bytes - _TAIL.size - footer_bytes)
    return file.read(footer_bytes + _TAIL.size)
