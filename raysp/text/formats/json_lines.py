"""Lines of JSON."""

import base64
import json
import math
from collections.abc import Mapping, Sequence

from raysp.text.formats.cleaning import valid

_LINE_ENDS = {"\u2028": "\\u2028", "\u2029": "\\u2029", "\x85": "\\u0085"}
"""Characters that some readers take for the end of a line, although JSON allows them in a text."""


def json_line(values: Mapping[str, object]) -> str:
    """Return an object as one line of JSON.

    Numbers that are not finite are null, bytes are Base64, lone surrogates are U+FFFD, and values without a form in
    JSON, such as dates, are texts.
    """
    line = json.dumps(plain(values), ensure_ascii=False, allow_nan=False)
    for character, escape in _LINE_ENDS.items():
        line = line.replace(character, escape)
    return f"{line}\n"


def plain(value: object) -> object:
    """Return a value of the types that JSON has, as `json_line` writes it."""
    if isinstance(value, str):
        return valid(value)
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {valid(str(key)): plain(one) for key, one in value.items()}
    if isinstance(value, bytes | bytearray | memoryview):
        return base64.b64encode(value).decode()
    if isinstance(value, Sequence):
        return [plain(one) for one in value]
    return valid(str(value))
