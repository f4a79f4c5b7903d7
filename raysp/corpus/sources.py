"""The kinds of sources, functions that take a shard of any of them, and types that are common to several shards."""

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from raysp import bounds
from raysp.corpus.parquet import SealedFile
from raysp.corpus.shards import (
    OTHER_SUFFIXES,
    SECONDS_BY_PATH,
    Options,
    Piece,
    Shard,
    SourceKind,
    Survey,
    is_audio,
    one_line,
    place_of,
    suffix_of,
)
from raysp.corpus.tables import (
    VIEW_BYTES,
    WITHOUT_BYTES,
    PagedFile,
    is_view,
    parts_of,
    paths_of,
    recording_type,
    schema_without_views,
    table_without_views,
)
from raysp.errors import ShardError, StoreError
from raysp.public_names import resolved
from raysp.storage.store import Entry, scheme_of

_ROW, _ID = "row", "id"


def options_beside(labels: str, url: str, storage_options: Options) -> Options:
    """Return the storage options of label shards: the options of the source if it has the same scheme."""
    return storage_options if scheme_of(labels) == scheme_of(url) else None


def label_column_names(shard: Shard, storage_options: Options = None) -> list[str]:
    """Return the names of the columns of the label shard beside a shard, as `without_ids`; none without one.

    Raises:
        ShardError: it cannot be read.
    """
    if not shard.labels:
        return []
    store, name = place_of(shard.labels, options_beside(shard.labels, shard.url, storage_options))
    with _explained(shard), store.open(name) as file:
        return without_ids(SealedFile.of(file).metadata.schema.to_arrow_schema()).names


def without_ids(labels: pa.Schema) -> pa.Schema:
    """Return the columns of a label shard that are read beside the columns of its shard: all but the ids."""
    return pa.schema([field for field in labels if field.name != _ID])


@contextmanager
def _explained(shard: Shard) -> Iterator[None]:
    try:
        yield
    except ShardError:
        raise
    except StoreError as error:
        raise ShardError(str(error)) from error
    except (pa.ArrowException, OSError, ValueError) as error:
        raise ShardError(f"{shard.labels}: {one_line(error)}. Label the shard again") from error


def read_label_columns(shard: Shard, piece: Piece, columns: Sequence[str], storage_options: Options = None) -> pa.Table:
    """Read columns of the label shard beside a shard, for all rows of a piece, in order; null for rows without labels.

    Raises:
        ShardError: the label shard is damaged, or changed since it was planned.
    """
    store, name = place_of(shard.labels, options_beside(shard.labels, shard.url, storage_options))
    with _explained(shard):
        entry = store.stat(name)
        if entry is None or entry.version != shard.labels_version:
            raise ShardError(f"{shard.labels}: this label shard changed since it was planned: run again")
        with store.open(name) as file:
            table = _read_rows(SealedFile.of(file).pages(), piece, [*dict.fromkeys((*columns, _ROW))])
    return table.select([*columns]).take(_places(table.column(_ROW).to_numpy(), piece))


def _read_rows(labels: PagedFile, piece: Piece, columns: Sequence[str]) -> pa.Table:
    """Read the rows of a label shard whose row numbers are in a piece."""
    within = (pc.field(_ROW) >= piece.first) & (pc.field(_ROW) < piece.end)
    tables, decoded = [labels.schema.empty_table().select(list(columns))], 0
    leaves = labels.metadata.schema  # one for each field of a struct, such as a kept recording
    number = next(place for place in range(len(leaves)) if leaves.column(place).path == _ROW)
    for group in range(labels.metadata.num_row_groups):
        statistics: Any = labels.metadata.row_group(group).column(number).statistics
        if (
            statistics is not None
            and statistics.has_min_max
            and (statistics.max < piece.first or statistics.min >= piece.end)
        ):
            continue
        for batch in labels.batches(group, piece.num_rows, columns):
            tables.append(pa.Table.from_batches([batch]).filter(within))
            decoded += tables[-1].nbytes
            bounds.check(decoded, bounds.MOST_DECODED_BYTES, "bytes decoded")
    return pa.concat_tables(tables)


def _places(rows: np.ndarray, piece: Piece) -> pa.Int64Array:
    """Return the place of each row of a piece within sorted row numbers, int64; null for rows that are not there."""
    numbers = np.arange(piece.first, piece.end)
    places = np.searchsorted(rows, numbers)
    is_there = np.isin(numbers, rows)
    return pa.array(places, pa.int64(), mask=~is_there)


FOLDER = "folder"
"""Name of the kind of a folder without files that hold rows."""


@dataclass(frozen=True)
class Registered:
    """A kind of source, imported when a file may be of it."""

    name: str
    place: str
    """Class of the kind, as `module:name`."""
    endings: tuple[str, ...] = ()
    """Ends of the names of all files that the kind claims or describes."""

    @cached_property
    def kind(self) -> SourceKind:
        """The kind of source, whose module is imported on first use."""
        return cast("type[SourceKind]", resolved(self.place))()


KINDS = (
    Registered("parquet", "raysp.corpus.parquet:ParquetKind", (".parquet",)),
    Registered("arrow", "raysp.corpus.arrow:ArrowKind", (".arrow", ".ipc", ".feather", ".json")),
    Registered("shar", "raysp.corpus.shar:SharKind", (".jsonl", ".jsonl.gz", ".tar")),
    Registered("manifest", "raysp.corpus.manifests:ManifestKind", (".jsonl", ".ndjson", ".json", ".gz")),
    Registered("tar", "raysp.corpus.tars:TarKind", (".tar", ".tar.gz", ".tgz")),
    Registered(FOLDER, "raysp.corpus.folders:FolderKind"),
)
"""All kinds. The first one also opens files that no kind claims, and reports their format as unknown."""


def read_as() -> str:
    """Return the files that are read, for messages."""
    *first, last = (registered.kind.described for registered in KINDS)
    return f"{', '.join(first)} or {last}"


def is_by_path(shard: Shard, audio_root: str | None) -> bool:
    """Return whether the recordings of a shard are files of their own, so that its bytes hold none."""
    return audio_root is not None or not kind_named(shard.kind).holds_audio


def kind_named(name: str) -> SourceKind:
    """Return the kind with a recorded name.

    Raises:
        ShardError: there is no such kind, as in a record of a later version.
    """
    for registered in KINDS:
        if registered.name == name:
            return registered.kind
    names = ", ".join(registered.name for registered in KINDS)
    raise ShardError(f"found source kind {name!r}, expected one of {names}; use the version of raysp that recorded it")


def _kinds_for(name: str) -> list[SourceKind]:
    """Return the kinds that a file may be of, by the end of its name."""
    return [registered.kind for registered in KINDS if name.endswith(registered.endings)]


def kind_of_file(name: str) -> SourceKind:
    """Return the kind of a file by its name."""
    return next((kind for kind in _kinds_for(name) if kind.claims(name)), KINDS[0].kind)


def is_shard(name: str, url: str, *, in_folder: bool) -> bool:
    """Return whether a listed file is a shard by its name.

    Args:
        name: name of the file.
        url: url that lists it.
        in_folder: whether the url is a folder, of which only files with known suffixes are shards.
    """
    kinds = _kinds_for(name)
    if in_folder:
        return any(kind.claims(name, in_folder=True) for kind in kinds)
    if any(name.endswith(kind.named_suffixes) and url.endswith(kind.named_suffixes) for kind in kinds):
        return True
    if any(kind.claims(name) for kind in kinds if not kind.suffixes):
        return True
    claimed = tuple(suffix for kind in kinds for suffix in kind.suffixes if suffix not in kind.named_suffixes)
    return name.endswith(claimed) or not (is_audio(name) or suffix_of(name) in OTHER_SUFFIXES)


def chosen(root: str, entries: Sequence[Entry], storage_options: Options) -> Sequence[Entry]:
    """Return the files of a folder, without files of a kind that are not shards."""
    for registered in KINDS:
        if any(entry.path.endswith(registered.endings) for entry in entries):
            entries = registered.kind.chosen(root, entries, storage_options)
    return entries


def describes_shards(name: str) -> bool:
    """Return whether a file describes shards, by its name."""
    return any(kind.describes(name) for kind in _kinds_for(name))


def read_paths(shard: Shard, piece: Piece, audio: str, storage_options: Options = None) -> list[str | None]:
    """Read the paths of a piece's recordings. Of a Parquet shard only the paths are read.

    Raises:
        ShardError: the shard is damaged, or changed since it was planned.
    """
    kind = kind_named(shard.kind)
    column = kind.path_column(shard, audio, storage_options)
    if column is None:
        return [None] * piece.num_rows
    batches = kind.read_rows(shard, piece, [column], storage_options)
    return [path for batch in batches for path in paths_of(batch.column(0))]


def survey(
    kind: str, url: str, part: str, storage_options: Options = None, columns: Sequence[str] | None = None
) -> Survey:
    """Return the survey of a shard of the kind with a recorded name, with the types that `read_batches` yields.

    See `SourceKind.survey`.
    """
    source_kind = kind_named(kind)
    surveyed = source_kind.survey(url, part, storage_options, columns)
    schema = schema_without_views(surveyed.schema)
    surveyed = surveyed if schema is surveyed.schema else replace(surveyed, schema=schema)
    if not columns or not source_kind.holds_audio:
        return surveyed
    audio, index = columns[0], schema.get_field_index(columns[0])
    is_null = surveyed.nulls & {audio, f"{audio}.bytes"}
    if index >= 0 and (is_null or recording_type(schema.field(index).type) in WITHOUT_BYTES):
        groups = [group._replace(seconds=group.num_rows * SECONDS_BY_PATH) for group in surveyed.groups]
        return replace(surveyed, groups=groups)
    return surveyed


def read_batches(
    shard: Shard,
    piece: Piece,
    columns: Sequence[str],
    storage_options: Options = None,
    as_dictionaries: Collection[str] = (),
    audio_root: str | None = None,
) -> Iterator[pa.Table]:
    """Yield all rows of a piece in order, some megabytes at a time; see `SourceKind.read_rows`.

    Columns of the label shard beside it come from there, even if the shard has columns of the same names. Views
    (`corpus.tables`) are replaced, except in the columns `as_dictionaries`. Links of files beside recordings may lead
    into `audio_root`.
    """
    labelled = {*label_column_names(shard, storage_options)}.intersection(columns)
    labels = read_label_columns(shard, piece, sorted(labelled), storage_options) if labelled else None
    own = [name for name in columns if name not in labelled]
    if labels is not None and not own:
        yield labels.select([*columns])
        return
    first = 0
    kind = kind_named(shard.kind).within(audio_root)
    batches = kind.read_rows(shard, piece, own, storage_options, as_dictionaries)
    for part in (part for batch in batches for part in parts_of(batch, as_dictionaries)):
        try:
            rows = table_without_views(pa.Table.from_batches([part]), as_dictionaries)
        except pa.ArrowException as error:
            where = f"{shard.url}: rows {piece.first} to {piece.end}"
            raise ShardError(f"{where}: {one_line(error)}. Write the shard again without views") from None
        if labels is not None:
            beside_rows = labels.slice(first, len(rows))
            rows = pa.table({name: (beside_rows if name in labelled else rows).column(name) for name in columns})
        first += len(rows)
        yield rows


def read_table(
    shard: Shard,
    piece: Piece,
    columns: Sequence[str],
    storage_options: Options = None,
    as_dictionaries: Collection[str] = (),
    audio_root: str | None = None,
) -> pa.Table:
    """Read all rows of a piece, in order, as `read_batches` does.

    Raises:
        ShardError: see `read_batches`; or several rows decode to more than `bounds.MOST_DECODED_BYTES`.
    """
    tables, decoded = [], 0
    for table in read_batches(shard, piece, columns, storage_options, as_dictionaries, audio_root):
        tables.append(table)
        decoded += sum(_num_bytes(chunk) for column in table.columns for chunk in column.chunks)
        if decoded > bounds.MOST_DECODED_BYTES and piece.num_rows > 1:
            raise ShardError(
                f"{shard.url}: rows {piece.first} to {piece.end} decode to {decoded:,} bytes and more; expected at "
                f"most {bounds.MOST_DECODED_BYTES:,}. Write the shard again, with its large values in fewer rows"
            )
    if tables:
        return pa.concat_tables(tables)
    schema = survey(shard.kind, shard.url, shard.part, storage_options).schema
    fields = {field.name: field for field in schema}
    return pa.schema([fields.get(name, pa.field(name, pa.null())) for name in columns]).empty_table()


def _num_bytes(array: "pa.Array[Any]") -> int:
    """Return the bytes of an array without dictionaries, runs and views, which arrays share."""
    if isinstance(array, pa.DictionaryArray):
        return array.indices.nbytes
    if isinstance(array, pa.RunEndEncodedArray):
        return VIEW_BYTES * len(array)
    if isinstance(array, pa.StructArray):
        return sum(_num_bytes(array.field(index)) for index in range(array.type.num_fields))
    return VIEW_BYTES * len(array) if is_view(array.type) else array.nbytes


def starts(shard: Shard, storage_options: Options = None) -> list[int]:
    """Return rows at which reading may begin without reading the rows before; see `SourceKind.starts`."""
    return kind_named(shard.kind).starts(shard, storage_options)


def narrow(shard: Shard, piece: Piece) -> Shard:
    """Return a shard reduced to one of its pieces; see `SourceKind.narrow`."""
    return kind_named(shard.kind).narrow(shard, piece)


def column_names(shard: Shard, storage_options: Options = None) -> list[str]:
    """Return the names of all columns of a shard, and of its label shard."""
    own = kind_named(shard.kind).survey(shard.url, shard.part, storage_options).schema.names
    return [*dict.fromkeys((*own, *label_column_names(shard, storage_options)))]


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
    if (common := common_type(a, b)) is not None:
        return common
    of_json = (Types.is_integer, Types.is_floating, Types.is_boolean, Types.is_string)
    if not all(any(fits(kind) for fits in of_json) for kind in (a, b)):
        return None
    return pa.float64() if all(holds_numbers(kind) for kind in (a, b)) else pa.string()


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


def holds_numbers(kind: pa.DataType) -> bool:
    """Return whether a type holds numbers."""
    return Types.is_integer(kind) or Types.is_floating(kind)
