"""Common types of columns whose types differ over shards, and casts to them that lose nothing."""

from typing import Any, cast

import pyarrow as pa
import pyarrow.compute as pc

Types = pa.types
_UNITS = ("s", "ms", "us", "ns")
_SIGNED = (pa.int8(), pa.int16(), pa.int32(), pa.int64())
_FLOATS = (pa.float16(), pa.float32(), pa.float64())
_EXACT_BITS = {16: 8, 32: 16, 64: 32}
"""Widest integers of Arrow that a float holds exactly: bits of the float to bits of the integer."""
WITHOUT_TYPE = pa.string()
"""Type of stored columns whose values are all null: readers do not read nulls of type null with values of another."""


def common_type(a: pa.DataType, b: pa.DataType) -> pa.DataType | None:
    """Return the narrowest type that holds all values of two types as they are; None if there is none."""
    if a == b:
        return a
    a, b = _plain(a), _plain(b)
    if a == b or Types.is_null(b):
        return a
    if Types.is_null(a):
        return b
    for rule in (_numbers, _texts, _times, _decimals, _lists, _structs):
        if (found := rule(a, b)) is not None:
            return found
    return None


def common_type_in_json(a: pa.DataType, b: pa.DataType) -> pa.DataType | None:
    """Return the common type of two columns of JSON values: as within one shard, numbers are floats, others text."""
    if (found := common_type(a, b)) is not None:
        return found
    of_json = (Types.is_integer, Types.is_floating, Types.is_boolean, Types.is_string)
    if not all(any(fits(kind) for fits in of_json) for kind in (a, b)):
        return None
    return pa.float64() if all(_is_number(kind) for kind in (a, b)) else pa.string()


def cast_column(column: "pa.ChunkedArray[Any]", kind: pa.DataType) -> "pa.ChunkedArray[Any]":
    """Return a column with another type.

    Raises:
        ArrowInvalid: a value does not fit.
    """
    if column.type == kind:
        return column
    if not len(column) or Types.is_null(column.type):
        return pa.chunked_array([_nulls(len(column), kind)])
    if isinstance(column.type, pa.BaseExtensionType):
        chunks: list[Any] = [cast("pa.ExtensionArray[Any]", chunk).storage for chunk in column.chunks]
        column = pa.chunked_array(chunks)
    return cast("pa.ChunkedArray[Any]", pc.cast(column, kind))


def _nulls(num_rows: int, kind: pa.DataType) -> Any:  # noqa: ANN401 - the stubs know only types that are literal
    return cast("Any", pa.nulls)(num_rows, kind)


def _plain(kind: pa.DataType) -> pa.DataType:
    """Return the type of the values of a dictionary, and the storage of an extension type."""
    if isinstance(kind, pa.DictionaryType):
        return cast("pa.DataType", kind.value_type)
    return kind.storage_type if isinstance(kind, pa.BaseExtensionType) else kind


def _is_number(kind: pa.DataType) -> bool:
    return Types.is_integer(kind) or Types.is_floating(kind)


def _numbers(a: pa.DataType, b: pa.DataType) -> pa.DataType | None:
    if not (_is_number(a) and _is_number(b)):
        return None
    if Types.is_floating(a) and Types.is_floating(b):
        return max(a, b, key=_FLOATS.index)
    if Types.is_integer(a) and Types.is_integer(b):
        if Types.is_signed_integer(a) == Types.is_signed_integer(b):
            return a if a.bit_width >= b.bit_width else b
        signed, unsigned = (a, b) if Types.is_signed_integer(a) else (b, a)
        return next((one for one in _SIGNED if one.bit_width >= max(signed.bit_width, 2 * unsigned.bit_width)), None)
    number, whole = (a, b) if Types.is_floating(a) else (b, a)
    wide = (one for one in _FLOATS if one.bit_width >= number.bit_width)
    return next((one for one in wide if _EXACT_BITS[one.bit_width] >= whole.bit_width), None)


def _texts(a: pa.DataType, b: pa.DataType) -> pa.DataType | None:
    strings, kinds = (pa.string(), pa.large_string()), (a, b)
    if all(kind in strings for kind in kinds):
        return pa.large_string()
    if not all(_is_bytes(kind) for kind in kinds):
        return None
    return pa.large_binary() if pa.large_binary() in kinds else pa.binary()


def _is_bytes(kind: pa.DataType) -> bool:
    return kind in (pa.binary(), pa.large_binary()) or Types.is_fixed_size_binary(kind)


def _times(a: pa.DataType, b: pa.DataType) -> pa.DataType | None:
    if isinstance(a, pa.TimestampType) and isinstance(b, pa.TimestampType):
        return pa.timestamp(_finer(a, b), a.tz) if a.tz == b.tz else None
    if isinstance(a, pa.DurationType) and isinstance(b, pa.DurationType):
        return pa.duration(_finer(a, b))
    if Types.is_time(a) and Types.is_time(b):
        unit = _finer(a, b)
        return pa.time32(unit) if unit in ("s", "ms") else pa.time64(unit)
    return pa.date64() if Types.is_date(a) and Types.is_date(b) else None


def _finer(a: Any, b: Any) -> Any:  # noqa: ANN401 - the unit of any of four types
    return max(a.unit, b.unit, key=_UNITS.index)


def _decimals(a: pa.DataType, b: pa.DataType) -> pa.DataType | None:
    if not (Types.is_decimal(a) and Types.is_decimal(b)):
        return None
    one, other = cast("pa.Decimal128Type[Any, Any]", a), cast("pa.Decimal128Type[Any, Any]", b)
    scale = max(one.scale, other.scale)
    digits = max(one.precision - one.scale, other.precision - other.scale) + scale
    if digits > 76:
        return None
    return pa.decimal128(digits, scale) if digits <= 38 else pa.decimal256(digits, scale)


def _lists(a: pa.DataType, b: pa.DataType) -> pa.DataType | None:
    if isinstance(a, pa.MapType) and isinstance(b, pa.MapType):
        key, item = common_type(a.key_type, b.key_type), common_type(a.item_type, b.item_type)
        return pa.map_(key, item) if key is not None and item is not None else None
    if not (_is_list(a) and _is_list(b)):
        return None
    value = common_type(cast("pa.ListType[Any]", a).value_type, cast("pa.ListType[Any]", b).value_type)
    if value is None:
        return None
    if isinstance(a, pa.FixedSizeListType) and isinstance(b, pa.FixedSizeListType) and a.list_size == b.list_size:
        return cast("pa.DataType", pa.list_(value, int(a.list_size)))
    return pa.large_list(value) if Types.is_large_list(a) or Types.is_large_list(b) else pa.list_(value)


def _is_list(kind: pa.DataType) -> bool:
    return Types.is_list(kind) or Types.is_large_list(kind) or Types.is_fixed_size_list(kind)


def _structs(a: pa.DataType, b: pa.DataType) -> pa.DataType | None:
    if not (isinstance(a, pa.StructType) and isinstance(b, pa.StructType)):
        return None
    if [one.name for one in a] != [one.name for one in b]:
        return None
    kinds = [(one.name, common_type(one.type, other.type)) for one, other in zip(a, b, strict=True)]
    known = [(name, kind) for name, kind in kinds if kind is not None]
    return pa.struct(known) if len(known) == len(kinds) else None
