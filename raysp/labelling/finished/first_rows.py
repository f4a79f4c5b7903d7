"""First rows of finished label shards."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from raysp.columns import OK
from raysp.corpus.pages import PagedFile
from raysp.sink.sinks import Sink

ROWS_A_BATCH = 256
"""Rows that are read at once, until enough of them are ok."""


def first_rows(
    url: str,
    num_rows: int,
    storage_options: Mapping[str, object] | None = None,
    *,
    names: Sequence[str] | None = None,
) -> pa.Table:
    """Return the first rows of label shards that are ok; an empty table if none are.

    Args:
        url: the folder of the label shards.
        num_rows: rows to return at most.
        storage_options: options to reach it.
        names: label shards to read; None: all.

    Raises:
        PlanError: there is no label shard, and no sink.
    """
    sink = Sink.open(url, storage_options)
    tables: list[pa.Table] = []
    for name in sink.label_shards() if names is None else names:
        missing = num_rows - sum(table.num_rows for table in tables)
        if missing <= 0:
            break
        with sink.store.open(name) as file:
            reader = PagedFile(file)
            groups = range(reader.metadata.num_row_groups)
            batches = chain.from_iterable(reader.batches(group, ROWS_A_BATCH) for group in groups)
            tables.append(pa.Table.from_batches([*_first(map(_ok, batches), missing)], reader.schema))
    if not tables:
        sink.existing_record()
        return pa.table({})
    return readable(pa.concat_tables(tables, promote_options="permissive"))


def _ok(batch: pa.RecordBatch) -> pa.RecordBatch:
    place = batch.schema.get_field_index("status")
    return batch if place < 0 else batch.filter(pc.equal(batch.column(place), pa.scalar(OK)))


def _first(batches: Iterable[pa.RecordBatch], num_rows: int) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        yield batch.slice(0, num_rows)
        num_rows -= batch.num_rows
        if num_rows <= 0:
            return


def readable(table: pa.Table) -> pa.Table:
    """Return the table with invalid UTF-8 replaced, which label shards carry over but Python cannot decode.

    Texts within lists, structs and dictionaries are replaced too; of such a column a dictionary becomes its values.
    """
    for index, field in enumerate(table.schema):
        column = table.column(index)
        if _is_valid(column):
            continue
        raw = column.cast(_as(pa.large_binary(), field.type))
        values = [_decoded(one.as_py(), field.type) for one in raw]
        kind = _as(None, field.type)
        table = table.set_column(index, field.with_type(kind), pa.chunked_array([pa.array(values, kind)]))
    return table


def _is_valid(column: "pa.ChunkedArray[Any]") -> bool:
    try:
        column.validate(full=True)
    except pa.ArrowInvalid:
        return False
    return True


def _as(text: pa.DataType | None, kind: Any) -> Any:  # noqa: ANN401 - the stubs of pyarrow lack what types have
    """Return a type in which dictionaries are their values, and texts another type, if one is given."""
    if _is_text(kind):
        return text or kind
    if pa.types.is_dictionary(kind):
        return _as(text, kind.value_type)
    if pa.types.is_struct(kind):
        return pa.struct([field.with_type(_as(text, field.type)) for field in kind])
    if pa.types.is_map(kind):
        return pa.map_(_as(text, kind.key_type), _as(text, kind.item_type))
    if pa.types.is_fixed_size_list(kind):
        return pa.list_(_as(text, kind.value_type), kind.list_size)
    if pa.types.is_large_list(kind):
        return pa.large_list(_as(text, kind.value_type))
    return pa.list_(_as(text, kind.value_type)) if pa.types.is_list(kind) else kind


def _decoded(value: Any, kind: Any) -> object:  # noqa: ANN401 - a value of any column
    """Return a value whose texts are bytes with texts in their place."""
    if value is None:
        return None
    if _is_text(kind):
        return value.decode(errors="replace")
    if pa.types.is_dictionary(kind):
        return _decoded(value, kind.value_type)
    if pa.types.is_struct(kind):
        return {field.name: _decoded(value[field.name], field.type) for field in kind}
    if pa.types.is_map(kind):
        return [(_decoded(key, kind.key_type), _decoded(item, kind.item_type)) for key, item in value]
    return [_decoded(one, kind.value_type) for one in value] if isinstance(value, list) else value


def _is_text(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
