"""Arrow files of a sink, with digests that are compared before Arrow decodes a byte.

A file holds Arrow streams one after another, its parts, and after them an index with the size and the digest of each.
Digests find damage and truncation. Whoever writes another file can compute them, so each part is validated as well: the
buffers, the offsets in them, and the columns against those of the first part. What the values mean is checked by the
caller.
"""

import struct
from collections.abc import Generator, Iterable, Iterator
from typing import Any, BinaryIO, Literal, Self

import pyarrow as pa

from raysp import bounds
from raysp.corpus.arrow import read_stream
from raysp.errors import StoreError
from raysp.storage.opened import DIGEST_BYTES, digest_of
from raysp.storage.store import Store

_PART = struct.Struct(f"<Q{DIGEST_BYTES}s")
"""Entry of the index: bytes of a part, and their digest."""
_END = struct.Struct(f"<Q{DIGEST_BYTES}s8s")
"""Last bytes of a file: number of parts, digest of the index, `_MARK`."""
_MARK = b"raysp.1\n"


class DamagedTableError(StoreError):
    """A file of tables that is damaged, truncated, or not one that raysp writes."""


class Writer:
    """Writer of a file of at least one part. Its index is written when a `with` statement ends without an exception.

    Args:
        file: the file, open for writing.
        compression: compression of the buffers.
    """

    def __init__(self, file: BinaryIO, compression: Literal["zstd"] | None = None) -> None:
        self._file = file
        self._options = pa.ipc.IpcWriteOptions(compression=compression)
        self._parts: list[bytes] = []

    def __enter__(self) -> Self:
        """Return the writer."""
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Write the index, unless an exception was raised."""
        if kind is None:
            index = b"".join(self._parts)
            self._file.write(index + _END.pack(len(self._parts), digest_of(index), _MARK))

    def write(self, table: pa.Table) -> None:
        """Append a part, which is read back at once."""
        stream = pa.BufferOutputStream()
        with pa.ipc.new_stream(stream, table.schema, options=self._options) as writer:
            writer.write_table(table)
        part = stream.getvalue()
        self._file.write(part)
        self._parts.append(_PART.pack(part.size, digest_of(memoryview(part))))


def read(store: Store, path: str, remedy: str, schema: pa.Schema | None = None) -> Generator[pa.Table]:
    """Yield the parts of a file in order, each with all of its rows.

    Args:
        store: the sink.
        path: path of the file.
        remedy: advice on a damaged file, for the message.
        schema: expected columns, without metadata; None: the columns of the first part.

    Raises:
        DamagedTableError: the file is damaged, or has other columns.
        StoreError: it cannot be read.
    """
    try:
        with store.open(path) as file:
            for table in _parts(file):
                schema = table.schema if schema is None else schema
                if not table.schema.equals(schema):
                    raise ValueError(f"found {columns_of(table.schema)}, expected {columns_of(schema)}")
                yield table
    except StoreError:
        raise
    except (pa.ArrowException, OSError, ValueError) as error:
        raise DamagedTableError(f"{store.url}/{path}: damaged ({bounds.plain(error)}); {remedy}") from error


def _parts(file: pa.NativeFile) -> Iterator[pa.Table]:
    for num_bytes, digest in _index(file):
        data = file.read(num_bytes)
        if digest_of(data) != digest:
            raise ValueError("its digest differs")
        yield read_stream(data)


def _index(file: pa.NativeFile) -> list[tuple[int, bytes]]:
    """Return the size and the digest of each part, and move to the first one."""
    before_end = file.size() - _END.size
    if before_end < 0:
        raise ValueError(f"it has {file.size()} bytes")
    file.seek(before_end)
    num_parts, digest, mark = _END.unpack(file.read(_END.size))
    if mark != _MARK or not 0 < num_parts <= before_end // _PART.size:
        raise ValueError("it is truncated, or no file of raysp")
    before_index = before_end - num_parts * _PART.size
    file.seek(before_index)
    index = file.read(before_end - before_index)
    parts = list(_PART.iter_unpack(index))
    if digest_of(index) != digest or sum(num_bytes for num_bytes, _ in parts) != before_index:
        raise ValueError("its index differs from its digest")
    file.seek(0)
    return parts


def columns_of(schema: pa.Schema) -> str:
    """Return the names and types of columns, for messages."""
    return bounds.shortened(", ".join(f"{field.name}: {field.type}" for field in schema))


def differing(schema: pa.Schema, expected: "Iterable[pa.Field[Any]]") -> str:
    """Describe the first column of `expected` that is missing or has another type; empty if all are there."""
    for field in expected:
        stored = schema.field(field.name).type if field.name in schema.names else None
        if stored != field.type:
            return f"column {field.name!r} is {stored or 'missing'}, expected {field.type}"
    return ""
