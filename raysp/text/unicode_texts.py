"""Texts of rows: whether files, values of JSON and columns hold text of Unicode, and why not."""

import json
from typing import Any

import pyarrow as pa

_UTF16 = (b"\xff\xfe", b"\xfe\xff")
"""Byte order marks of UTF-16."""
_OF_TEXT = (pa.types.is_string, pa.types.is_large_string)
_ENCODED = (pa.DictionaryType, pa.RunEndEncodedType)
_OF_BYTES = (pa.types.is_binary, pa.types.is_large_binary)


def plain_text(raw: bytes) -> str:
    """Return the text of a file in UTF-8, or in UTF-16 with a byte order mark.

    Raises:
        ValueError: it is in another encoding.
    """
    try:
        return raw.decode("utf-16" if raw[:2] in _UTF16 else "utf-8-sig").strip("\r\n")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"has {raw[error.start : error.start + 1]!r} at byte {error.start:,}; expected UTF-8, or UTF-16 with a "
            "byte order mark: convert it, such as by iconv -f latin1 -t utf-8"
        ) from None


def json_text(value: object) -> str:
    """Return a value as JSON, which holds lone surrogates by their escapes."""
    text = json.dumps(value, ensure_ascii=False)
    return text if is_unicode(text) else json.dumps(value)


def is_unicode(text: str) -> bool:
    """Return whether a text has no lone surrogates, which JSON can write and UTF-8 cannot."""
    try:
        return text.isascii() or bool(text.encode())
    except UnicodeEncodeError:
        return False


def storable(name: str) -> str:
    """Return the name of a column, id or file with its lone surrogates replaced by their escapes in JSON."""
    return name.encode("utf-8", "backslashreplace").decode()


def fault_of(name: str, value: object) -> str | None:
    """Return why a value of a JSON object is no text; None if it is one, or no string."""
    if not isinstance(value, str) or is_unicode(value):
        return None
    wrong = next(one for one in value if not is_unicode(one))
    return f"{storable(name)!r} has the lone surrogate {wrong!a}; expected text of Unicode: write the row again"


def readable(
    column: "pa.ChunkedArray[Any]", name: str, *, is_text: bool = False
) -> tuple["pa.ChunkedArray[Any]", list[str | None]]:
    """Return a column with null in the place of texts that are no UTF-8, and why for each row; empty if all are.

    Args:
        column: the column.
        name: its name for messages.
        is_text: whether bytes are texts as well.
    """
    kind = column.type.value_type if isinstance(column.type, _ENCODED) else column.type
    if not any(fits(kind) for fits in (*_OF_TEXT, *(_OF_BYTES if is_text else ()))):
        return column, []
    raw = column.cast(kind).cast(pa.large_binary())
    try:
        raw.cast(pa.large_string())
    except pa.ArrowInvalid:
        values = raw.to_pylist()
        faults = [_fault(name, value) for value in values]
        kept = [value if fault is None else None for value, fault in zip(values, faults, strict=True)]
        return pa.chunked_array([pa.array(kept, pa.large_binary())]).cast(kind), faults
    return column, []


def _fault(name: str, value: bytes | None) -> str | None:
    try:
        (value or b"").decode()
    except UnicodeDecodeError as error:
        wrong = error.object[error.start : error.start + 1]
        return f"column {name!r} has {wrong!r} at byte {error.start:,}; expected UTF-8: write the row again"
    return None
