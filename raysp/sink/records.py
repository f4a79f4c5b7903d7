"""JSON records of a sink as typed values: every value is checked before a record is used.

A record is a dataclass, whose fields define the allowed values and types. Numbers are finite, unless they are
`AnyFloat`.
"""

import json
from functools import cache
from typing import Annotated, Any, TypeVar, cast

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from raysp import bounds

T = TypeVar("T")
Natural = Annotated[int, Field(ge=0, lt=2**63)]
"""A count, a position or a size."""
AnyFloat = Annotated[float, Field(allow_inf_nan=True)]
"""A number that may be NaN or infinite, such as the loss of a training that diverges."""


def parse(data: bytes | str, kind: type[T]) -> T:
    """Return the value of a JSON record.

    Args:
        data: the JSON text.
        kind: a dataclass, or a type of its fields such as `list[str]`.

    Raises:
        ValueError: it is not JSON, or a value in it is of another type; the message has its place.
    """
    return checked(bounds.parse_record(data), kind)


def checked(value: object, kind: type[T]) -> T:
    """Return the value of a JSON record that is parsed already, or of `dataclasses.asdict`; see `parse`."""
    # Lone surrogates, which JSON can hold, cannot be printed.
    data = json.dumps([value], ensure_ascii=False).encode(errors="replace")
    try:
        return cast("T", _adapter(cast("Any", kind)).validate_json(data)[0])
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        *place, name = [bounds.plain(part) for part in first["loc"][1:]] or [""]
        expected = first["msg"].replace("Input should be", "expected")
        words = {"missing": f"lacks {name}", "unexpected_keyword_argument": f"{name}: no such field"}
        mismatch = f"{name}: found {bounds.shortened(first['input'])}, {expected}".removeprefix(": ")
        raise ValueError(": ".join([*place, words.get(first["type"], mismatch)])) from None


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:  # noqa: ANN401 - a type
    # In a tuple, since pydantic takes no configuration for a dataclass itself.
    return TypeAdapter(tuple[kind], config=ConfigDict(strict=True, extra="forbid", allow_inf_nan=False))
