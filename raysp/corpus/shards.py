"""Shards and pieces, the units of a corpus, and reading of a piece's rows.

A shard is cut by its footer alone, so that planning a corpus reads kilobytes per shard. A piece is read by row group in
small batches, so that memory does not depend on the size of a shard.
"""

import base64
import hashlib
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import cast

import pyarrow as pa
import pyarrow.parquet as pq

from raysp.corpus.decoded import Repeats, decoded_bytes, null_columns
from raysp.errors import ShardError, StoreError
from raysp.storage.store import Store, open_store, split_url
from raysp.words import count

PIECE_BYTES = 256 * 1024 * 1024
"""Maximum encoded bytes of a piece, unless one row is larger."""
PIECE_ROWS = 10_000
PIECE_DECODED_BYTES = 1024 * 1024 * 1024
"""Maximum decoded bytes of a piece in the columns that a pipeline reads, unless one row is larger."""
READ_BATCH_BYTES = 16 * 1024 * 1024
_BUFFER_BYTES = 1024 * 1024
_MAX_FOOTER_BYTES = 512 * 1024 * 1024
_MAGIC = b"PAR1"
_ARROW_SCHEMA = b"ARROW:schema"
_LFS_POINTER = b"version https://git-lfs"


@dataclass(frozen=True, order=True)
class Piece:
    """Neighbouring rows `first <= row < end` of one shard, read by one task and resumed together."""

    first: int
    end: int

    @property
    def num_rows(self) -> int:
        """Number of rows."""
        return self.end - self.first


@dataclass(frozen=True)
class Shard:
    """One file of a corpus, as recorded at the first plan."""

    name: str
    """Path of its label shard under the sink, always ending in `.parquet`."""
    url: str
    num_bytes: int
    version: str
    """Version by the store: an etag, or the modification time in nanoseconds."""
    num_rows: int
    input_id: str
    """Hash of size, version and footer: 16 hexadecimal digits."""
    pieces: tuple[Piece, ...]
    """Pieces in row order, covering every row once. Cut by the footer alone, and only once."""
    kind: str = "parquet"
    """Kind of source: "parquet", "arrow", "manifest" or "folder"."""
    part: str = ""
    """Part of the url's content, if several shards are cut from it. The format depends on the kind."""
    seconds: float | None = field(default=None, compare=False)
    """Seconds of audio as claimed by the source; None if unknown without reading audio."""


@dataclass(frozen=True)
class Survey:
    """Facts about a shard that are known before any row is read."""

    schema: pa.Schema
    num_rows: int
    pieces: tuple[Piece, ...]
    digest: str
    nulls: frozenset[str] = frozenset()
    """Columns (such as "audio.bytes") whose values are all null, as far as known without reading them."""
    seconds: float | None = None
    """Seconds of all its audio; None if unknown."""


@dataclass(frozen=True)
class Footer:
    """The parsed footer of a Parquet file."""

    metadata: pq.FileMetaData
    schema: pa.Schema
    digest: str


def read_footer(url: str, storage_options: Mapping[str, object] | None = None) -> Footer:
    """Read the footer of a Parquet shard.

    Raises:
        ShardError: the file is not Parquet, is truncated, or has a schema that would run foreign code.
        StoreError: the file is missing or not readable.
    """
    with _open(url, storage_options) as file:
        return _footer(url, file)


def place_of(url: str, storage_options: Mapping[str, object] | None) -> tuple[Store, str]:
    """Return the store of a file, and the file's path in it."""
    folder, name = split_url(url)
    return open_store(folder, storage_options or {}), name


def _open(url: str, storage_options: Mapping[str, object] | None) -> pa.NativeFile:
    store, name = place_of(url, storage_options)
    return store.open(name)


def _footer(url: str, file: pa.NativeFile) -> Footer:
    num_bytes = file.size()
    if num_bytes < 12:
        raise ShardError(f"{url}: found {count(num_bytes, 'byte')}; expected a Parquet file. Copy the shard again")
    file.seek(num_bytes - 8)
    tail = file.read(8)
    footer_bytes = int.from_bytes(tail[:4], "little")
    if tail[4:] != _MAGIC:
        file.seek(0)
        raise ShardError(_no_parquet(url, file.read(len(_LFS_POINTER)), tail[4:]))
    if not 0 < footer_bytes <= min(num_bytes - 12, _MAX_FOOTER_BYTES):
        raise ShardError(f"{url}: claims a footer of {footer_bytes:,} bytes in a file of {num_bytes:,}. Copy it again")
    file.seek(num_bytes - 8 - footer_bytes)
    raw = file.read(footer_bytes)
    _refuse_foreign_code(url, raw)
    try:
        metadata = pq.read_metadata(pa.BufferReader(_MAGIC + raw + tail))
        _refuse_lying_counts(url, metadata)
        schema = metadata.schema.to_arrow_schema()
    except (pa.ArrowException, OSError, ValueError) as error:
        raise ShardError(f"{url}: its footer cannot be read: {one_line(error)}. Copy the shard again") from None
    return Footer(metadata, schema, hashlib.sha256(raw).hexdigest()[:16])


def _no_parquet(url: str, head: bytes, end: bytes) -> str:
    """Return the message for a file without the end of a Parquet file, chosen by its first bytes."""
    if head.startswith(_LFS_POINTER):
        return f"{url}: is a pointer of Git LFS, not the file itself. Fetch it: git lfs pull"
    if head.startswith(_MAGIC) or url.endswith(".parquet"):
        return f"{url}: ends in {end!r}; expected {_MAGIC!r}, the end of a Parquet file. Copy it again"
    return (
        f"{url}: begins with {head[:8]!r}, which is no Parquet file. Leave it out of source.url; other formats are "
        "known by name: *.arrow, *.jsonl, ..."
    )


def one_line(error: Exception) -> str:
    """Return an error's message in one line."""
    return " ".join(str(error).split()).rstrip(".")


def _refuse_lying_counts(url: str, metadata: pq.FileMetaData) -> None:
    groups = [metadata.row_group(index) for index in range(metadata.num_row_groups)]
    rows, num_bytes = [group.num_rows for group in groups], [group.total_byte_size for group in groups]
    if min([*rows, *num_bytes], default=0) < 0 or sum(rows) != metadata.num_rows:
        raise ShardError(
            f"{url}: its footer counts {metadata.num_rows:,} rows, its row groups {sum(rows):,}. Write the shard again"
        )


def _refuse_foreign_code(url: str, raw: bytes) -> None:
    """Raise if a footer holds Arrow extension types of Ray, which unpickle data of the file.

    Unpickling happens as soon as a schema is deserialised, and pyarrow does that when it parses a footer. The check
    therefore reads the raw bytes, in which the schema is the base64 value after its key.
    """
    for key in re.finditer(re.escape(_ARROW_SCHEMA), raw):
        try:
            schema = base64.b64decode(_thrift_string(raw, key.end()), validate=True)
        except ValueError:
            raise ShardError(f"{url}: its stored Arrow schema cannot be checked. Write the shard again") from None
        refuse_ray_types(url, schema)


def _thrift_string(raw: bytes, place: int) -> bytes:
    """Read the string field at `place` in Thrift's compact protocol."""
    if raw[place : place + 1] != b"\x18":
        raise ValueError("no string follows")
    num_bytes, shift = 0, 0
    for place in range(place + 1, min(place + 6, len(raw))):  # noqa: B020 - continues from there
        num_bytes |= (raw[place] & 0x7F) << shift
        shift += 7
        if raw[place] < 0x80:
            return raw[place + 1 : place + 1 + num_bytes]
    raise ValueError("no length follows")


def refuse_ray_types(url: str, raw_schema: bytes) -> None:
    """Raise if a serialised schema contains an extension type of Ray at any depth."""
    if b"ARROW:extension:name" in raw_schema and re.search(rb"\bray\.", raw_schema):
        raise ShardError(
            f"{url}: its schema holds an extension type of Ray, which would run code from the file. "
            "Write the shard again with plain columns"
        )


def input_id(num_bytes: int, version: str, footer: Footer | Survey) -> str:
    """Hash size, version and digest, which identify the content of a shard."""
    return hashlib.sha256(f"{num_bytes}\0{version}\0{footer.digest}".encode()).hexdigest()[:16]


def survey(
    url: str, columns: Sequence[str] | None = None, storage_options: Mapping[str, object] | None = None
) -> Survey:
    """Survey a Parquet shard. `columns` are the ones that will be read, None for all.

    Raises:
        ShardError, StoreError: see `read_footer`.
    """
    with _open(url, storage_options) as file:
        footer = _footer(url, file)
        decoded = decoded_bytes(file, footer.metadata, columns)
    pieces, nulls = cut_pieces(footer.metadata, decoded=decoded), null_columns(footer.metadata, columns)
    return Survey(footer.schema, footer.metadata.num_rows, pieces, footer.digest, nulls)


def cut_pieces(
    metadata: pq.FileMetaData, max_bytes: int = PIECE_BYTES, decoded: Sequence[int] | None = None
) -> tuple[Piece, ...]:
    """Cut a Parquet shard into pieces by its row groups. `decoded` holds the decoded bytes of each group."""
    groups = [metadata.row_group(index) for index in range(metadata.num_row_groups)]
    decoded = [0] * len(groups) if decoded is None else decoded
    sizes = [(group.total_byte_size, group.num_rows, more) for group, more in zip(groups, decoded, strict=True)]
    return cut_groups(sizes, max_bytes)


def cut_groups(
    groups: Sequence[tuple[int, int] | tuple[int, int, int]], max_bytes: int = PIECE_BYTES
) -> tuple[Piece, ...]:
    """Cut groups of (bytes, rows, decoded bytes) into pieces: whole groups while they fit, even slices of larger ones.

    A piece holds at most `max_bytes`, `PIECE_ROWS` rows and `PIECE_DECODED_BYTES`.
    """
    limits = (max_bytes, PIECE_ROWS, PIECE_DECODED_BYTES)
    edges, row, held = [0], 0, [0, 0, 0]
    for group in groups:
        num_rows, sizes = group[1], (*group, 0)[:3]
        if any(one + more > most for one, more, most in zip(held, sizes, limits, strict=True)):
            slices = min(num_rows, max(-(-more // most) for more, most in zip(sizes, limits, strict=True)))
            edges += [row + num_rows * k // slices for k in range(slices)]
            held = list(sizes if slices == 1 else limits)  # slices take no further groups
        else:
            held = [one + more for one, more in zip(held, sizes, strict=True)]
        row += num_rows
    edges.append(row)
    return tuple(Piece(a, b) for a, b in pairwise(edges) if b > a)


def check_columns(url: str, schema: pa.Schema, *, audio: str, others: Sequence[str], has_rows: bool = True) -> None:
    """Raise unless the shard has the columns that a pipeline reads. Types are not checked in a shard without rows.

    Raises:
        ShardError: with the shard, the column, the columns found and those expected.
    """
    for column in dict.fromkeys((audio, *others)):
        if (times := schema.names.count(column)) != 1:
            found = f"{times} columns" if times else "no column"
            raise ShardError(f"{url}: has {found} {column!r}, expected one; its columns are {', '.join(schema.names)}")
    kind = schema.field(audio).type
    if has_rows and not (_is_bytes(kind) or (pa.types.is_struct(kind) and _is_bytes(_child(kind, "bytes")))):
        raise ShardError(f"{url}: column {audio!r} is {kind}; expected struct<bytes: binary, path: string> or binary")


def _child(kind: pa.DataType, name: str) -> pa.DataType:
    index = cast("pa.StructType", kind).get_field_index(name)
    return kind.field(index).type if index >= 0 else pa.null()


def _is_bytes(kind: pa.DataType) -> bool:
    kind = kind.value_type if isinstance(kind, pa.DictionaryType) else kind
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind))


def read_rows(
    shard: Shard,
    piece: Piece,
    columns: Sequence[str],
    storage_options: Mapping[str, object] | None = None,
    as_dictionaries: Collection[str] = (),
) -> Iterator[pa.RecordBatch]:
    """Yield a piece's rows in order, in batches of some megabytes, with only the given `columns`.

    Repeated recordings in the columns `as_dictionaries` may be returned as dictionaries.

    Raises:
        ShardError: the shard is damaged, or changed since it was planned.
    """
    try:
        with _open(shard.url, storage_options) as file:
            footer = _footer(shard.url, file)
            if input_id(file.size(), shard.version, footer) != shard.input_id:
                raise ShardError(f"{shard.url}: changed since it was planned. Run again, into another sink if need be")
            yield from _batches(file, footer.metadata, piece, columns, as_dictionaries)
    except ShardError:
        raise
    except StoreError as error:
        raise ShardError(str(error)) from error
    except (pa.ArrowException, OSError, ValueError) as error:
        reason = one_line(error)
        raise ShardError(f"{shard.url}: rows {piece.first} to {piece.end}: {reason}. Copy the shard again") from error


def read_table(
    shard: Shard,
    piece: Piece,
    columns: Sequence[str],
    storage_options: Mapping[str, object] | None = None,
) -> pa.Table:
    """Read all rows of a piece, in order; see `read_rows`."""
    batches = list(read_rows(shard, piece, columns, storage_options))
    if batches:
        return pa.Table.from_batches(batches)
    schema = read_footer(shard.url, storage_options).schema
    return pa.schema([schema.field(column) for column in columns]).empty_table()


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
    held = sum(metadata.row_group(i).total_byte_size for i in groups)
    rows = starts[groups[-1] + 1] - starts[groups[0]]
    repeats = Repeats(file, metadata, groups, as_dictionaries)
    row_bytes = max(held / max(1, rows), repeats.most_a_row)
    batch_rows = max(1, min(10_000, int(READ_BATCH_BYTES / max(row_bytes, 1e-3))))
    # pre_buffer and threads cost memory: 135 MB without, 336 MB with them, measured on half of a 512 MB shard.
    reader = pq.ParquetFile(file, metadata=metadata, buffer_size=_BUFFER_BYTES, pre_buffer=False)
    row = starts[groups[0]]
    for batch in reader.iter_batches(batch_rows, row_groups=groups, columns=list(columns), use_threads=False):
        first, end = max(piece.first - row, 0), min(piece.end - row, batch.num_rows)
        if first < end:
            yield repeats.encoded(batch.slice(first, end - first))
        row += batch.num_rows
        if row >= piece.end:
            return


def only_first_rows(shards: Sequence[Shard], num_rows: int) -> tuple[Shard, ...]:
    """Return the shards of a corpus limited to its first rows, for a try-out."""
    kept: list[Shard] = []
    for shard in shards:
        if num_rows <= 0:
            break
        pieces = tuple(replace(p, end=min(p.end, num_rows)) for p in shard.pieces if p.first < num_rows)
        seconds = shard.seconds if shard.num_rows <= num_rows else None
        kept.append(replace(shard, pieces=pieces, num_rows=min(shard.num_rows, num_rows), seconds=seconds))
        num_rows -= shard.num_rows
    return tuple(kept)
