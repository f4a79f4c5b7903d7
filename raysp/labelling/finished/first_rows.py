"""First rows of finished label shards."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from raysp.columns import OK, STATUS
from raysp.sink.label_rows import read_file
from raysp.sink.sinks import Sink

ROWS_A_BATCH = 256
"""Rows that are read at once, until enough of them are ok."""


def first_rows(
    url: str, num_rows: int, storage_options: Mapping[str, object] | None = None, *, names: Sequence[str] | None = None
) -> pa.Table:
    """Return the first rows of label shards that are ok; an empty table if none are.

    Args:
        url: the folder of the label shards.
        num_rows: rows to return at most.
        storage_options: options to reach it.
        names: label shards to read; None: all.

    Raises:
        PlanError: there is no label shard, and no sink; or a file in the place of one is damaged.
        StoreError: a label shard is damaged, or cannot be read.
    """
    sink = Sink.open(url, storage_options)
    tables: list[pa.Table] = []
    for table in _ok_rows(sink, names):
        tables.append(table.slice(0, num_rows))
        num_rows -= table.num_rows
        if num_rows <= 0:
            break
    if not tables:
        sink.existing_record()
        return pa.table({})
    return readable(pa.concat_tables(tables, promote_options="permissive").unify_dictionaries())


def _ok_rows(sink: Sink, names: Sequence[str] | None) -> Iterator[pa.Table]:
    for name in sink.label_shards() if names is None else names:
        for table in read_file(sink.store, name, None, most_rows=ROWS_A_BATCH):
            yield table.filter(pc.equal(table.column(STATUS), pa.scalar(OK)))


def readable(table: pa.Table) -> pa.Table:
    """Return the table with invalid UTF-8 replaced, which label shards carry over but Python cannot decode.

    Texts within lists, maps, structs and dictionaries are replaced too.
    """
    for index, field in enumerate(table.schema):
        column = table.column(index)
        try:
            column.validate(full=True)
        except pa.ArrowInvalid:
            table = table.set_column(index, field, pa.chunked_array([_readable(chunk) for chunk in column.chunks]))
    return table


def _readable(array: Any) -> Any:  # noqa: ANN401 - the stubs of pyarrow lack what arrays have
    """Return an array with invalid UTF-8 replaced."""
    kind = array.type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        values = array.cast(pa.large_binary()).to_pylist()
        return pa.array([None if value is None else value.decode(errors="replace") for value in values], kind)
    if pa.types.is_dictionary(kind):
        return pa.DictionaryArray.from_arrays(array.indices, _readable(array.dictionary), ordered=kind.ordered)
    if pa.types.is_struct(kind):
        fields = [_readable(array.field(number)) for number in range(kind.num_fields)]
        return pa.StructArray.from_arrays(fields, fields=list(kind), mask=array.is_null())
    if isinstance(array, pa.ListArray | pa.LargeListArray | pa.FixedSizeListArray):  # maps are lists too
        # `values` belong to all rows of which this array is a slice.
        own_buffers = array.buffers()[: 1 if pa.types.is_fixed_size_list(kind) else 2]
        values = [_readable(array.values)]
        return pa.Array.from_buffers(kind, len(array), own_buffers, offset=array.offset, children=values)
    return array
