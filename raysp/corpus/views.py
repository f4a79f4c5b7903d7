"""View types and runs of Arrow columns, which Polars and DuckDB use, replaced by types that every kernel takes.

In pyarrow 26 no view type can be taken from by row numbers, compared with a list, or sorted, and Parquet has no runs.
"""

from collections.abc import Collection, Iterator
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from raysp.corpus.pages import BATCH_BYTES
from raysp.corpus.recording_columns import is_list


def without_views(kind: pa.DataType) -> pa.DataType:
    """Return a type with strings, bytes and lists in place of views, at any depth, and values in place of runs.

    Runs in lists stay: one value of them may be as large as all rows may be together.
    """
    if isinstance(kind, pa.RunEndEncodedType):
        return without_views(kind.value_type)
    if isinstance(kind, pa.FixedShapeTensorType):  # pyarrow 26 does not join arrays of them
        return kind.storage_type
    if pa.types.is_string_view(kind):
        return pa.string()
    if pa.types.is_binary_view(kind):
        return pa.binary()
    if pa.types.is_struct(kind):
        fields = [_field(one) for one in kind]
        return kind if fields == [*kind] else pa.struct(fields)
    if not pa.types.is_struct(kind) and _holds_runs(kind):
        return kind
    if isinstance(kind, pa.MapType):
        key, item = without_views(kind.key_type), without_views(kind.item_type)
        return kind if (key, item) == (kind.key_type, kind.item_type) else pa.map_(key, item)
    if not is_list(kind):
        return kind
    nested = cast("pa.ListType[Any]", kind)
    value = _field(nested.value_field)
    if pa.types.is_list_view(kind):
        return pa.list_(value)
    if pa.types.is_large_list_view(kind):
        return pa.large_list(value)
    if pa.types.is_fixed_size_list(kind) and not kind.list_size:  # pyarrow 26 does not write them if one is null
        return pa.list_(value)
    if value.type == nested.value_type:
        return kind
    if pa.types.is_fixed_size_list(kind):
        return pa.list_(value, int(kind.list_size))
    return pa.large_list(value) if pa.types.is_large_list(kind) else pa.list_(value)


def _holds_runs(kind: pa.DataType) -> bool:
    children = (cast("Any", kind).field(index).type for index in range(kind.num_fields))
    return isinstance(kind, pa.RunEndEncodedType) or any(_holds_runs(one) for one in children)


def _field(field: "pa.Field[Any]") -> "pa.Field[Any]":
    return field.with_type(without_views(field.type))


def schema_without_views(schema: pa.Schema) -> pa.Schema:
    """Return a schema whose columns have no views; the same one if there are none."""
    fields = [_field(one) for one in schema]
    return schema if fields == [*schema] else pa.schema(fields)


VIEW_BYTES = 16
"""Bytes of a view of a string, without the string."""


def is_view(kind: pa.DataType) -> bool:
    """Return whether an array of a type refers to strings that others of its values may share."""
    return bool(pa.types.is_string_view(kind) or pa.types.is_binary_view(kind))


def _is_list_view(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list_view(kind) or pa.types.is_large_list_view(kind))


def parts_of(batch: pa.RecordBatch, except_for: Collection[str] = ()) -> Iterator[pa.RecordBatch]:
    """Yield the rows of a batch in parts of which each takes at most `BATCH_BYTES` without views."""
    columns = zip(batch.schema.names, batch.columns, strict=True)
    most = max((_most_bytes_a_row(column) for name, column in columns if name not in except_for), default=0)
    num_rows = max(1, BATCH_BYTES // max(1, most))
    for row in range(0, max(1, batch.num_rows), num_rows):
        yield batch.slice(row, num_rows)


def _most_bytes_a_row(array: "pa.Array[Any]") -> int:
    """Return the most bytes of a row without views: those of all values to which its views refer."""
    if isinstance(array, pa.StructArray):
        return max((_most_bytes_a_row(array.field(index)) for index in range(array.type.num_fields)), default=0)
    is_shared = is_view(array.type) or _is_list_view(array.type) or isinstance(array, pa.RunEndEncodedArray)
    return sum(one.size for one in array.buffers() if one) if is_shared else 0


def table_without_views(table: pa.Table, except_for: Collection[str] = ()) -> pa.Table:
    """Return a table whose columns have no views, `except_for` some; the same one if there are none."""
    for place, field in enumerate(table.schema):
        kind = without_views(field.type)
        if kind != field.type and field.name not in except_for:
            chunks = [_converted(chunk, kind) for chunk in table.column(place).chunks]
            table = table.set_column(place, field.with_type(kind), cast("Any", pa.chunked_array)(chunks, kind))
    return table


def _converted(array: Any, kind: Any) -> "pa.Array[Any]":  # noqa: ANN401 - an array of any type
    """Return an array as another type, which differs in views alone."""
    if array.type == kind:
        return cast("pa.Array[Any]", array)
    if isinstance(array, pa.RunEndEncodedArray):
        return _converted(cast("Any", pc).run_end_decode(array), kind)
    if isinstance(array, pa.FixedShapeTensorArray):
        return cast("pa.Array[Any]", array.storage)
    if isinstance(array, pa.StructArray):
        fields = [_converted(array.field(index), field.type) for index, field in enumerate(kind)]
        return _made(pa.StructArray, fields, fields=[*kind], mask=array.is_null())
    if isinstance(array, pa.MapArray):
        return _converted_map(array, kind)
    if pa.types.is_fixed_size_list(kind):
        held = _converted(
            array.values.slice(array.offset * kind.list_size, len(array) * kind.list_size), kind.value_type
        )
        return _made(pa.FixedSizeListArray, held, type=kind, mask=array.is_null())
    if not is_list(kind):
        return cast("pa.Array[Any]", array.cast(kind))
    return _converted_lists(array, kind)


def _converted_lists(array: Any, kind: Any) -> "pa.Array[Any]":  # noqa: ANN401 - an array of any type of lists
    """Return lists as another type, rebuilt from their lengths.

    pyarrow 26 casts views of lists to lists without the end of the last one, which then has arbitrary values.
    """
    lengths = np.asarray(pc.list_value_length(array).to_numpy(zero_copy_only=False))
    ends = np.cumsum(np.nan_to_num(lengths), dtype=np.int64)
    of = (pa.LargeListArray, pa.int64()) if pa.types.is_large_list(kind) else (pa.ListArray, pa.int32())
    offsets = pa.array(np.concatenate(([0], ends)), of[1])
    return _made(of[0], offsets, _converted(array.flatten(), kind.value_type), type=kind, mask=array.is_null())


def _converted_map(array: Any, kind: Any) -> "pa.Array[Any]":  # noqa: ANN401 - an array of any type of maps
    offsets = array.offsets.to_numpy()
    first, number = offsets[0], offsets[-1] - offsets[0]
    key = _converted(array.keys.slice(first, number), kind.key_type)
    item = _converted(array.items.slice(first, number), kind.item_type)
    return _made(pa.MapArray, pa.array(offsets - first), key, item, type=kind, mask=array.is_null())


def _made(of: Any, *parts: object, **options: object) -> "pa.Array[Any]":  # noqa: ANN401 - the stubs lack `mask`
    return cast("pa.Array[Any]", of.from_arrays(*parts, **options))
