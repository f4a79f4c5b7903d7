"""Types of columns by their names, as specs store them and pyarrow prints them, such as "list<item: string>".

Specs import this module on use, since most pipelines are made without pyarrow.
"""

import re
from collections.abc import Iterator
from typing import Any, cast

import pyarrow as pa

EXAMPLES = '"float32", "int64", "string", "bool", "list<float32>" or "struct<low: float32, high: float32>"'


def type_name(kind: object) -> str:
    """Return the name of a type, the same for all spellings of it.

    Args:
        kind: a name, such as "float32", or a `pyarrow.DataType`.

    Raises:
        ValueError: there is no such type, or its name does not describe it completely.
    """
    if isinstance(kind, str):
        return str(parse_type(kind))
    if not isinstance(kind, pa.DataType):
        raise ValueError(f"found {kind!r} as a type, expected a name, such as {EXAMPLES}, or a pyarrow type")
    name = str(kind)
    if parse_type(name) != kind:
        raise ValueError(f"{name!r} is not a type that its name describes; expected one such as {EXAMPLES}")
    return name


def holds_strings(kind: pa.DataType) -> bool:
    """Return whether a type holds strings or nulls alone, also as a dictionary."""
    value_type = kind.value_type if isinstance(kind, pa.DictionaryType) else kind
    of_strings = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view, pa.types.is_null)
    return any(fits(value_type) for fits in of_strings)


def parse_type(name: str) -> pa.DataType:
    """Return the type of a name.

    Raises:
        ValueError: there is no such type.
    """
    name = name.strip()
    if match := re.fullmatch(r"(large_)?list<(.+)>", name):
        item = _field(match[2], "item")
        return pa.large_list(item) if match[1] else pa.list_(item)
    if match := re.fullmatch(r"fixed_size_list<(.+)>\[(\d+)\]", name):
        return pa.list_(_field(match[1], "item"), int(match[2]))
    if match := re.fullmatch(r"struct<(.+)>", name):
        return pa.struct([_field(part, "") for part in _parts(match[1])])
    if match := re.fullmatch(r"timestamp\[(s|ms|us|ns), tz=([^\]]+)\]", name):
        return pa.timestamp(cast("Any", match[1]), match[2])
    try:
        return cast("pa.DataType", pa.type_for_alias(cast("Any", name)))
    except ValueError:
        raise ValueError(f"{name!r} is not the name of a type; expected one such as {EXAMPLES}") from None


def _field(text: str, default: str) -> "pa.Field[pa.DataType]":
    """Return the field of `name: type`, or of a type alone if there is a default for the name."""
    name, colon, kind = text.strip().partition(":")
    if colon and "<" not in name and "[" not in name:
        return pa.field(name.strip(), parse_type(kind))
    if not default:
        raise ValueError(f"{text!r} is not a field of a struct; expected 'name: type'")
    return pa.field(default, parse_type(text))


def _parts(text: str) -> Iterator[str]:
    """Yield the parts of a text between commas outside brackets."""
    depth = first = 0
    for place, character in enumerate(text):
        depth += (character in "<[") - (character in ">]")
        if character == "," and depth == 0:
            yield text[first:place]
            first = place + 1
    yield text[first:]
