"""Parquet files with digests of their own, so that damage is found before a reader decodes a byte.

A sealed file is a Parquet file like any other. Before its footer stands a block that other readers ignore: the digest
of the page headers of each column in each row group, the digest of these digests, and that of the footer. Pages have
checksums. So every byte that is read is covered. Another program can write right digests, so footers and headers are
checked as those of any shard.
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from raysp.corpus.pages import PagedFile, digest_of_headers, first_page
from raysp.corpus.parquet import MAX_FOOTER_BYTES, footer_of
from raysp.errors import ShardError
from raysp.storage.opened import DIGEST_BYTES, digest_of
from raysp.words import count

_END = struct.Struct(f"<{DIGEST_BYTES}s{DIGEST_BYTES}s8s")
"""End of the block: digest of the digests of headers, digest of the footer, `_MARK`."""
_MARK = b"raysp.1\n"
_TAIL = struct.Struct("<I4s")
"""End of a Parquet file: bytes of the footer, `_MAGIC`."""
_MAGIC = b"PAR1"


class NotSealedError(ValueError):
    """A file that is not a sealed Parquet file, or a damaged one; the message has the reason alone."""


def seal(path: Path) -> None:
    """Insert the digests into a Parquet file that was written with checksums of pages."""
    with pa.OSFile(str(path), "rb") as file:
        footer = _footer_of(file)
        digests = b"".join(digest_of_headers(file, chunk) for chunk in _chunks(pq.read_metadata(path)))
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
        chunks = _chunks(self.metadata)
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


def _chunks(metadata: pq.FileMetaData) -> Sequence[pq.ColumnChunkMetaData]:
    groups = [metadata.row_group(index) for index in range(metadata.num_row_groups)]
    return [group.column(index) for group in groups for index in range(group.num_columns)]


def _footer_of(file: pa.NativeFile) -> bytes:
    """Return the footer of a file, with its length and the magic bytes behind it."""
    num_bytes = file.size()
    if num_bytes < _TAIL.size:
        raise NotSealedError(f"it has {count(num_bytes, 'byte')}")
    file.seek(num_bytes - _TAIL.size)
    footer_bytes, magic = _TAIL.unpack(file.read(_TAIL.size))
    if magic != _MAGIC or footer_bytes > min(num_bytes - _TAIL.size, MAX_FOOTER_BYTES):
        raise NotSealedError("it does not end like a Parquet file")
    file.seek(num_bytes - _TAIL.size - footer_bytes)
    return file.read(footer_bytes + _TAIL.size)
