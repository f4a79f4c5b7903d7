"""Formats of files by their first bytes: compressed files, pointers of Git LFS and UTF-16, whatever their names are.

Names and content differ after downloads (a server decompresses `m.jsonl.gz`), and after `cat` of several parts. So
tables of text are decompressed by content, and the messages on other files name the format.
"""

import io
import re
from typing import Any, BinaryIO, NamedTuple

from raysp import bounds

HEAD_BYTES = 64
"""First bytes of a file that show its format."""


class _Format(NamedTuple):
    begins: re.Pattern[bytes]
    found: str
    remedy: str


def _compressed(begins: bytes, name: str, command: str) -> _Format:
    return _Format(re.compile(begins, re.DOTALL), f"is compressed by {name}", f"Decompress it: {command} < IN > OUT")


_FORMATS = (
    _compressed(re.escape(bounds.GZIP), "gzip", "gunzip"),
    _compressed(rb"\x28\xb5\x2f\xfd", "zstd", "unzstd"),
    _compressed(rb"BZh[1-9]1AY&SY", "bzip2", "bunzip2"),
    _compressed(rb"\xfd7zXZ\x00", "xz", "unxz"),
    _compressed(rb"\x04\x22\x4d\x18", "lz4", "unlz4"),
    _compressed(rb"PK\x03\x04", "zip", "funzip"),
    _Format(
        re.compile(rb"version https://git-lfs"), "is a Git LFS pointer, not the file itself", "Fetch it: git lfs pull"
    ),
    _Format(
        re.compile(rb"\xff\xfe|\xfe\xff", re.DOTALL), "is in UTF-16", "Convert it: iconv -f UTF-16 -t UTF-8 IN > OUT"
    ),
)


class HiddenError(ValueError):
    """A file of text that is compressed, a pointer or in UTF-16; the message has the format and the remedy."""


def complaint(head: bytes, expected: str) -> str | None:
    """Return a message on the format of a file that is compressed, a pointer or in UTF-16; None for other files.

    Args:
        head: its first bytes.
        expected: the expected format, such as "a Parquet file".
    """
    found = next((one for one in _FORMATS if one.begins.match(head)), None)
    return None if found is None else f"{found.found}; expected {expected}. {found.remedy}"


def opened_text(raw: Any, expected: str) -> BinaryIO:  # noqa: ANN401 - a file of pyarrow
    """Return a file of text, decompressed if it is gzip.

    Raises:
        HiddenError: it has another format, or holds gzip within gzip.
    """
    stored = io.BufferedReader(raw, 1 << 20)
    is_gzip = stored.peek(HEAD_BYTES).startswith(bounds.GZIP)
    file = bounds.decompressed(stored, raw.size()) if is_gzip else stored
    _refuse_hidden(file.peek(HEAD_BYTES), expected, is_gzip)
    return file


def text_of(raw: bytes, most: int, expected: str) -> bytes:
    """Return the bytes of a file of text, decompressed if it is gzip.

    Raises:
        HiddenError: see `opened_text`; TooLargeError: it has more than `most` bytes.
        EOFError, OSError, zlib.error: the gzip file is damaged.
    """
    is_gzip = raw.startswith(bounds.GZIP)
    text = bounds.read(bounds.decompressed(io.BytesIO(raw), len(raw)), most) if is_gzip else raw
    _refuse_hidden(text[:HEAD_BYTES], expected, is_gzip)
    return text


def _refuse_hidden(head: bytes, expected: str, is_gzip: bool) -> None:
    if (found := complaint(head, expected)) is not None:
        raise HiddenError(f"its content, decompressed by gzip, {found}" if is_gzip else found)
