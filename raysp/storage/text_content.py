"""Text files, recognised by content: gzip is decompressed, other formats are refused by name.

Names and content differ after downloads (a server decompresses `m.jsonl.gz`), and after `cat` of several parts. So
tables of text are decompressed by content, and the messages on other files name the format.
"""

import io
from typing import Any, BinaryIO

from raysp import bounds
from raysp.bounds import HEAD_BYTES, complaint


class HiddenError(ValueError):
    """A file of text that is compressed, a pointer or in UTF-16; the message has the format and the remedy."""


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
    if (reason := complaint(head, expected)) is not None:
        raise HiddenError(f"its content, decompressed by gzip, {reason}" if is_gzip else reason)
