"""First rows of finished label shards."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from raysp import bounds
from raysp.columns import OK, STATUS
from raysp.sink.label_rows import read_file
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
        PlanError: there is no label shard, and no sink; or a file in the place of one is damaged.
        StoreError: a label shard is damaged, or cannot be read.
    """
    sink = Sink.open(url, storage_options)
    tables: list[pa.Table] = []
    for name in sink.label_shards() if names is None else names:
        missing = num_rows - sum(table.num_rows for table in tables)
        if missing <= 0:
            break
        read = read_file(sink.store, name, bounds.MOST_SHARD_ROWS, most_rows=ROWS_A_BATCH)
        tables.append(
            pa.concat_tables(
                _first((table.filter(pc.equal(table.column(STATUS), pa.scalar(OK))) for table in read), missing)
            ).unify_dictionaries()
        )
    if not tables:
        sink.existing_record()
        return pa.table({})
    return readable(pa.concat_tables(tables, promote_options="permissive"))


def _first(tables: Iterable[pa.Table], num_rows: int) -> Iterator[pa.Table]:
    for table in tables:
        yield table.slice(0, num_rows)
        num_rows -= table.num_rows
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
