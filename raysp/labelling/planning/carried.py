"""Columns of the source in label shards, with one type a column for all shards of a sink."""

import base64
from collections.abc import Sequence
from functools import cache

import pyarrow as pa
import pyarrow.parquet as pq

from raysp import bounds
from raysp.corpus.parquet import SealedFile
from raysp.corpus.shards import Piece, Shard, one_line, refuse_ray_types
from raysp.corpus.sources import WITHOUT_TYPE, cast_column, common_type, common_type_in_json, read_table
from raysp.corpus.tables import schema_without_views
from raysp.errors import PlanError, ShardError
from raysp.sink import footer
from raysp.sink.run_record import RunRecord
from raysp.sink.sinks import KINDS, Sink
from raysp.specs.pipeline import Pipeline, Shards
from raysp.text.error_rates import readable

IN_JSON = frozenset({"manifest", "tar", "shar", "folder"})
"""Kinds of sources whose values are JSON or text, with types that follow the values of each shard."""
WITHOUT_VALUES = {b"raysp": b"without values"}
"""Metadata of a recorded column without values in all shards: strings once label shards hold it, of any type before."""


class CarriedTypes:
    """Types of the columns that a pipeline carries over or reads, as far as its shards were seen.

    Args:
        pipeline: the pipeline.
        recorded: types of the label shards that the sink holds.
        sink: url of the sink.
        binding: whether `recorded` may not be widened.
    """

    def __init__(self, pipeline: Pipeline, recorded: pa.Schema, sink: str, *, binding: bool) -> None:
        source = pipeline.source
        self._carried = {**({"id": source.id} if source.id else {}), **{name: name for name in pipeline.kept}}
        self._reads = frozenset(pipeline.flow.reads) - {source.audio}
        self._columns = tuple(dict.fromkeys((*self._carried.values(), *self._reads)))
        self._recorded, self._sink, self._binding = recorded, sink, binding
        self._types: dict[str, pa.DataType] = {}
        self._first: dict[str, str] = {}
        self._widened: dict[str, tuple[pa.DataType, pa.DataType, str]] = {}
        for name, column in self._carried.items():
            if name in recorded.names:
                field = recorded.field(name)
                is_open = field.metadata == WITHOUT_VALUES and not binding
                self._types[column], self._first[column] = pa.null() if is_open else field.type, ""

    def add(self, url: str, kind: str, schema: pa.Schema) -> None:
        """Add the types of a shard with rows.

        Raises:
            PlanError: a column has a type that has no common type with other shards.
        """
        for column in self._columns:
            if (place := schema.get_field_index(column)) < 0:
                continue
            dtype = schema.field(place).type
            is_carried = column in self._carried.values()
            if is_carried and not _can_be_stored(dtype):
                raise PlanError(
                    f"{url}: column {column!r} is {dtype!s:.200}, which no Parquet file holds; expected another type "
                    "in label shards. Leave it out of sink.keep and source.id (None: <shard>:<row>), or write the "
                    "shard again with strings or plain structs"
                )
            before = self._types.setdefault(column, dtype)
            first = self._first.setdefault(column, url)
            if before == dtype:
                continue
            is_text = kind in IN_JSON and column not in self._reads
            common = common_type_in_json(before, dtype) if is_text else common_type(before, dtype)
            is_fixed = self._binding and is_carried and not first
            if common is None or (is_fixed and common != before):
                raise PlanError(self._refusal(column, before, dtype, first, url))
            self._types[column] = common
            self._widened.setdefault(column, (before, dtype, url))

    def _refusal(self, column: str, before: pa.DataType, dtype: pa.DataType, first: str, url: str) -> str:
        if first:
            where = (
                f"{first} and others have {before} in common"
                if column in self._widened
                else f"in {first} it is {before}"
            )
            return (
                f"{url}: column {column!r} is {dtype}, {where}; expected types that one type holds, "
                "since readers read all label shards with one type a column. Write one of the shards again with the "
                "type of the other, or exclude one from source.url"
            )
        again = "Write the shard again with that type, or label it into another sink"
        return (
            f"{url}: column {column!r} is {dtype}; {'the label shards' if self._binding else 'those'} of {self._sink} "
            f"{'hold' if self._binding else 'are planned with'} {before}, and readers read all of them with one type a "
            "column. "
            f"{'Label the source into another sink' if pa.types.is_null(before) else again}"
        )

    @property
    def schema(self) -> pa.Schema:
        """Types of the columns of label shards; columns that no shard with rows has are missing.

        A column without values in any shard holds strings, unless label shards hold the type null.
        """
        fields = []
        for name, column in self._carried.items():
            if (kind := self._types.get(column)) is None:
                continue
            holds_nulls = self._binding and name in self._recorded.names and self._recorded.field(name).type == kind
            is_open = pa.types.is_null(kind) and not holds_nulls
            fields.append(pa.field(name, WITHOUT_TYPE, metadata=WITHOUT_VALUES) if is_open else pa.field(name, kind))
        return pa.schema(fields)

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences on the columns whose types differ, for users."""
        return tuple(
            f"column {column!r} is {before} in {self._first[column] or self._sink} and {dtype} in {url}: label shards "
            f"hold {self._types[column]}"
            for column, (before, dtype, url) in self._widened.items()
            if column in self._carried.values()
        )


@cache
def _can_be_stored(kind: pa.DataType) -> bool:
    """Return whether Parquet files can hold a type."""
    try:
        with pq.ParquetWriter(pa.BufferOutputStream(), pa.schema([("a", kind)])):
            return True
    except (pa.ArrowNotImplementedError, pa.ArrowInvalid):
        return False


def carried_types(pipeline: Pipeline, sink: Sink, record: RunRecord | None) -> CarriedTypes:
    """Return the types of carried-over columns, including the types in the label shards of a sink.

    Merged sinks do not record the types, which are read from the first label shard.

    Args:
        pipeline: the pipeline.
        sink: the sink.
        record: its record; None: the sink is new, or all its label shards are replaced.
    """
    if record is None:
        return CarriedTypes(pipeline, pa.schema([]), sink.url, binding=False)
    first = next(sink.label_shards(), None)
    if record.columns or first is None:
        return CarriedTypes(pipeline, decode(sink.url, record.columns), sink.url, binding=first is not None)
    with footer.opened(sink.store, first) as file:
        schema = SealedFile.of(file).metadata.schema.to_arrow_schema()
    return CarriedTypes(pipeline, schema_without_views(schema.remove_metadata()), sink.url, binding=True)


def encode(schema: pa.Schema) -> str:
    """Return a schema as text for the record of a sink."""
    return base64.b64encode(schema.serialize().to_pybytes()).decode() if len(schema) else ""


def decode(sink: str, columns: str) -> pa.Schema:
    """Return the recorded schema of the sink at a url; empty if none is recorded.

    Raises:
        PlanError: it cannot be read.
    """
    if not columns:
        return pa.schema([])
    try:
        raw = base64.b64decode(columns)
        refuse_ray_types("they", raw)
        return pa.ipc.read_schema(pa.py_buffer(raw))
    except (ShardError, ValueError, OSError, pa.ArrowException) as error:
        raise PlanError(
            f"{sink}/{KINDS['pipeline'].record}: its columns are damaged ({bounds.plain(error)}); restore it, or use "
            "another sink"
        ) from None


def read_columns(
    source: Shards, shard: Shard, piece: Piece, names: Sequence[str], as_dictionaries: Sequence[str] = ()
) -> pa.Table:
    """Read columns of a piece as `read_table` does, with the options of its source."""
    return read_table(shard, piece, names, source.storage_options, as_dictionaries, source.audio_root)


def read_source_columns(pipeline: Pipeline, shard: Shard, piece: Piece, carried: pa.Schema | None = None) -> pa.Table:
    """Read the columns that a label shard carries over: `id`, then the kept columns, with the source's values.

    Args:
        pipeline: the pipeline.
        shard: the shard.
        piece: the piece of it.
        carried: types of the columns in the sink; the others keep the type that they have in the shard, or are strings
            where the shard has no values.

    Raises:
        ShardError: the shard is damaged or changed, or a value does not fit the type of its column.
    """
    source = pipeline.source
    columns = [*([source.id] if source.id else []), *pipeline.kept]
    table = read_columns(source, shard, piece, list(dict.fromkeys(columns))) if columns else None
    if source.id and table is not None:
        ids = table.column(source.id)
    else:
        stem = shard.name.removesuffix(".parquet")
        ids = pa.chunked_array([pa.array([f"{stem}:{row}" for row in range(piece.first, piece.end)], pa.string())])
    kept = {name: table.column(name) for name in pipeline.kept} if table is not None else {}
    if source.text in kept:  # a text that is no UTF-8 is the error of its row
        kept[source.text] = readable(kept[source.text], source.text, is_text=True)[0]
    columns_by_name = {"id": ids, **kept}
    types = {field.name: field.type for field in carried or ()}
    for name, column in columns_by_name.items():
        kind = types.get(name, WITHOUT_TYPE if pa.types.is_null(column.type) else column.type)
        try:
            columns_by_name[name] = cast_column(column, kind)
        except pa.ArrowException as error:
            raise ShardError(
                f"{shard.url}: column {name!r} is {column.type}, and the label shards of the sink hold {kind}: "
                f"{one_line(error)}. Write the shard again with that type"
            ) from error
    return pa.table(columns_by_name)
