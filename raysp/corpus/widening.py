"""Common types of columns whose types differ over shards, and casts to them that lose nothing."""

from typing import Any, cast

import pyarrow as pa
import pyarrow.compute as pc

Types = pa.types
_EXACT_BITS = {16: 8, 32: 16, 64: 32}
"""Widest integers of Arrow that a float holds exactly: bits of the float to bits of the integer."""
WITHOUT_TYPE = pa.string()
"""Type of stored columns whose values are all null: readers do not read nulls of type null with values of another."""


def common_type(a: pa.DataType, b: pa.DataType) -> pa.DataType | None:
    """Return the narrowest type that holds all values of two types as they are; None if there is none."""
    if a == b:
        return a
    a, b = _plain(a), _plain(b)
    try:
        schemas = [pa.schema([("a", a)]), pa.schema([("a", b)])]
        common = pa.unify_schemas(schemas, promote_options="permissive").field("a").type
    except (pa.ArrowTypeError, pa.ArrowInvalid):
        return None
    return common if _holds(common, a) and _holds(common, b) else None


def _holds(common: pa.DataType, kind: Any) -> bool:  # noqa: ANN401 - the stubs of pyarrow lack what types have
    """Return whether a type to which Arrow widens another one holds all values of that one as they are."""
    if common == kind or Types.is_null(kind):
        return True
    if Types.is_floating(common):
        is_exact = Types.is_integer(kind) and kind.bit_width <= _EXACT_BITS[common.bit_width]
        return Types.is_floating(kind) or is_exact
    if Types.is_integer(common):
        return Types.is_signed_integer(kind) or Types.is_unsigned_integer(common) or kind.bit_width < common.bit_width
    if Types.is_timestamp(common):
        return bool(cast("Any", common).unit != "ns")  # of the years 1677 to 2262 alone
    if Types.is_decimal(common):
        return Types.is_decimal(kind)
    if Types.is_binary(common) or Types.is_large_binary(common):
        return not (Types.is_string(kind) or Types.is_large_string(kind))
    children: list[Any] = [common.field(place) for place in range(common.num_fields)]
    if len(children) != kind.num_fields:
        return False
    parts = [kind.field(place) for place in range(kind.num_fields)]
    is_struct = isinstance(common, pa.StructType)
    return all(
        (child.name == part.name or not is_struct) and _holds(child.type, part.type)
        for child, part in zip(children, parts, strict=True)
    )


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
