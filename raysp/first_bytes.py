"""Formats of files by their first bytes: compressed files, pointers of Git LFS and UTF-16, whatever their names are."""

import re
from typing import NamedTuple

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
)
_UTF_16 = _Format(
    re.compile(rb"\xff\xfe|\xfe\xff", re.DOTALL), "is in UTF-16", "Convert it: iconv -f UTF-16 -t UTF-8 IN > OUT"
)


def complaint(head: bytes, expected: str, *, may_be_text: bool = True) -> str | None:
    """Return a message on the format of a file that is compressed, a pointer or in UTF-16; None for other files.

    Args:
        head: its first bytes.
        expected: the expected format, such as "a Parquet file".
        may_be_text: whether a mark of UTF-16 is one; samples without a header often begin with its two bytes.
    """
    found = next((one for one in (*_FORMATS, *[_UTF_16] * may_be_text) if one.begins.match(head)), None)
    return None if found is None else f"{found.found}; expected {expected}. {found.remedy}"
