"""First rows of finished label shards."""

from collections.abc import Mapping

import pyarrow as pa
import pyarrow.parquet as pq

from raysp.sink.sinks import Sink


def first_rows(url: str, num_rows: int, storage_options: Mapping[str, object] | None = None) -> pa.Table:
    """Return the first rows of a folder of label shards; an empty table if they hold no rows.

    Raises:
        PlanError: there is no label shard, and no sink.
    """
    sink = Sink.open(url, storage_options)
    tables: list[pa.Table] = []
    for name in sink.label_shards():
        missing = num_rows - sum(table.num_rows for table in tables)
        if missing <= 0:
            break
        with sink.store.open(name) as file:
            reader = pq.ParquetFile(file)
            batch = next(reader.iter_batches(missing), None)
            tables.append(reader.schema_arrow.empty_table() if batch is None else pa.Table.from_batches([batch]))
    if not tables:
        sink.existing_record()
        return pa.table({})
    return readable(pa.concat_tables(tables, promote_options="permissive"))


def readable(table: pa.Table) -> pa.Table:
    """Return the table with invalid UTF-8 replaced, which label shards carry over but Python cannot decode."""
    for index, field in enumerate(table.schema):
        if pa.types.is_string(field.type) or pa.types.is_large_string(field.type):
            raw = table.column(index).cast(pa.large_binary()).to_pylist()
            texts = [None if one is None else one.decode(errors="replace") for one in raw]
            table = table.set_column(index, field, pa.chunked_array([pa.array(texts, field.type)]))
    return table
