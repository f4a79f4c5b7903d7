"""Shards of folders of audio files: one row per file, 10,000 files of the sorted listing per shard.

The packed listing of a shard is recorded with it. New files make new shards, and the row of a removed file stays.
Metadata files beside the recordings (`metadata`) add columns, or texts (`sidecars`) one. A missing recording that
metadata names is still a row.
"""

import base64
import functools
import hashlib
import json
import zlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import zip_longest
from typing import NamedTuple, cast

import pyarrow as pa
import pyarrow.compute as pc

from raysp import bounds
from raysp.corpus import metadata, sidecars
from raysp.corpus.manifests import AUDIO_TYPE
from raysp.corpus.shards import (
    FAULT,
    Beside,
    Cut,
    Group,
    Metadata,
    Options,
    Origin,
    Piece,
    Shard,
    SourceKind,
    Survey,
    estimated_seconds,
    refuse_ray_types,
)
from raysp.errors import ShardError
from raysp.storage.audio_root import AudioRoot, recordings_of
from raysp.storage.store import Entry, join_url

FILES_A_SHARD = 10_000
SCHEMA = pa.schema([pa.field("id", pa.string()), pa.field("audio", AUDIO_TYPE)])

_FROM = "@"  # follows the first row of a narrowed listing; not in the base64 alphabet

Listing = Sequence[tuple[str, int, int]]
"""Path, bytes and hash of the version of each file."""
_MISSING = (0, 0)
"""Bytes and hash of a missing file that metadata names."""
Faults = tuple[str, ...]
"""Why texts beside recordings cannot be read."""


class _Part(NamedTuple):
    """A listing with the metadata of its rows."""

    files: tuple[tuple[str, int, int], ...]
    metadata: tuple[str, ...] = ()
    """Paths of the metadata files."""
    schema: pa.Schema | None = None
    """Schema of the metadata columns; None if there are no metadata files."""
    checks: tuple[int | None, ...] = ()
    """Hash of the metadata values of each row; None if no metadata file names it."""

    @property
    def bad(self) -> frozenset[str]:
        """Recordings whose text could not be read when it was planned."""
        rows = zip(self.files, self.checks, strict=False)
        return frozenset(path for (path, _, _), check in rows if check == sidecars.BAD)


def cut(entries: Sequence[Entry], recorded: Sequence[str], described: Metadata | None = None) -> list[str]:
    """Cut a listing into parts: first the recorded ones with current versions, then new files.

    A file that was missing when its part was recorded keeps that entry, so that its arrival does not change the part.
    """
    return [_pack(part) for part in _cut(entries, [_unpack(part) for part in recorded], described)]


def _cut(entries: Sequence[Entry], recorded: Sequence[_Part], described: Metadata | None) -> list[_Part]:
    now = {entry.path: (entry.path, entry.num_bytes, zlib.crc32(entry.version.encode())) for entry in entries}
    for path in described.checks if described else ():
        # A recording that metadata names is a row even if its file is missing.
        now.setdefault(path, (path, *_MISSING))

    def current(file: tuple[str, int, int]) -> tuple[str, int, int]:
        entry = now.pop(file[0], file)
        return file if file[1:] == _MISSING else entry

    parts = [_described([current(file) for file in part.files], described, part.bad) for part in recorded]
    # By path: numbers of shards must not depend on the order in which a store lists.
    new = [now[path] for path in sorted(now)]
    slices = (new[first : first + FILES_A_SHARD] for first in range(0, len(new), FILES_A_SHARD))
    return [*parts, *(_described(listing, described) for listing in slices)]


def _described(listing: Listing, described: Metadata | None, bad: Collection[str] = ()) -> _Part:
    """Return a part with the checks of its rows; texts that were `bad` when the part was recorded stay so."""
    if described is None:
        return _Part(tuple(listing))
    checks = tuple(sidecars.BAD if path in bad else described.checks.get(path) for path, _, _ in listing)
    return _Part(tuple(listing), described.files, described.schema, checks)


def _with_faults(
    part: _Part, recorded: _Part | None, texts: Mapping[str, str], root: AudioRoot
) -> tuple[_Part, Faults]:
    """Read the texts of a part that are new, changed or bad, and return the part with the bad ones, and why."""
    known_faults = (
        {} if recorded is None else dict(zip((path for path, _, _ in recorded.files), recorded.checks, strict=False))
    )
    paths = [path for path, _, _ in part.files]
    unread = {
        path: texts[path]
        for path, check in zip(paths, part.checks, strict=True)
        if path in texts and (check == sidecars.BAD or check != known_faults.get(path))
    }
    new_faults = sidecars.faults_of(root, [*unread.values()])
    faults = {path: new_faults[text] for path, text in unread.items() if text in new_faults}
    checks = (sidecars.BAD if path in faults else check for path, check in zip(paths, part.checks, strict=True))
    return part._replace(checks=tuple(checks)), tuple(faults.values())


def _gone(part: _Part, present: Collection[str]) -> tuple[tuple[int, str], ...]:
    return tuple((row, path) for row, (path, _, _) in enumerate(part.files) if path not in present)


class FolderKind(SourceKind):
    """Folders of recordings. Slices of their listings are shards."""

    name = "folder"
    described = "audio files"
    holds_audio = False
    has_ids = True
    is_sliced = True
    is_folder = True
    as_texts = (
        "write them in quotes in metadata.jsonl, or as strings in metadata.parquet; the cells of metadata.csv "
        "are texts in the column of source.text"
    )
    has_faults = True
    piece_rows = 400
    """Keeps the part of the listing that is sent with a piece below 20 KB: about 33 bytes per file with an
    incompressible name."""

    def __init__(self, links_into: str | None = None) -> None:
        self._links_into = links_into

    def within(self, audio_root: str | None) -> "FolderKind":
        """Return the kind as it reads files beside recordings whose links may lead into a folder."""
        return FolderKind(audio_root)

    def cut(self, origin: Origin, recorded: Sequence[Shard], storage_options: Options, *, recut: bool) -> list[Cut]:
        """Cut the listing of a folder into parts; see `cut`. Texts that were not recorded are read."""
        before = [_unpack(shard.part) for shard in recorded]
        parts = [(part, Faults()) for part in _cut(origin.entries, before, origin.metadata)]
        if origin.metadata is not None and origin.metadata.texts:
            root = recordings_of(origin.url, storage_options, self._links_into)
            parts = [
                _with_faults(part, recorded_part, origin.metadata.texts, root)
                for (part, _), recorded_part in zip_longest(parts, before)
            ]
        present = {entry.path for entry in origin.entries}.union(origin.metadata.checks if origin.metadata else ())
        packed = [(_pack(part), (faults, _gone(part, present))) for part, faults in parts]
        return [Cut(num_bytes(text), version(text), text, *count_strays(text), *more) for text, more in packed]

    def described_by(self, listing: Beside, storage_options: Options) -> tuple[Metadata | None, Sequence[str]]:
        """Return the metadata or the texts of a folder's recordings; see `SourceKind.described_by`."""
        if files := _metadata_files(listing, storage_options):
            root = recordings_of(listing.root, storage_options, self._links_into)
            return metadata.read(root, files, listing.text), files
        if listing.text is not None and not listing.shards:
            return sidecars.find(listing.recordings, listing.entries)
        return None, ()

    def survey(
        self, url: str, part: str, storage_options: Options = None, columns: Sequence[str] | None = None
    ) -> Survey:
        """Survey a part of a folder by its recorded listing."""
        content = _unpack(part)
        groups = [Group(1, 0, estimated_seconds(num_bytes, path)) for path, num_bytes, _ in content.files]
        return Survey(_schema(content), len(groups), groups, version(part))

    def read_rows(
        self,
        shard: Shard,
        piece: Piece,
        columns: Sequence[str],
        storage_options: Options = None,
        as_dictionaries: Collection[str] = (),
    ) -> Iterator[pa.RecordBatch]:
        """Yield a piece's rows. `id` is taken from the metadata, else it is the path in the folder.

        Raises:
            ShardError: the metadata changed since it was planned.
        """
        first, is_narrow, part = shard.part.rpartition(_FROM)
        if not is_narrow:
            first, _, part = self.narrow(shard, piece).part.rpartition(_FROM)
        content = _unpack(part)
        rows = slice(piece.first - int(first), piece.end - int(first))
        paths = [path for path, _, _ in content.files[rows]]
        audio = pa.array([{"bytes": None, "path": path} for path in paths], AUDIO_TYPE)
        table = pa.table({"id": pa.array(paths, pa.string()), "audio": audio})
        if content.schema is not None and {*columns} & {*content.schema.names, FAULT}:
            recordings = list(zip(paths, content.checks[rows], strict=True))
            described = _columns(recordings_of(shard.url, storage_options, self._links_into), content, recordings)
            for name in described.column_names:
                column = described.column(name)
                if name == "id":
                    table = table.set_column(0, "id", pc.coalesce(column.cast(pa.string()), table.column("id")))
                else:
                    table = table.append_column(name, column)
        if FAULT not in table.column_names:
            table = table.append_column(FAULT, pa.nulls(len(paths), pa.string()))
        yield from table.select(list(columns)).to_batches()

    def audio_root(self, shard: Shard) -> str | None:
        """Return the folder itself."""
        return shard.url

    def rows_id(self, shard: Shard) -> str:
        """Return a hash of the paths and of the metadata."""
        content = _unpack(shard.part)
        rows: list[object] = [shard.labels_version, *(path for path, _, _ in content.files)]
        return hashlib.sha256(repr([*rows, *_described_metadata(content)]).encode()).hexdigest()[:16]

    def narrow(self, shard: Shard, piece: Piece) -> Shard:
        """Return a shard reduced to one of its pieces, with its part of the listing alone.

        Raises:
            ShardError: the recorded listing is damaged.
        """
        if _version(shard.part) != shard.version:
            raise ShardError(f"{shard.url}: its recorded listing is damaged. Use another sink")
        whole = _unpack(shard.part)
        files = whole.files[piece.first : piece.end]
        naming = tuple(metadata.naming(whole.metadata, [path for path, _, _ in files]))
        narrowed = _Part(files, naming, whole.schema, whole.checks[piece.first : piece.end])
        return replace(shard, pieces=(piece,), part=f"{piece.first}{_FROM}{_pack(narrowed)}")


def _metadata_files(listing: Beside, storage_options: Options) -> list[str]:
    """Return the metadata files of a folder of recordings; empty if it has shards (a Parquet file may be either)."""
    files = [entry.path for entry in listing.entries if metadata.is_metadata(entry.path)]
    names = {entry.path for entry in listing.shards}
    if not names <= {*files}:
        return []
    if not names:
        metadata.refuse_compressed(listing.root, [entry.path for entry in listing.entries])
    if not all(metadata.names_recordings(join_url(listing.root, path), storage_options) for path in names):
        return []
    return files


def _columns(root: AudioRoot, part: _Part, recordings: Sequence[tuple[str, int | None]]) -> pa.Table:
    """Return the columns of recordings from the metadata or texts beside them."""
    assert part.schema is not None
    if sidecars.are_sidecars(part.metadata):
        return sidecars.read_columns(root, part.metadata, recordings)
    return metadata.read_columns(root, part.metadata, part.schema, recordings)


def _schema(part: _Part) -> pa.Schema:
    return pa.schema([*SCHEMA, *(field for field in part.schema or () if field.name not in SCHEMA.names)])


def count_strays(part: str) -> tuple[int, int]:
    """Return the number of recordings that no metadata file names (0 without metadata files), and of missing files."""
    content = _unpack(part)
    return content.checks.count(None), sum(file[1:] == _MISSING for file in content.files)


def version(part: str) -> str:
    """Hash a listing with the versions of its files and their metadata."""
    content = _unpack(part)
    listing: list[object] = [*content.files, *_described_metadata(content)]
    return hashlib.sha256(repr(listing).encode()).hexdigest()[:16]


def _described_metadata(part: _Part) -> list[object]:
    """Return columns and values of the metadata; empty without metadata files."""
    return [] if part.schema is None else [[(field.name, str(field.type)) for field in part.schema], part.checks]


def num_bytes(part: str) -> int:
    """Return the total bytes of a part's files."""
    return sum(size for _, size, _ in unpack(part))


def pack(listing: Listing) -> str:
    """Return a listing in compressed form."""
    return _pack(_Part(tuple(listing)))


def unpack(part: str) -> list[tuple[str, int, int]]:
    """Return the listing of a part, which may be narrowed."""
    return list(_unpack(part).files)


def _pack(part: _Part) -> str:
    value: object = [list(file) for file in part.files]
    if part.schema is not None:
        schema = base64.b64encode(part.schema.serialize()).decode()
        value = {"files": value, "metadata": part.metadata, "schema": schema, "checks": part.checks}
    return base64.b64encode(zlib.compress(json.dumps(value).encode())).decode()


# A shard of 10,000 files is narrowed once per piece. The cache avoids unpacking its listing each time.
@functools.lru_cache(maxsize=4)
def _unpack(part: str) -> _Part:
    part = part.rpartition(_FROM)[2]
    raw = bounds.unzipped(base64.b64decode(part), bounds.MOST_RECORD_BYTES)
    value = bounds.parse_json(raw, bounds.MOST_RECORD_BYTES)
    files = value if isinstance(value, list) else value["files"]
    listing = cast("tuple[tuple[str, int, int], ...]", tuple((path, size, check) for path, size, check in files))
    if isinstance(value, list):
        return _Part(listing)
    raw_schema = base64.b64decode(value["schema"])
    refuse_ray_types("its recorded listing", raw_schema)
    schema = pa.ipc.read_schema(pa.py_buffer(raw_schema))
    return _Part(listing, tuple(value["metadata"]), schema, tuple(value["checks"]))


_version = functools.lru_cache(maxsize=4)(version)
