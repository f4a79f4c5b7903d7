"""Members of tar files, found by their headers. Nothing is extracted, and no link is followed.

`tarfile` ends at a damaged header as at the end of an archive. Here every archive is read up to its end marker, and
anything else is an error.
"""

import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import pyarrow as pa

from raysp import bounds
from raysp.bounds import HEAD_BYTES, complaint, shortened
from raysp.corpus.shards import one_line
from raysp.errors import ShardError
from raysp.words import count

BLOCK_BYTES = 512
MOST_PADDING_BYTES = 16 * 1024 * 1024
"""Maximum number of zeros after the end of an archive, of which writers add up to a record."""
LEAST_BYTES = 4 * 1024
NEAR_BYTES, AHEAD_BYTES = 2 * 1024 * 1024, 4 * 1024 * 1024
"""Up to a distance of `NEAR_BYTES` between two headers, reading on is faster than a request for each of them."""


class Member(NamedTuple):
    """A file in an archive."""

    name: str
    place: int
    """Offset of its first header."""
    first: int
    """Offset of its content."""
    num_bytes: int
    checksum: int
    """Checksum of its header."""


class ArchiveFile:
    """A seekable file as `tarfile` expects it, with a window that is read ahead.

    Args:
        url: url for messages.
        file: the whole archive.
        may_jump: whether skipped bytes cost nothing, as in a local file.
    """

    def __init__(self, url: str, file: pa.NativeFile, *, may_jump: bool) -> None:
        self.url = url
        self.num_bytes = int(file.size())
        self._file = file
        self._may_jump = may_jump
        self._place = 0
        self._start, self._window = 0, b""
        self._last = -NEAR_BYTES - 1  # end of the last range

    def tell(self) -> int:
        """Return the position of the next read."""
        return self._place

    def seek(self, place: int) -> None:
        """Move the position. Negative ones occur in damaged archives only."""
        if place < 0:
            raise damaged(self.url, self._place, f"a header leads to offset {place:,}")
        self._place = place

    def read(self, num_bytes: int) -> bytes:
        """Read a header, with an upper bound of its size. Fewer bytes are returned only at the end of the file."""
        if not 0 <= num_bytes <= bounds.MOST_HEADER_BYTES:
            raise damaged(self.url, self._place, f"a header claims {count(num_bytes, 'byte')}")
        data = self.range(self._place, num_bytes)
        self._place += len(data)
        return data

    def range(self, first: int, num_bytes: int) -> bytes:
        """Read a range of the file."""
        begin = first - self._start
        if not 0 <= begin <= begin + num_bytes <= len(self._window):
            is_near = not self._may_jump and 0 <= first - self._last <= NEAR_BYTES
            self.load(first, first + max(num_bytes, AHEAD_BYTES if is_near else LEAST_BYTES))
            begin = 0
        self._last = first + num_bytes
        return self._window[begin : begin + num_bytes]

    def load(self, first: int, end: int) -> None:
        """Hold a range of the file in memory, in place of the one before."""
        self._file.seek(min(first, self.num_bytes))
        self._start, self._window = first, self._file.read(max(0, min(end, self.num_bytes) - first))


def damaged(url: str, place: int, content: str) -> ShardError:
    """Return the error of an archive that is damaged at an offset."""
    return ShardError(f"{url}: at byte {place:,}: {content}; expected a member of a tar file. Copy the shard again")


def read_members(file: ArchiveFile, first: int = 0, end: int | None = None) -> Iterator[Member]:
    """Yield the files of an archive in order, from the header at `first` up to `end`.

    Args:
        file: the archive.
        first: offset of a header.
        end: offset of a later header; None for all up to the end of the archive, which is checked.

    Raises:
        ShardError: a header is damaged, the archive is truncated or continues after its end, a member is neither a
            file nor a folder.
    """
    file.seek(first)
    with _explained(file, first), tarfile.open(fileobj=file, mode="r:") as archive:  # type: ignore[call-overload]
        place = -1
        while (header := archive.next()) is not None and (end is None or header.offset < end):
            archive.members = []  # would grow with the archive
            if archive.offset <= place or header.size < 0:
                raise damaged(file.url, header.offset, f"{shortened(header.name)} claims {count(header.size, 'byte')}")
            place = archive.offset
            if archive.pax_headers.keys() - {"comment"}:
                raise damaged(
                    file.url, header.offset, f"a global header sets {bounds.plain(', '.join(archive.pax_headers))}"
                )
            if not header.isdir():
                yield _member(file, header)
        if end is None:
            _check_end(file, archive.offset)


def _member(file: ArchiveFile, header: tarfile.TarInfo) -> Member:
    if not header.isreg() or header.issparse():
        raise ShardError(
            f"{file.url}: at byte {header.offset:,}: member {shortened(header.name)} is a link, a "
            f"sparse or a special file; "
            "expected files. Write the shard again (tar --dereference)"
        )
    if header.offset_data + header.size > file.num_bytes:
        raise damaged(
            file.url,
            header.offset,
            f"{shortened(header.name)} claims {count(header.size, 'byte')}, but the file has "
            f"{file.num_bytes - header.offset_data:,}",
        )
    return Member(header.name.removeprefix("./"), header.offset, header.offset_data, header.size, header.chksum)


def _check_end(file: ArchiveFile, place: int) -> None:
    """Raise unless an archive ends with zeros only, and at least a block of them."""
    if not any(head := file.range(place, BLOCK_BYTES)) and len(head) == BLOCK_BYTES:
        if (padding := file.num_bytes - place) > MOST_PADDING_BYTES:
            raise damaged(file.url, place, f"its end marker, and {count(padding, 'byte')} after it")
        if any(file.range(place, padding)):
            raise damaged(file.url, place, "its end marker, and more data after it (are several archives joined?)")
        return
    content = f"a header that begins with {head[:8]!r} and is not a header" if head else "the end of the file"
    raise damaged(file.url, place, f"{content}, without an end marker before it")


@contextmanager
def _explained(file: ArchiveFile, first: int) -> Iterator[None]:
    try:
        yield
    except (tarfile.TarError, RecursionError, ValueError) as error:
        head = file.range(first, HEAD_BYTES)
        if (hidden := complaint(head, "a tar file")) is not None:
            raise ShardError(f"{file.url}: {hidden}") from None
        raise ShardError(
            f"{file.url}: at byte {max(file.tell() - BLOCK_BYTES, first):,}: {one_line(error)}; expected a member of a "
            "tar file. Copy the shard again"
        ) from None
