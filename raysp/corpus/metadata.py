"""Columns from metadata files beside recordings, as in the `audiofolder` of `datasets`.

A file `metadata.csv`, `metadata.jsonl` or `metadata.parquet` in any folder of a corpus names recordings in its column
`file_name`, by paths relative to that folder. Its other columns become columns of their rows.
"""

import io
import json
import posixpath
import threading
import zlib
from collections import Counter, OrderedDict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv

from raysp import bounds
from raysp.bounds import shortened
from raysp.corpus.manifests import json_column, json_rows
from raysp.corpus.parquet import decoded_bytes, footer_of, read_footer
from raysp.corpus.shards import Metadata, one_line
from raysp.corpus.tables import read_whole
from raysp.errors import AudioError, ShardError
from raysp.storage.audio_root import AudioRoot, OpenRecording, canonical
from raysp.storage.store import join_url
from raysp.storage.text_content import HiddenError, text_of
from raysp.text.error_rates import fault_of
from raysp.words import RESTORE

Options = Mapping[str, object] | None

NAMES = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
FILE_NAME = "file_name"
_RECORDING, _ID = "audio", "id"
_COMPRESSED = ("gz", "zst", "bz2", "xz", "zip")
_ROWS_AT_ONCE = 10_000
_PART_BYTES, _PART_ROWS = 16 * 1024 * 1024, 10_000
_MOST_CACHED_BYTES = 256 * 1024 * 1024
# Matches `7` and `-1.5e3`, but not `007`: a leading zero marks a code or text.
_INTEGER, _NUMBER = r"^-?(0|[1-9][0-9]{0,17})$", r"^-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?$"


@dataclass(frozen=True)
class _Read:
    """A parsed metadata file: text columns for CSV, JSON texts for JSON lines, typed columns for Parquet."""

    table: pa.Table
    paths: list[str]
    """Paths of the recordings, relative to the folder of the corpus."""

    @cached_property
    def by_form(self) -> Mapping[str, str]:
        """Paths by their form NFC, of those that are not ASCII; two of one form are left out."""
        counts = Counter(canonical(path) for path in self.paths if not path.isascii())
        return {canonical(path): path for path in self.paths if counts.get(canonical(path)) == 1}

    @cached_property
    def names(self) -> frozenset[str]:
        """Set of the paths."""
        return frozenset(self.paths)

    def name_of(self, path: str) -> str:
        """Return a path as the file has it, if it has it in another Unicode normal form only."""
        return path if path.isascii() or path in self.names else self.by_form.get(canonical(path), path)


def is_metadata(path: str) -> bool:
    """Return whether a file is a metadata file by its name."""
    return path.rpartition("/")[2] in NAMES


def refuse_compressed(root: str, paths: Sequence[str]) -> None:
    """Raise ShardError if a folder has `metadata.csv.gz` or the like, and no metadata file beside it."""
    uncompressed = {path for path in paths if is_metadata(path)}
    for path in paths:
        plain, _, suffix = path.rpartition(".")
        if suffix in _COMPRESSED and is_metadata(plain) and plain not in uncompressed:
            raise ShardError(
                f"{join_url(root, path)}: is compressed; expected {plain.rpartition('/')[2]}. Decompress it, or rename "
                "it so that it is ignored"
            )


def names_recordings(url: str, options: Options) -> bool:
    """Return whether a Parquet file has a column `file_name`: it names recordings and does not hold them."""
    return FILE_NAME in read_footer(url, options).schema.names


def read(folder: AudioRoot, files: Sequence[str], text: str | None = None) -> Metadata:
    """Read all metadata files of a folder.

    Args:
        folder: the folder.
        files: their paths.
        text: column of texts, whose cells are texts in CSV even if all of them are numbers.

    Raises:
        ShardError: a file cannot be read, names no recordings, or names one twice, or the files are inconsistent.
        StoreError: the storage fails.
    """
    root = folder.url
    kinds = sorted({_kind(path) for path in files})
    if len(kinds) > 1:
        raise ShardError(f"{root}: found metadata files of several kinds ({', '.join(kinds)}); expected one kind")
    contents = [_read(folder, path) for path in files]
    schema = _schema(root, kinds[0], [content.table for content in contents], texts=(_ID, text))
    checks: dict[str, int] = {}
    for file, content in zip(files, contents, strict=True):
        for path, check in zip(
            content.paths, _checks(_typed(content.table, schema, kinds[0]), len(content.paths)), strict=True
        ):
            if path in checks:
                raise ShardError(
                    f"{join_url(root, file)}: lists {shortened(path)} more than once; expected each recording once"
                )
            checks[path] = check
    return Metadata(tuple(files), schema, checks)


def read_columns(
    folder: AudioRoot, files: Sequence[str], schema: pa.Schema, recordings: Sequence[tuple[str, int | None]]
) -> pa.Table:
    """Return the metadata columns of some recordings. Values are null for recordings that no metadata file names.

    Args:
        folder: folder of the corpus.
        files: metadata files.
        schema: schema of the columns as planned.
        recordings: path of each, and the planned hash of its values, None if it had no metadata.

    Raises:
        ShardError: the values changed since they were planned.
        StoreError: the storage fails.
    """
    root, paths = folder.url, [path for path, _ in recordings]
    tables = [schema.empty_table()]
    places = pa.array([None] * len(recordings), pa.int64())
    first = 0
    for file in naming(files, paths):
        try:
            content = _read(folder, file)
            names = [path if planned is None else content.name_of(path) for path, planned in recordings]
            index = pc.index_in(pa.array(names, pa.string()), value_set=pa.array(content.paths, pa.string())).cast(
                pa.int64()
            )
            rows = index.drop_null()
            tables.append(_typed(content.table.take(rows), schema, _kind(file)))
        except (pa.ArrowException, ValueError) as error:
            raise ShardError(f"{join_url(root, file)}: {one_line(error)}; it {_CHANGED}") from error
        numbered = pc.subtract(pc.cumulative_sum(index.is_valid().cast(pa.int64())), 1 - first)
        places = pc.if_else(index.is_valid(), numbered, places)
        first += len(rows)
    table = pa.concat_tables(tables).take(places)
    for (path, planned), check in zip(recordings, _checks(table, len(paths)), strict=True):
        if check != (_NOTHING if planned is None else planned):
            raise ShardError(f"{root}: the metadata of {shortened(path)} {_CHANGED}")
    return table


def naming(files: Sequence[str], paths: Sequence[str]) -> list[str]:
    """Return the metadata files that may name any of some recordings: those in their parent folders."""
    if any(_leads_out(path) for path in paths):
        return list(files)
    folders = {parent for path in paths for parent in _parents(path)}
    return [file for file in files if posixpath.dirname(file) in folders]


_CHANGED = f"changed since it was planned. {RESTORE}"


def _parents(path: str) -> Iterator[str]:
    while path:
        path = posixpath.dirname(path)
        yield path


def _leads_out(path: str) -> bool:
    return path.startswith("/") or "://" in path


def _kind(path: str) -> str:
    return posixpath.splitext(path)[1]


_cache: "OrderedDict[tuple[str, str, int, str], _Read]" = OrderedDict()
_lock = threading.Lock()


def _read(folder: AudioRoot, path: str) -> _Read:
    """Read a metadata file, with a cache keyed by its version and bounded by `_MOST_CACHED_BYTES`."""
    url = join_url(folder.url, path)
    try:
        opened = folder.open(path)
    except AudioError as error:
        if error.error_type == "not_found":
            raise ShardError(f"{url}: no such file; it {_CHANGED}") from None
        raise ShardError(f"{url}: {error}") from None
    key = (folder.url, path, opened.num_bytes, opened.version)
    with _lock:
        if (cached := _cache.get(key)) is not None:
            _cache.move_to_end(key)
            return cached
    content = _parse(folder.url, path, opened)
    with _lock:
        _cache[key] = content
        while (
            len(_cache) > 1
            and sum(cached_content.table.nbytes for cached_content in _cache.values()) > _MOST_CACHED_BYTES
        ):
            _cache.popitem(last=False)
    return content


def _parse(root: str, path: str, opened: OpenRecording) -> _Read:
    url = join_url(root, path)
    try:
        raw = opened.whole(bounds.MOST_TABLE_BYTES)
        data = raw if _kind(path) == ".parquet" else text_of(raw, bounds.MOST_TABLE_BYTES, "CSV or JSON lines")
        table = _READERS[_kind(path)](url, data)
        bounds.check_columns(table.column_names)
    except bounds.DAMAGED as error:
        raise ShardError(f"{url}: the gzip file is damaged ({one_line(error)}). Copy it again") from error
    except (pa.ArrowException, UnicodeDecodeError, bounds.TooLargeError, HiddenError) as error:
        raise ShardError(f"{url}: {one_line(error)}. Correct it, or rename it so that it is ignored") from error
    if table.column_names.count(FILE_NAME) != 1 or len({*table.column_names}) != table.num_columns:
        raise ShardError(
            f"{url}: its columns are {bounds.plain(', '.join(table.column_names))}; expected one {FILE_NAME!r} with "
            "the paths of recordings, and no column twice"
        )
    if _RECORDING in table.column_names:
        raise ShardError(f"{url}: has a column {_RECORDING!r}, which is reserved for the recordings; rename it")
    names = table.column(FILE_NAME).to_pylist()
    if _kind(path) == ".jsonl":
        names = [None if name is None else bounds.parse_json(name) for name in names]
    paths = []
    for number, name in enumerate(names, 1):
        if not isinstance(name, str) or not name:
            raise ShardError(
                f"{url}: row {number} has {shortened(name)} as its {FILE_NAME}; expected the path of a recording"
            )
        paths.append(_path(root, posixpath.dirname(path), name))
    return _Read(table, paths)


def _path(root: str, folder: str, name: str) -> str:
    """Return the path relative to the folder of the corpus. Paths that lead out of it are returned unchanged."""
    inside = name.removeprefix(f"{root}/")
    if inside != name:
        return inside
    if _leads_out(name):
        return name
    parts = [part for part in name.replace("\\", "/").split("/") if part not in ("", ".")]
    return "/".join([*([folder] if folder else []), *parts])


def _read_csv(url: str, data: bytes) -> pa.Table:
    """Read the cells as text. Empty unquoted cells are null."""
    parsing = pa_csv.ParseOptions(newlines_in_values=True)
    if not data.strip():
        return pa.table({})
    with pa_csv.open_csv(io.BytesIO(data), parse_options=parsing) as reader:
        names = reader.schema.names
    bounds.check_columns(names)
    bounds.check_table(max(map(data.count, (b"\n", b"\r"))), len(names))
    return pa_csv.read_csv(
        io.BytesIO(data),
        parse_options=parsing,
        convert_options=pa_csv.ConvertOptions(
            column_types={name: pa.string() for name in names},
            strings_can_be_null=True,
            null_values=[""],
            quoted_strings_can_be_null=False,
        ),
    )


def _read_jsonl(url: str, data: bytes) -> pa.Table:
    """Read the values as JSON texts."""
    bounds.check_table(data.count(b"\n"), 1)
    tables, names = [], dict[str, None]()
    for first, lines in _parts(data):
        rows = json_rows(url, lines, first)
        _refuse_faults(url, rows, first)
        names |= dict.fromkeys(key for row in rows for key in row)
        bounds.check_columns(names)
        bounds.check_table(first + len(rows), len(names))
        tables.append(_texts(rows))
    return pa.concat_tables(tables, promote_options="default") if tables else pa.table({})


def _refuse_faults(url: str, rows: Sequence[Mapping[str, object]], first: int) -> None:
    for number, row in enumerate(rows, first):
        for fault in filter(None, (fault_of(name, value) for name, value in row.items())):
            raise ShardError(f"{url}: row {number}: {fault}")


def _parts(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield some lines at a time, with the number of the first: parsed rows take many times their bytes."""
    first = 1
    lines: list[bytes] = []
    num_bytes = 0
    for line in bounds.lines(io.BytesIO(data)):
        lines.append(line)
        num_bytes += len(line)
        if num_bytes >= _PART_BYTES or len(lines) == _PART_ROWS:
            yield first, b"".join(lines)
            first, lines, num_bytes = first + len(lines), [], 0
    if lines:
        yield first, b"".join(lines)


def _texts(rows: Sequence[Mapping[str, object]]) -> pa.Table:
    names = dict.fromkeys(key for row in rows for key in row)
    texts = {
        name: pa.array([None if row.get(name) is None else json.dumps(row[name]) for row in rows], pa.string())
        for name in names
    }
    return pa.table(texts)


def _read_parquet(url: str, data: bytes) -> pa.Table:
    metadata = footer_of(url, pa.BufferReader(data)).metadata  # refuses schemas that would run code
    bounds.check_table(metadata.num_rows, metadata.num_columns)
    groups = decoded_bytes(pa.BufferReader(data), metadata, None)
    decoded = sum(num_bytes for group in groups for _, num_bytes in group)
    bounds.check(decoded, bounds.MOST_TABLE_BYTES, "bytes decoded")
    return read_whole(pa.BufferReader(data), bounds.MOST_TABLE_BYTES)


_READERS: Mapping[str, Callable[[str, bytes], pa.Table]] = {
    ".csv": _read_csv,
    ".jsonl": _read_jsonl,
    ".parquet": _read_parquet,
}


def _schema(root: str, kind: str, tables: Sequence[pa.Table], texts: Collection[str | None]) -> pa.Schema:
    """Return the columns of all tables, each with the type that fits its values in all; `texts` are strings in CSV."""
    if kind == ".parquet":
        try:
            schemas = [pa.schema([field for field in t.schema if field.name != FILE_NAME]) for t in tables]
            return pa.unify_schemas(schemas, promote_options="permissive")
        except pa.ArrowException as error:
            raise ShardError(f"{root}: its metadata files disagree: {one_line(error)}") from error
    names = dict.fromkeys(name for table in tables for name in table.column_names)
    names.pop(FILE_NAME)
    columns = {
        name: pa.chunked_array([t.column(name).combine_chunks() for t in tables if name in t.column_names])
        for name in names
    }
    if kind == ".csv":
        return pa.schema(
            [(name, pa.string() if name in texts else _type_of_texts(column)) for name, column in columns.items()]
        )
    return pa.schema([(name, json_column(_values(column)).type) for name, column in columns.items()])


def _type_of_texts(column: "pa.ChunkedArray[Any]") -> pa.DataType:
    texts = column.drop_null()
    if len(texts) == 0:
        return pa.string()
    for pattern, kind in ((_INTEGER, pa.int64()), (_NUMBER, pa.float64())):
        if pc.all(pc.match_substring_regex(texts, pattern)).as_py():
            return kind
    return pa.string()


def _values(column: "pa.ChunkedArray[Any]") -> list[object]:
    return [None if text is None else bounds.parse_json(text) for text in column.to_pylist()]


def _typed(table: pa.Table, schema: pa.Schema, kind: str) -> pa.Table:
    """Return the columns of a schema, null where the table lacks them."""
    columns: list[Any] = []
    for field in schema:
        if field.name not in table.column_names:
            columns.append(pa.nulls(table.num_rows, field.type))
        elif kind == ".jsonl":
            columns.append(json_column(_values(table.column(field.name)), field.type))
        else:
            columns.append(table.column(field.name).cast(field.type))
    return pa.Table.from_arrays(columns, schema=schema)


def _check(row: Mapping[str, object]) -> int:
    present = {name: value for name, value in row.items() if value is not None}
    return zlib.crc32(json.dumps(present, sort_keys=True, default=repr).encode())


_NOTHING = _check({})


def _checks(table: pa.Table, num_rows: int) -> Iterator[int]:
    """Yield a hash of the values of each row. A table without columns has no row count, hence `num_rows`."""
    if not table.num_columns:
        return iter([_NOTHING] * num_rows)
    return (_check(row) for batch in table.to_batches(_ROWS_AT_ONCE) for row in batch.to_pylist())
