"""Data from outside: bounds of its bytes, columns and layers, and formats by first bytes.

Corpora, checkpoints and sinks come from strangers, and a small file can decode to one that fills the memory. Every
reader of them decompresses and parses through this module, which raises `TooLargeError`; the reader adds where, and
what to do. Libraries without such bounds run in processes with limits.
"""

import contextlib
import gzip
import io
import json
import os
import re
import resource
import sys
import threading
import zlib
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import IO, Any, BinaryIO, NamedTuple, cast

MIB = 1024 * 1024
MOST_LINE_BYTES = 16 * MIB
"""Bytes of a line of a manifest or table."""
MOST_BLANK_LINES = 1_000_000
"""Lines without content on end: a megabyte of gzip holds a thousand times as many."""
MOST_JSON_BYTES = 16 * MIB
"""Bytes of one JSON value: a configuration, a vocabulary, the metadata of a recording."""
MOST_CHANNELS = 16
"""Channels of a recording that are labelled each."""
MOST_DEPTH = 100
"""Levels of lists and objects in one JSON value. How many the parser takes depends on its version and its caller, and
code that walks over a value takes fewer."""
MOST_RECORD_BYTES = 256 * MIB
"""Bytes of one JSON value of a sink's record."""
MOST_ANSWERS_BYTES = 64 * MIB
"""Bytes of the answers of a hub's API to one question. A list of 100,000 files has 10 MB."""
MOST_TABLE_BYTES = 1024 * MIB
"""Bytes of a table of metadata of recordings, which is read as a whole; also decoded."""
MOST_TABLE_ROWS, MOST_TABLE_CELLS = 10_000_000, 100_000_000
"""Rows, and rows times columns, of such a table: a row without values takes memory too."""
MOST_DECODED_BYTES = 2048 * MIB
"""Bytes to which the rows decode that are read at once, unless they are stored as such: twice what a plan makes of
footers."""
MOST_SHARD_ROWS = 1_000_000_000
"""Rows of a shard."""
MOST_HEADER_BYTES = MIB
"""Bytes of a header of a tar file, which holds a long name or the like."""
MOST_TOKENIZER_BYTES = 64 * MIB
"""Bytes of a file of a tokenizer: tokenizer.json, vocab.txt, merges.txt, a sentencepiece model. Published ones have at
most 35 MB."""
MOST_CARD_BYTES = 4 * MIB
"""Bytes of a model card."""
MOST_TENSORS_BYTES = 64 * MIB
"""Bytes of the header of a safetensors file. The format allows 100 MB; headers of real models are below 1 MB."""
MOST_COLUMNS = 1000
"""Columns of a table, hence keys of the objects of a manifest."""
MOST_NAME_CHARACTERS = 1000
"""Characters of the name of a column, of a word of a language model, of a piece of a tokenizer."""
MOST_LAYERS = 1000
"""Layers of a part of a model. Published models of speech have at most 80."""
MOST_CLASSES = 1_000_000
"""Classes of a head."""
MOST_MEMBERS = 10_000
"""Members of an archive that holds one model."""
MOST_WEIGHTS = 100_000
"""Tensors of a file of weights."""
MOST_GROWTH = 4
"""Bytes of the tensors of a file, in sizes of the file: tensors may share bytes."""
FREE_BYTES, MOST_RATIO = 64 * MIB, 200
"""Data that decode to at most `FREE_BYTES` may have any ratio; others at most `MOST_RATIO`. Text has 3 to 30."""
SHOWN_CHARACTERS = 120
"""Characters of a name or value of a foreign file that a message repeats."""

GZIP = b"\x1f\x8b"
"""First bytes of a gzip file."""
DAMAGED = (gzip.BadGzipFile, EOFError, zlib.error)
"""Errors of a compressed file that is damaged or truncated."""
_CHUNK_BYTES = 1 << 20
_STATM = Path("/proc/self/statm")


class TooLargeError(ValueError):
    """Data from outside beyond a bound; the message has their size and the bound."""


def check(number: float, most: int, noun: str) -> None:
    """Raise TooLargeError if there are more than `most`, such as `noun` "bytes"."""
    if number > most:
        raise TooLargeError(f"has {number:,} {noun}; expected at most {most:,}")


def has_memory_limit() -> bool:
    """Return whether the memory of a process can be limited here: Linux only, which has /proc."""
    return _STATM.exists()


def limit_memory(more_bytes: int) -> None:
    """Limit the address space of this process to what it has and more. Without effect without /proc (macOS)."""
    if not has_memory_limit():
        return
    pages = int(_STATM.read_text().split()[0])
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    most = pages * resource.getpagesize() + more_bytes
    most = most if hard == resource.RLIM_INFINITY else min(most, hard)
    resource.setrlimit(resource.RLIMIT_AS, (most, hard))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


class _DataLimit:
    """Soft limit of the data of this process (RLIMIT_DATA) while any of its threads decodes."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._threads, self._before, self._most = 0, 0, 0

    def begin(self, more_bytes: int) -> None:
        with self._lock:
            before, hard = resource.getrlimit(resource.RLIMIT_DATA)
            if not self._threads:
                self._before, self._most = before, 0
            data_bytes = int(_STATM.read_text().split()[5]) * resource.getpagesize()
            self._most = max(self._most, data_bytes + more_bytes)
            limits = [limit for limit in (self._before, hard) if limit != resource.RLIM_INFINITY]
            resource.setrlimit(resource.RLIMIT_DATA, (min([self._most, *limits]), hard))
            self._threads += 1

    def end(self) -> None:
        with self._lock:
            self._threads -= 1
            if not self._threads:
                resource.setrlimit(resource.RLIMIT_DATA, (self._before, resource.getrlimit(resource.RLIMIT_DATA)[1]))


_DATA_LIMIT = _DataLimit()


@contextlib.contextmanager
def limited_memory(more_bytes: int) -> Iterator[None]:
    """Limit this process, with all of its threads, to the memory that it has and more. Without effect without /proc.

    Raises:
        TooLargeError: in place of MemoryError.
    """
    if is_limited := has_memory_limit():
        _DATA_LIMIT.begin(more_bytes)
    try:
        yield
    except MemoryError:
        most = f"{more_bytes // MIB:,} MB"
        raise TooLargeError(f"takes more memory to decode than the most allowed ({most})") from None
    finally:
        if is_limited:
            _DATA_LIMIT.end()


def limit_time(seconds: int) -> None:
    """Limit the processor time of this process."""
    with contextlib.suppress(ValueError):  # a lower limit holds already
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))


def check_columns(names: Collection[str]) -> None:
    """Raise TooLargeError if there are too many columns, or one has too long a name."""
    check(len(names), MOST_COLUMNS, "columns")
    for name in names:
        if len(name) > MOST_NAME_CHARACTERS:
            raise TooLargeError(f"has a column {shortened(name)}; expected a name of at most {MOST_NAME_CHARACTERS:,}")


def check_table(num_rows: int, num_columns: int) -> None:
    """Raise TooLargeError if a table that is read as a whole has too many rows or cells."""
    check(num_columns, MOST_COLUMNS, "columns")
    check(num_rows, MOST_TABLE_ROWS, "rows")
    check(num_rows * num_columns, MOST_TABLE_CELLS, "cells")


def shortened(value: object, most: int = SHOWN_CHARACTERS) -> str:
    """Return the representation of a name or value from outside, with at most `most` characters of it.

    A long value is shown by its beginning and its length. Only the beginning of text is copied.
    """
    if isinstance(value, str | bytes):
        shown, length = repr(value[:most]), len(value)
        return shown if length <= most else f"{shown}... ({length:,} {'bytes' if value[:0] == b'' else 'characters'})"
    if isinstance(value, int) and value.bit_length() > 8 * most:
        return f"an integer of {value.bit_length():,} bits"
    shown = repr(value)
    return shown if len(shown) <= most else f"{shown[:most]}... ({len(shown):,} characters)"


def plain(words: object, most: int = SHOWN_CHARACTERS) -> str:
    """Return text from outside, such as a library's error, in one line of at most `most` characters."""
    text = str(words)
    line = " ".join(text[: 8 * most].split())
    return line if len(line) <= most and len(text) <= 8 * most else f"{line[:most]}..."


def _missing(constant: str) -> None:
    if constant != "NaN":
        raise ValueError(f"found {constant}, expected a number or null")


_JSON, _JSON_OF_CORPUS = json.JSONDecoder(), json.JSONDecoder(parse_constant=_missing)
"""Decoders, made once: `json.loads` would make one for each line. By default they take NaN, Infinity and -Infinity,
which JSON does not have."""


def parse_json(data: bytes | str, most: int = MOST_JSON_BYTES, decoder: json.JSONDecoder = _JSON) -> Any:  # noqa: ANN401 - whatever JSON holds
    """Parse one JSON value. An integer with more digits than Python converts is returned as a string.

    Raises:
        ValueError: it is not valid JSON; TooLargeError: it has more than `most` bytes or `MOST_DEPTH` levels.
    """
    check(len(data), most, "bytes")
    try:
        value = _parsed(data, decoder)
        _check_depth(data, value)
    except RecursionError:
        raise TooLargeError(_TOO_DEEP) from None
    return value


def parse_values(data: bytes | str) -> Any:  # noqa: ANN401 - whatever JSON holds
    """Parse one JSON value of a corpus; see `parse_json`. NaN, which pandas writes for a missing value, is null.

    Raises:
        ValueError: as `parse_json`; or it holds Infinity or -Infinity, which are not JSON either.
    """
    return parse_json(data, decoder=_JSON_OF_CORPUS)


_TOO_DEEP = f"values are nested too deeply; expected at most {MOST_DEPTH} levels"


def _check_depth(data: bytes | str, value: object) -> None:
    """Raise TooLargeError for more than `MOST_DEPTH` levels, which only a text with as many brackets has."""
    num_brackets = data.count("[") + data.count("{") if isinstance(data, str) else data.count(b"[") + data.count(b"{")
    if num_brackets <= MOST_DEPTH:
        return
    level = [value]
    for _ in range(MOST_DEPTH):
        inner = (node.values() if isinstance(node, dict) else node for node in level if isinstance(node, dict | list))
        level = [child for children in inner for child in children if isinstance(child, dict | list)]
        if not level:
            return
    raise TooLargeError(_TOO_DEEP)


def _parsed(data: bytes | str, decoder: json.JSONDecoder) -> Any:  # noqa: ANN401 - whatever JSON holds
    try:
        text = data if isinstance(data, str) else data.decode(json.detect_encoding(data), "surrogatepass")
        return decoder.decode(text)
    except json.JSONDecodeError as error:
        raise ValueError(plain(str(error))) from None
    except UnicodeDecodeError:
        raise
    except ValueError:  # only for an integer beyond the limit of the interpreter
        return json.loads(data, parse_int=_integer, parse_constant=decoder.parse_constant)


def parse_record(data: bytes | str) -> Any:  # noqa: ANN401 - whatever JSON holds
    """Parse one JSON value of a sink's or an export's record; see `parse_json`."""
    return parse_json(data, MOST_RECORD_BYTES)


def _integer(digits: str) -> int | str:
    most = sys.get_int_max_str_digits()
    return int(digits) if not most or len(digits.lstrip("-")) <= most else digits


def lines(file: BinaryIO, most: int = MOST_LINE_BYTES) -> Iterator[bytes]:
    """Yield the lines of a file with their ends.

    Raises:
        TooLargeError: a line has more than `most` bytes, of which at most that much is read, or too many are blank.
    """
    num_blank = 0
    while line := file.readline(most + 1):
        num_blank = num_blank + 1 if len(line) < 3 and line.isspace() else 0
        if num_blank > MOST_BLANK_LINES:
            raise TooLargeError(f"has more than {MOST_BLANK_LINES:,} blank lines in a row")
        if len(line) > most:
            raise TooLargeError(f"a line has more than {most:,} bytes")
        yield line


def read(file: BinaryIO, most: int) -> bytes:
    """Read a whole file.

    Raises:
        TooLargeError: it has more than `most` bytes. At most that much of it is read.
    """
    content = bytearray()
    while len(content) <= most and (chunk := file.read(min(_CHUNK_BYTES, most + 1 - len(content)))):
        content += chunk
    if len(content) > most:
        raise TooLargeError(f"has more than {most:,} bytes, the most allowed")
    return bytes(content)


def read_file(path: Path, most: int) -> bytes:
    """Read a whole file of this machine.

    Raises:
        TooLargeError: it has more than `most` bytes.
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        check(os.fstat(file.fileno()).st_size, most, "bytes")
        return read(file, most)


class _Decoded(io.RawIOBase):
    """A decompressed file; reading fails at a number of bytes to which no ordinary file of its size decodes."""

    def __init__(self, file: IO[bytes], num_bytes: int) -> None:
        self._file, self._num_bytes = file, num_bytes
        self._most = max(FREE_BYTES, MOST_RATIO * num_bytes)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._file.tell()

    def seek(self, place: int, whence: int = io.SEEK_SET) -> int:
        place += self._file.tell() if whence == io.SEEK_CUR else 0
        if whence == io.SEEK_END or place > self._most:
            raise self._error()
        return self._file.seek(place)

    def readinto(self, buffer: Any) -> int:  # noqa: ANN401 - a buffer
        data = self._file.read(len(buffer))
        buffer[: len(data)] = data
        if self._file.tell() > self._most:
            raise self._error()
        return len(data)

    def close(self) -> None:
        if not self.closed:
            self._file.close()
        super().close()

    def _error(self) -> TooLargeError:
        return TooLargeError(
            f"decodes to more than {self._most:,} bytes, from {self._num_bytes:,}; expected at most {MOST_RATIO} "
            "times its size"
        )


def decompressed(file: Any, num_bytes: int) -> io.BufferedReader:  # noqa: ANN401 - a file of Python or pyarrow
    """Return the content of a gzip file of `num_bytes`.

    Reading raises TooLargeError beyond `MOST_RATIO`, EOFError at a truncated file, OSError or `zlib.error` at a damaged
    one. Memory does not depend on the file.
    """
    content = _Decoded(cast("IO[bytes]", gzip.GzipFile(fileobj=file)), num_bytes)
    return io.BufferedReader(content, _CHUNK_BYTES)


def unzipped(data: bytes, most: int) -> bytes:
    """Return the content of bytes in the format of zlib, as recorded listings have it.

    Raises:
        TooLargeError: there would be more than `most` bytes.
        ValueError: the data is damaged.
    """
    stream = zlib.decompressobj()
    try:
        content = stream.decompress(data, most + 1)
    except zlib.error as error:
        raise ValueError(str(error)) from None
    if len(content) > most:
        raise TooLargeError(f"decodes to more than {most:,} bytes, from {len(data):,}")
    if not stream.eof:
        raise ValueError("incomplete or truncated data")
    return content


class HeaderReader(io.RawIOBase):
    """A tar file for `tarfile`, which reads an extended header at once, of any size that it claims.

    Args:
        file: the archive, decompressed.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def read(self, num_bytes: int | None = -1, /) -> bytes:
        """Read `num_bytes`; raise TooLargeError if that is more than a header may have."""
        if num_bytes is None or not 0 <= num_bytes <= MOST_HEADER_BYTES:
            raise TooLargeError(f"a header claims {num_bytes:,} bytes; expected at most {MOST_HEADER_BYTES:,}")
        return self._file.read(num_bytes)

    def seek(self, place: int, whence: int = io.SEEK_SET, /) -> int:
        """Move the position."""
        return self._file.seek(place, whence)

    def tell(self) -> int:
        """Return the position."""
        return self._file.tell()


HEAD_BYTES = 64
"""First bytes of a file that show its format."""


class _Format(NamedTuple):
    begins: re.Pattern[bytes]
    problem: str
    remedy: str


_COMPRESSED = {
    "gzip": (re.escape(GZIP), "gunzip"),
    "zstd": (rb"\x28\xb5\x2f\xfd", "unzstd"),
    "bzip2": (rb"BZh[1-9]1AY&SY", "bunzip2"),
    "xz": (rb"\xfd7zXZ\x00", "unxz"),
    "lz4": (rb"\x04\x22\x4d\x18", "unlz4"),
    "zip": (rb"PK\x03\x04", "funzip"),
}
"""First bytes of compressed files by the names of the formats, with the commands that decompress them."""
_FORMATS = (
    *(
        _Format(re.compile(begins, re.DOTALL), f"is compressed by {name}", f"Decompress it: {command} < IN > OUT")
        for name, (begins, command) in _COMPRESSED.items()
    ),
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
    formats = (*_FORMATS, *[_UTF_16] * may_be_text)
    detected = next((candidate for candidate in formats if candidate.begins.match(head)), None)
    return None if detected is None else f"{detected.problem}; expected {expected}. {detected.remedy}"
