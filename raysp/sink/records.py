"""JSON records of a sink as typed values: every value is checked before a record is used.

A record is a dataclass, whose fields say which values they take: no others, and none of another type. Integers are
counts, positions and sizes, hence not negative and of 64 bits. Numbers are finite, unless they are `AnyFloat`.
"""

import math
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from typing import Annotated, Any, Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from raysp import bounds
from raysp.specs.values import JsonValue

T = TypeVar("T")
AnyFloat = Annotated[float, math.isnan]
"""A number that may be NaN or infinite, such as the loss of a training that diverges."""
_MOST = 2**63 - 1


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
    return cast("T", _reader(cast("Any", kind))(value))


_Reader = Callable[[Any], Any]


@cache
def _reader(kind: Any) -> _Reader:  # noqa: ANN401 - a type
    """Return a function that returns a value of a type from its JSON, or raises ValueError."""
    origin, arguments = get_origin(kind), get_args(kind)
    if is_dataclass(kind):
        return _record(kind)
    if kind in _SCALARS:
        return _SCALARS[kind]
    if origin in (Union, types.UnionType):
        is_json = any(get_origin(one) is dict for one in arguments)  # `JsonValue`
        return _as_is if is_json else _either([_reader(one) for one in arguments])
    if origin is Literal:
        return _literal(arguments)
    if origin in (dict, Mapping):
        return _mapping(_reader(arguments[1]))
    if origin is tuple and Ellipsis not in arguments:
        return _row([_reader(one) for one in arguments])
    return _sequence(_reader(arguments[0]), tuple if origin in (tuple, Sequence) else origin)


def _record(kind: Any) -> _Reader:  # noqa: ANN401 - a dataclass
    def read(value: Any) -> Any:  # noqa: ANN401
        readers, needed = _fields(kind)
        values, name = {}, ""
        try:
            for name, item in _object(value).items():
                values[name] = readers[name](item)
        except KeyError:
            raise ValueError(f"{bounds.plain(name)}: no such field") from None
        except ValueError as error:
            raise ValueError(f"{name}: {error}" if name else str(error)) from None
        if missing := [name for name in needed if name not in values]:
            raise ValueError(f"lacks {', '.join(missing)}")
        return kind(**values)

    return read


@cache
def _fields(kind: Any) -> tuple[Mapping[str, _Reader], Sequence[str]]:  # noqa: ANN401 - a dataclass
    """Return the readers of the fields of a dataclass, and those that a record has to have.

    They are made when the first record is read, since a field may hold records of the same dataclass.
    """
    hints = get_type_hints(kind, include_extras=True)
    readers = {field.name: _reader(hints[field.name]) for field in fields(kind)}
    return readers, [one.name for one in fields(kind) if one.default is MISSING and one.default_factory is MISSING]


def _mapping(reader: _Reader) -> _Reader:
    return lambda value: {_text(name): _at(name, reader, item) for name, item in _object(value).items()}


def _sequence(reader: _Reader, kind: Callable[[Iterable[Any]], Any]) -> _Reader:
    return lambda value: kind(_at(str(place), reader, item) for place, item in enumerate(_list(value)))


def _row(readers: Sequence[_Reader]) -> _Reader:
    def read(value: Any) -> Any:  # noqa: ANN401
        if len(_list(value)) != len(readers):
            raise ValueError(f"found {bounds.shortened(value)}, expected {len(readers)} values")
        return tuple(reader(item) for reader, item in zip(readers, value, strict=True))

    return read


def _either(readers: Sequence[_Reader]) -> _Reader:
    *others, last = readers

    def read(value: Any) -> Any:  # noqa: ANN401
        for reader in others:
            try:
                return reader(value)
            except ValueError:
                continue
        return last(value)

    return read


def _literal(values: Sequence[object]) -> _Reader:
    def read(value: object) -> object:
        if not any(value == one and type(value) is type(one) for one in values):
            raise _unexpected(value, f"one of {', '.join(map(repr, values))}")
        return value

    return read


def _at(name: str, reader: _Reader, value: Any) -> Any:  # noqa: ANN401
    try:
        return reader(value)
    except ValueError as error:
        raise ValueError(f"{bounds.plain(name)}: {error}") from None


def _unexpected(value: object, expected: str) -> ValueError:
    return ValueError(f"found {bounds.shortened(value)}, expected {expected}")


def _as_is(value: object) -> object:
    return value


def _object(value: Any) -> Mapping[str, Any]:  # noqa: ANN401
    if not isinstance(value, dict):
        raise _unexpected(value, "an object")
    return value


def _list(value: Any) -> Sequence[Any]:  # noqa: ANN401
    if not isinstance(value, list | tuple):  # a tuple: of `dataclasses.asdict`
        raise _unexpected(value, "a list")
    return value


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise _unexpected(value, "text")
    # Lone surrogates, which JSON can hold, cannot be printed.
    return value if value.isascii() else value.encode(errors="replace").decode()


def _integer(value: object) -> int:
    if type(value) is not int or not 0 <= value <= _MOST:
        raise _unexpected(value, "an integer of at most 64 bits, not negative")
    return value


def _number(value: object) -> float:
    if type(value) not in (int, float) or not -_MOST <= value <= _MOST:  # type: ignore[operator]
        raise _unexpected(value, "a number")
    return value  # type: ignore[return-value]


def _any_number(value: object) -> float:
    return value if type(value) is float else _number(value)


def _boolean(value: object) -> bool:
    if not isinstance(value, bool):
        raise _unexpected(value, "true or false")
    return value


def _null(value: object) -> None:
    if value is not None:
        raise _unexpected(value, "null")


_SCALARS: Mapping[Any, _Reader] = {
    str: _text,
    int: _integer,
    float: _number,
    AnyFloat: _any_number,
    bool: _boolean,
    type(None): _null,
    object: _as_is,
    JsonValue: _as_is,
}
