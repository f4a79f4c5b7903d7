"""Shards in Arrow IPC, file or stream format: cut by message headers, read one record batch at a time.

Both formats consist of the same messages, so both are surveyed by reading the message headers. A local file is
memory-mapped, so that only the rows used are read. Remote files are read in whole record batches.
"""

import hashlib
import struct
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import pyarrow as pa

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
from raysp.corpus.tables import BATCH_BYTES, limited_decoding
from raysp.errors import ShardError, StoreError
from raysp.storage.store import Entry, LocalStore, Store
from raysp.storage.stores import open_store
from raysp.words import count

_MAGIC = b"ARROW1"
_CONTINUATION = b"\xff\xff\xff\xff"
_SCHEMA, _DICTIONARY, _RECORD_BATCH = 1, 2, 3  # values of the flatbuffers union MessageHeader (format/Message.fbs)
_MAX_HEADER_BYTES = 256 * 1024 * 1024
_READ_ROWS = 1000
_Reader = pa.RecordBatchFileReader | pa.RecordBatchStreamReader
_MOST_BYTES_WITHOUT_AUDIO = 4 * 1024 * 1024
"""Largest record batch that may hold paths only. Larger ones are not checked for columns of nulls."""


@dataclass(frozen=True)
class _Layout:
    """Positions of a shard's record batches."""

    is_file: bool
    raw_schema: bytes
    batches: tuple[tuple[int, int, int], ...]
    """Offset in the file, bytes, rows."""
    dictionary_bytes: int

    @property
    def digest(self) -> str:
        """Hash of the schema and the batches' positions."""
        return hashlib.sha256(self.raw_schema + repr(self.batches).encode()).hexdigest()[:16]


class ArrowKind(SourceKind):
    """Arrow IPC files, including data sets that `datasets` saved."""

    name = "arrow"
    suffixes = (".arrow", ".ipc", ".feather")
    folder_suffixes = (".arrow",)
    companions = ("state.json", "dataset_info.json", "dataset_dict.json")
    described = "Arrow IPC (*.arrow, *.ipc, *.feather)"
    reads_columns_alone = False

    def chosen(self, root: str, entries: Sequence[Entry], storage_options: Options) -> Sequence[Entry]:
        """Return the entries without other Arrow files in the folders of saved data sets, such as results of `map`."""
        store = open_store(root, storage_options or {})
        saved: dict[str, set[str] | None] = {}
        kept = []
        for entry in entries:
            folder, _, name = entry.path.rpartition("/")
            if name.endswith(self.suffixes):
                if folder not in saved:
                    saved[folder] = _data_files(store, f"{folder}/state.json" if folder else "state.json")
                if (names := saved[folder]) is not None and name not in names:
                    continue
            kept.append(entry)
        return kept

    def survey(
        self, url: str, part: str, storage_options: Options = None, columns: Sequence[str] | None = None
    ) -> Survey:
        """Survey a shard by the headers of its messages.

        Raises:
            ShardError: the shard is not Arrow IPC, is truncated, or has a schema that would run foreign code.
            StoreError: the shard is missing or not readable.
        """
        with _explained(url), _open(url, storage_options) as file:
            layout = _read_layout(url, file)
            with _reader(file, layout) as reader:
                schema = _storage_schema(reader.schema)
                is_mapped = isinstance(file, pa.MemoryMappedFile)
                nulls = _null_columns(file, reader, layout, columns or ()) if is_mapped else frozenset[str]()
        groups = [Group(num_rows, num_bytes, estimated_seconds(num_bytes)) for _, num_bytes, num_rows in layout.batches]
        return Survey(schema, sum(group.num_rows for group in groups), groups, layout.digest, nulls)

    def read_rows(
        self,
        shard: Shard,
        piece: Piece,
        columns: Sequence[str],
        storage_options: Options = None,
        as_dictionaries: Collection[str] = (),
    ) -> Iterator[pa.RecordBatch]:
        """Yield a piece's rows in order. Dictionaries are decoded, except in the columns `as_dictionaries`."""
        with _explained(shard.url), _open(shard.url, storage_options) as file:
            layout = _read_layout(shard.url, file)
            check_same(shard, file.size(), layout)
            with _reader(file, layout) as reader:
                for number, first, batch in _batches(reader, layout, piece):
                    if batch.num_rows != layout.batches[number][2]:
                        raise ShardError(
                            f"{shard.url}: record batch {number} has {batch.num_rows} rows, its header says "
                            f"{layout.batches[number][2]}; write the shard again"
                        )
                    yield from _plain_rows(batch, first, piece, columns, as_dictionaries)


def _data_files(store: Store, path: str) -> set[str] | None:
    """Return the names of the files of a data set written by `save_to_disk`; None if there is no such data set."""
    if store.stat(path) is None:
        return None
    try:
        return {str(data_file["filename"]) for data_file in bounds.parse_json(store.read(path))["_data_files"]}
    except (ValueError, KeyError, TypeError):
        return None


def _null_columns(file: pa.NativeFile, reader: _Reader, layout: _Layout, columns: Sequence[str]) -> frozenset[str]:
    """Return the columns, or their children `bytes`, that are null in every batch. Empty if any batch is large."""
    nulls: set[str] | None = None
    for number, (_, num_bytes, _) in enumerate(layout.batches):
        if num_bytes > _MOST_BYTES_WITHOUT_AUDIO or (nulls is not None and not nulls):
            return frozenset()
        batch = _batch(reader, layout, number)
        of_batch = {name for column in columns for name in _nulls_of(batch, column)}
        nulls = of_batch if nulls is None else nulls & of_batch
    return frozenset(nulls or ())


def _nulls_of(batch: pa.RecordBatch, column: str) -> Iterator[str]:
    """Yield the name of a column of a batch, or of its child `bytes`, if all values are null."""
    if (index := batch.schema.get_field_index(column)) < 0:
        return
    array = batch.column(index)
    array = array.storage if isinstance(array, pa.ExtensionArray) else array
    array.validate()  # no other check bounds the buffer in which nulls are counted
    if isinstance(array, pa.StructArray):
        if array.type.get_field_index("bytes") < 0:
            return
        column, array = f"{column}.bytes", array.field("bytes")
    if array.null_count == len(array):
        yield column


def _plain_rows(
    batch: pa.RecordBatch, first: int, piece: Piece, columns: Sequence[str], as_dictionaries: Collection[str]
) -> Iterator[pa.RecordBatch]:
    """Yield a piece's rows of a batch, with validated offsets: no other check bounds where they point."""
    missing = [name for name in columns if batch.schema.get_field_index(name) < 0]
    if missing:
        raise ShardError(f"its footer names no column {missing[0]!r}, or several; its header does")
    chosen = batch.select(list(columns))
    plain: list[Any] = [
        cast("Any", array).storage if _has_foreign_type(array.type) else array for array in chosen.columns
    ]
    for column in plain:
        _validate(column)
    decoded = [
        isinstance(column, pa.DictionaryArray) and name not in as_dictionaries
        for name, column in zip(columns, plain, strict=True)
    ]
    most = max(
        (column.dictionary.nbytes for column, is_encoded in zip(plain, decoded, strict=True) if is_encoded), default=0
    )
    num_rows = max(1, min(_READ_ROWS, BATCH_BYTES // max(1, most)))  # each value may be as large as the dictionary
    start, end = max(piece.first - first, 0), min(piece.end - first, batch.num_rows)
    for row in range(start, end, num_rows):
        parts = [column.slice(row, min(num_rows, end - row)) for column in plain]
        arrays = [
            part.dictionary_decode() if is_encoded else part for part, is_encoded in zip(parts, decoded, strict=True)
        ]
        yield pa.RecordBatch.from_arrays(arrays, names=list(columns))


def _validate(column: Any) -> None:  # noqa: ANN401 - an array of any type
    """Validate a column. Text is validated as binary, so text that is not UTF-8 is accepted."""
    values = column.dictionary if isinstance(column, pa.DictionaryArray) else column
    kind = {pa.string(): pa.binary(), pa.large_string(): pa.large_binary()}.get(values.type)
    plain = values.view(kind) if kind else values
    if values is not column:
        plain = pa.DictionaryArray.from_arrays(column.indices, plain, safe=False)
    plain.validate(full=True)


def _batches(reader: _Reader, layout: _Layout, piece: Piece) -> Iterator[tuple[int, int, pa.RecordBatch]]:
    """Yield the record batches that overlap a piece: number, first row, batch."""
    first = 0
    for number, (_, _, num_rows) in enumerate(layout.batches):
        if first >= piece.end:
            return
        is_wanted = first + num_rows > piece.first and num_rows > 0
        if is_wanted:
            yield number, first, _batch(reader, layout, number)
        elif isinstance(reader, pa.RecordBatchStreamReader):
            _batch(reader, layout, number)  # of a memory-mapped file only the header is read
        first += num_rows


def _batch(reader: _Reader, layout: _Layout, number: int) -> pa.RecordBatch:
    """Read a record batch, of a stream the next one, within a limit of memory."""
    with limited_decoding(layout.dictionary_bytes + layout.batches[number][1]):
        return reader.get_batch(number) if isinstance(reader, pa.RecordBatchFileReader) else reader.read_next_batch()


@contextmanager
def _reader(file: pa.NativeFile, layout: _Layout) -> Iterator[_Reader]:
    file.seek(0)
    with pa.ipc.open_file(file) if layout.is_file else pa.ipc.open_stream(file) as reader:
        if isinstance(reader, pa.RecordBatchFileReader) and reader.num_record_batches != len(layout.batches):
            raise ShardError("its footer and its messages differ in the number of record batches; write it again")
        yield reader


@contextmanager
def _explained(url: str) -> Iterator[None]:
    try:
        yield
    except StoreError:
        raise
    except ShardError as error:
        message = str(error)
        raise ShardError(message if message.startswith(url) else f"{url}: {message}. Write the shard again") from None
    except bounds.TooLargeError as error:
        raise ShardError(f"{url}: {error}. Write the shard again, with fewer rows a record batch") from None
    except (pa.ArrowException, OSError, ValueError, OverflowError, struct.error, IndexError) as error:
        raise ShardError(f"{url}: {one_line(error)}. Copy the shard again") from error


def _open(url: str, storage_options: Options) -> pa.NativeFile:
    store, name = place_of(url, storage_options)
    if isinstance(store, LocalStore) and (entry := store.stat(name)) is not None and entry.num_bytes:
        return pa.memory_map(f"{store.url}/{name}")
    return store.open(name)


def _read_layout(url: str, file: pa.NativeFile) -> _Layout:
    """Read the headers of a shard's messages, skipping their bodies."""
    num_bytes = file.size()
    file.seek(0)
    is_file = (head := file.read(HEAD_BYTES)).startswith(_MAGIC)
    if (hidden := complaint(head, "Arrow IPC")) is not None:
        raise ShardError(f"{url}: {hidden}")
    end_of_messages = _check_footer(url, file, num_bytes) if is_file else num_bytes
    place = 8 if is_file else 0
    raw_schema = b""
    batches: list[tuple[int, int, int]] = []
    dictionary_bytes = 0
    while place < num_bytes and (header := _read_header(url, file, place, num_bytes)):
        kind, length, body_bytes, start, raw = header
        end = start + body_bytes
        if body_bytes < 0 or length < 0 or end > num_bytes:
            raise ShardError(
                f"{url}: truncated, or the length of its message at {place:,} is wrong. Copy the shard again"
            )
        if kind == _SCHEMA and not raw_schema:
            refuse_ray_types(url, raw)
            raw_schema = raw
        elif kind == _RECORD_BATCH:
            batches.append((place, end - place, length))
        elif kind == _DICTIONARY:
            dictionary_bytes += end - place
        place = end
    _check_rest(url, file, place, end_of_messages)
    if not raw_schema:
        raise ShardError(
            f"{url}: found no Arrow schema in {count(num_bytes, 'byte')}; expected Arrow IPC. Copy the shard again"
        )
    bounds.check(sum(rows for _, _, rows in batches), bounds.MOST_SHARD_ROWS, "rows")
    return _Layout(is_file, raw_schema, tuple(batches), dictionary_bytes)


def read_stream(data: bytes) -> pa.Table:
    """Read all rows of an Arrow stream, and validate them.

    Text is not checked to be UTF-8.

    Raises:
        ArrowInvalid: it is damaged.
        TooLargeError: it takes more memory to decode than the limit.
    """
    file = pa.BufferReader(data)
    try:
        _read_layout("its messages", file)
    except (ShardError, ValueError, OverflowError, struct.error, IndexError) as error:
        raise pa.ArrowInvalid(str(error)) from None
    file.seek(0)
    with limited_decoding(len(data)), pa.ipc.open_stream(file) as reader:
        table = reader.read_all()
    for column in table.columns:
        for chunk in column.chunks:
            _validate(chunk)
    return table


def _check_rest(url: str, file: pa.NativeFile, place: int, end: int) -> None:
    """Raise if data follow the end of the messages, which no reader would read. Zeros are padding."""
    file.seek(place)
    end_marker = file.read(8)
    place += 8 if end_marker[:4] == _CONTINUATION else 4
    if place >= end:
        return
    file.seek(place)
    if end - place > bounds.MIB or any(file.read(end - place)):
        raise ShardError(
            f"{url}: its messages end at byte {place:,}, and {count(end - place, 'byte')} follow; expected one Arrow "
            "file or stream (are several joined?). Write the shard again, or split it there"
        )


def _check_footer(url: str, file: pa.NativeFile, num_bytes: int) -> int:
    """Check the footer of the file format, which has its own copy of the schema, the one that pyarrow reads.

    Returns its offset.
    """
    file.seek(max(0, num_bytes - 10))
    tail = file.read(10)
    footer_bytes = int.from_bytes(tail[:4], "little", signed=True)
    if tail[4:] != _MAGIC or not 0 < footer_bytes <= min(num_bytes - 10, _MAX_HEADER_BYTES):
        raise ShardError(f"{url}: ends in {tail!r}; expected the footer of an Arrow file. Copy the shard again")
    file.seek(place := num_bytes - 10 - footer_bytes)
    refuse_ray_types(url, file.read(footer_bytes))
    return place


def _read_header(url: str, file: pa.NativeFile, place: int, num_bytes: int) -> tuple[int, int, int, int, bytes] | None:
    """Read a message's header: kind, rows, bytes of its body, offset of its body, the header. None at the end."""
    file.seek(place)
    prefix = file.read(8)
    if prefix[:4] == _CONTINUATION:
        start, header_bytes = place + 8, int.from_bytes(prefix[4:8], "little", signed=True)
    else:  # before Arrow 0.15
        start, header_bytes = place + 4, int.from_bytes(prefix[:4], "little", signed=True)
    if header_bytes == 0:
        return None
    if not 0 < header_bytes <= min(num_bytes - start, _MAX_HEADER_BYTES):
        raise ShardError(f"{url}: no Arrow message at {place:,}, found {prefix!r}. Copy the shard again")
    file.seek(start)
    raw = file.read(header_bytes)
    message = _Table(raw, _offset(raw, 0))
    kind, body_bytes = message.scalar(1, "<B"), message.scalar(3, "<q")
    length = message.table(2).scalar(0, "<q") if kind == _RECORD_BATCH else 0
    return kind, length, body_bytes, start + header_bytes, raw


def _offset(raw: bytes, place: int) -> int:
    return place + int(struct.unpack_from("<I", raw, place)[0])


@dataclass(frozen=True)
class _Table:
    """A flatbuffers table (google.github.io/flatbuffers, "Internals"). Fields have numbers; missing ones are 0."""

    raw: bytes
    place: int

    def _field(self, number: int) -> int | None:
        vtable = self.place - struct.unpack_from("<i", self.raw, self.place)[0]
        if vtable < 0:
            raise ValueError("a message's header is damaged")
        (vtable_bytes,) = struct.unpack_from("<H", self.raw, vtable)
        if 4 + 2 * number >= vtable_bytes:
            return None
        (relative,) = struct.unpack_from("<H", self.raw, vtable + 4 + 2 * number)
        return self.place + relative if relative else None

    def scalar(self, number: int, kind: str) -> int:
        """Read a scalar field; 0 if it is missing."""
        place = self._field(number)
        return 0 if place is None else int(struct.unpack_from(kind, self.raw, place)[0])

    def table(self, number: int) -> "_Table":
        """Return the table in a field."""
        place = self._field(number)
        if place is None:
            raise ValueError("a message has no header")
        return _Table(self.raw, _offset(self.raw, place))


def _has_foreign_type(kind: pa.DataType) -> bool:
    """Return whether a type is read as its storage: an extension whose values are the storage's."""
    return isinstance(kind, pa.BaseExtensionType) and not isinstance(kind, pa.UuidType | pa.Bool8Type)


def _storage_schema(schema: pa.Schema) -> pa.Schema:
    """Return a schema with the types that `read_rows` yields."""
    fields = []
    for field in schema:
        kind = cast("Any", field.type).storage_type if _has_foreign_type(field.type) else field.type
        fields.append(pa.field(field.name, kind.value_type if pa.types.is_dictionary(kind) else kind))
    return pa.schema(fields)
