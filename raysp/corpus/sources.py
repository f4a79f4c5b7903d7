"""Kinds of shards, with one interface to survey and read them."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Protocol

import pyarrow as pa
import pyarrow.compute as pc

from raysp.corpus import arrow, folders, manifests, shards
from raysp.corpus.shards import Piece, Shard, Survey
from raysp.storage.audio_root import AudioRoot

Options = Mapping[str, object]
PARQUET, ARROW, MANIFEST, FOLDER = "parquet", "arrow", "manifest", "folder"
_ARROW_NAMES = (".arrow", ".ipc", ".feather")
_MANIFEST_NAMES = (".jsonl", ".jsonl.gz", ".ndjson", ".ndjson.gz")
_JSON_NAMES = (".json", ".json.gz")
"""Manifests only if a url names the file: folders hold other JSON files as well."""
_OTHER_SUFFIXES = frozenset(
    {".cfg", ".csv", ".ini", ".json", ".toml", ".tsv", ".xls", ".xlsx", ".xml", ".yaml", ".yml"}
    | {".doc", ".docx", ".htm", ".html", ".ipynb", ".log", ".md", ".pdf", ".py", ".rst", ".sh", ".txt"}
    | {".gif", ".jpeg", ".jpg", ".npy", ".npz", ".png", ".pt", ".safetensors", ".svg"}
    | {".ctm", ".lab", ".lrc", ".rttm", ".srt", ".stm", ".textgrid", ".trn", ".vtt"}
    | {".db", ".lock", ".md5", ".sha256", ".sqlite", ".tar", ".zip"}
)
READ_AS = (
    "Parquet (*.parquet), Arrow IPC (*.arrow, *.ipc, *.feather), manifests in JSON lines (*.jsonl, *.ndjson, also .gz; "
    "*.json where it is named) or audio files"
)


class Kind(Protocol):
    """Interface to survey and read shards of one kind."""

    def survey(
        self, url: str, part: str, storage_options: Options | None, columns: Sequence[str] | None = None
    ) -> Survey:
        """Return the survey of a shard, reading as little as possible. Raises ShardError and StoreError."""
        ...

    def read_rows(
        self,
        shard: Shard,
        piece: Piece,
        columns: Sequence[str],
        storage_options: Options | None,
        as_dictionaries: Collection[str] = (),
    ) -> Iterator[pa.RecordBatch]:
        """Yield a piece's rows in order. Raises ShardError."""
        ...


class _Parquet:
    def survey(
        self, url: str, part: str, storage_options: Options | None, columns: Sequence[str] | None = None
    ) -> Survey:
        return shards.survey(url, columns, storage_options)

    def read_rows(
        self,
        shard: Shard,
        piece: Piece,
        columns: Sequence[str],
        storage_options: Options | None,
        as_dictionaries: Collection[str] = (),
    ) -> Iterator[pa.RecordBatch]:
        return shards.read_rows(shard, piece, columns, storage_options, as_dictionaries)


class _Arrow:
    def survey(
        self, url: str, part: str, storage_options: Options | None, columns: Sequence[str] | None = None
    ) -> Survey:
        return arrow.survey(url, storage_options, columns)

    def read_rows(
        self,
        shard: Shard,
        piece: Piece,
        columns: Sequence[str],
        storage_options: Options | None,
        as_dictionaries: Collection[str] = (),
    ) -> Iterator[pa.RecordBatch]:
        return arrow.read_rows(shard, piece, columns, storage_options, as_dictionaries)


class _Manifest:
    def survey(
        self, url: str, part: str, storage_options: Options | None, columns: Sequence[str] | None = None
    ) -> Survey:
        return manifests.survey(url, part, storage_options)

    def read_rows(
        self,
        shard: Shard,
        piece: Piece,
        columns: Sequence[str],
        storage_options: Options | None,
        as_dictionaries: Collection[str] = (),
    ) -> Iterator[pa.RecordBatch]:
        return manifests.read_rows(shard, piece, columns, storage_options)


class _Folder:
    def survey(
        self, url: str, part: str, storage_options: Options | None, columns: Sequence[str] | None = None
    ) -> Survey:
        return folders.survey(part)

    def read_rows(
        self,
        shard: Shard,
        piece: Piece,
        columns: Sequence[str],
        storage_options: Options | None,
        as_dictionaries: Collection[str] = (),
    ) -> Iterator[pa.RecordBatch]:
        return folders.read_rows(shard, piece, columns, storage_options)


_KINDS: Mapping[str, Kind] = {PARQUET: _Parquet(), ARROW: _Arrow(), MANIFEST: _Manifest(), FOLDER: _Folder()}


def kind_of(name: str) -> str:
    """Return the kind of a file by its name. Unknown names are read as Parquet; its footer check reports the error."""
    if name.endswith(_ARROW_NAMES):
        return ARROW
    return MANIFEST if name.endswith((*_MANIFEST_NAMES, *_JSON_NAMES)) else PARQUET


def is_json(name: str) -> bool:
    """Return whether a file has a JSON suffix. Its content then decides whether it is a manifest."""
    return name.endswith(_JSON_NAMES)


def is_other(name: str) -> bool:
    """Return whether a file's suffix shows that it holds neither rows nor a recording. Such files are never read."""
    return folders.suffix_of(name) in _OTHER_SUFFIXES


def stem_of(name: str) -> str:
    """Return a file's name without the suffix of its kind."""
    for suffix in (*_MANIFEST_NAMES, *_JSON_NAMES, *_ARROW_NAMES, ".parquet"):
        if name.endswith(suffix):
            return name.removesuffix(suffix)
    head, dot, _ = name.rpartition(".")
    return head if dot and not head.endswith("/") else name


def audio_root(shard: Shard, given: str | None) -> str | None:
    """Return the folder that confines the paths of a shard's recordings; None if they are not read by path."""
    if given is not None or shard.kind in (PARQUET, ARROW):
        return given
    return shard.url if shard.kind == FOLDER else shard.url.rpartition("/")[0] or "/"


def open_audio_root(shard: Shard, given: str | None, storage_options: Options | None = None) -> AudioRoot | None:
    """Open the folder that confines the paths of a shard's recordings; None if they are not read by path."""
    root = audio_root(shard, given)
    return None if root is None else AudioRoot(root, storage_options)


def read_paths(shard: Shard, piece: Piece, audio: str, storage_options: Options | None = None) -> list[str | None]:
    """Read the paths of a piece's recordings. Of a Parquet shard only the paths are read.

    Raises:
        ShardError: the shard is damaged, or changed since it was planned.
    """
    column = f"{audio}.path" if shard.kind == PARQUET else audio
    paths: list[str | None] = []
    for batch in _KINDS[shard.kind].read_rows(shard, piece, [column], storage_options):
        paths += pc.struct_field(batch.column(0), "path").to_pylist()
    return paths


def survey(
    kind: str, url: str, part: str, storage_options: Options | None = None, columns: Sequence[str] | None = None
) -> Survey:
    """Return the survey of a shard, reading as little as possible.

    Args:
        kind: kind of the shard.
        url: url of the file or folder.
        part: part of the url's content.
        storage_options: options of its storage.
        columns: columns that will be read, None for all. Pieces are cut by their size.

    Raises:
        ShardError: the shard cannot be read, or would run foreign code.
        StoreError: the shard is missing or not readable.
    """
    return _KINDS[kind].survey(url, part, storage_options, columns)


def read_table(
    shard: Shard,
    piece: Piece,
    columns: Sequence[str],
    storage_options: Options | None = None,
    as_dictionaries: Collection[str] = (),
) -> pa.Table:
    """Read all rows of a piece, in order.

    Repeated recordings in the columns `as_dictionaries` may be returned as dictionaries.

    Raises:
        ShardError: the shard is damaged, or changed since it was planned.
    """
    batches = list(_KINDS[shard.kind].read_rows(shard, piece, columns, storage_options, as_dictionaries))
    if batches:
        return pa.Table.from_batches(batches)
    schema = survey(shard.kind, shard.url, shard.part, storage_options).schema
    return pa.schema([schema.field(column) for column in columns]).empty_table()


def narrow(shard: Shard, piece: Piece) -> Shard:
    """Return a shard reduced to one of its pieces. It is small even for a folder of many files.

    Raises:
        ShardError: the shard's recorded listing is damaged.
    """
    part = folders.narrow(shard, piece) if shard.kind == FOLDER else shard.part
    return replace(shard, pieces=(piece,), part=part)


def column_names(shard: Shard, storage_options: Options | None = None) -> list[str]:
    """Return the names of all columns of a shard."""
    return survey(shard.kind, shard.url, shard.part, storage_options).schema.names
