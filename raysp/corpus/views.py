"""View types of Arrow columns, which writers of Polars and DuckDB use, replaced by types that every kernel takes.

In pyarrow 26 no view type can be taken from by row numbers, compared with a list, or sorted.
"""

from collections.abc import Collection, Iterator, Sequence
from typing import Any, cast

import pyarrow as pa

from raysp.corpus.pages import BATCH_BYTES


def without_views(kind: pa.DataType) -> pa.DataType:
    """Return a type with strings, bytes and lists in place of views, at any depth."""
    if pa.types.is_string_view(kind):
        return pa.string()
    if pa.types.is_binary_view(kind):
        return pa.binary()
    if pa.types.is_struct(kind):
        fields = [_field(one) for one in kind]
        return kind if _is_equal(fields, [*kind]) else pa.struct(fields)
    if isinstance(kind, pa.MapType):
        key, item = without_views(kind.key_type), without_views(kind.item_type)
        return kind if (key, item) == (kind.key_type, kind.item_type) else pa.map_(key, item)
    if not _is_list(kind):
        return kind
    nested = cast("pa.ListType[Any]", kind)
    value = _field(nested.value_field)
    if pa.types.is_list_view(kind):
        return pa.list_(value)
    if pa.types.is_large_list_view(kind):
        return pa.large_list(value)
    if value.type == nested.value_type:
        return kind
    if pa.types.is_fixed_size_list(kind):
        return pa.list_(value, int(kind.list_size))
    return pa.large_list(value) if pa.types.is_large_list(kind) else pa.list_(value)


def _is_list(kind: pa.DataType) -> bool:
    tests = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    return any(fits(kind) for fits in (*tests, pa.types.is_list_view, pa.types.is_large_list_view))


def _is_equal(a: "Sequence[pa.Field[Any]]", b: "Sequence[pa.Field[Any]]") -> bool:
    return all(one.type == other.type for one, other in zip(a, b, strict=True))


def _field(field: "pa.Field[Any]") -> "pa.Field[Any]":
    return field.with_type(without_views(field.type))


def schema_without_views(schema: pa.Schema) -> pa.Schema:
    """Return a schema whose columns have no views; the same one if there are none."""
    fields = [_field(one) for one in schema]
    return schema if _is_equal(fields, [*schema]) else pa.schema(fields)


VIEW_BYTES = 16
"""Bytes of a view of a string, without the string."""


def is_view(kind: pa.DataType) -> bool:
    """Return whether an array of a type refers to strings that others of its values may share."""
    return bool(pa.types.is_string_view(kind) or pa.types.is_binary_view(kind))


def parts_of(batch: pa.RecordBatch, except_for: Collection[str] = ()) -> Iterator[pa.RecordBatch]:
    """Yield the rows of a batch in parts of which each takes at most `BATCH_BYTES` without views."""
    views = (
        column
        for name, column in zip(batch.schema.names, batch.columns, strict=True)
        if name not in except_for and is_view(column.type)
    )
    most = max((sum(one.size for one in column.buffers() if one) for column in views), default=0)
    num_rows = max(1, BATCH_BYTES // max(1, most))
    for row in range(0, max(1, batch.num_rows), num_rows):
        yield batch.slice(row, num_rows)


def table_without_views(table: pa.Table, except_for: Collection[str] = ()) -> pa.Table:
    """Return a table whose columns have no views, `except_for` some; the same one if there are none."""
    for place, field in enumerate(table.schema):
        kind = without_views(field.type)
        if kind != field.type and field.name not in except_for:
            table = table.set_column(place, field.with_type(kind), table.column(place).cast(kind))
    return table
