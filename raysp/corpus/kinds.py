"""Interface of a kind of source: the files it claims, how shards are cut from them, and how their rows are read.

A kind is one class in a file of its own and one line of `sources.KINDS`, which imports the file when it is needed.
"""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar

import pyarrow as pa

from raysp.corpus.shards import PIECE_ROWS, Piece, Shard, Survey
from raysp.storage.audio_root import matched
from raysp.storage.store import Entry

Options = Mapping[str, object] | None
FAULT = "raysp.fault"
"""Column of `read_rows` with why the values of a row cannot be read, which becomes the error of the row; null if they
can. Such values are null."""

JSON_TEXTS = 'write them in quotes ("112")'
"""How a user writes a column of numbers in JSON as texts, for messages."""


@dataclass(frozen=True)
class Metadata:
    """The current metadata files of a folder."""

    files: tuple[str, ...]
    """Paths relative to the folder."""
    schema: pa.Schema
    """Schema of their columns, without `file_name`."""
    checks: Mapping[str, int]
    """Hash of the values of each recording, by its path relative to the folder."""
    texts: Mapping[str, str] = field(default_factory=dict)
    """Path of the text beside each recording, if the files are texts."""

    def as_listed(self, paths: Iterable[str]) -> "Metadata":
        """Return the metadata with the names of recordings that are there in another Unicode normal form only."""
        found = matched(self.checks, paths)
        return replace(self, checks={found.get(path, path): check for path, check in self.checks.items()})


@dataclass(frozen=True)
class Origin:
    """A file that holds rows, or a folder whose files are rows."""

    url: str
    entries: tuple[Entry, ...]
    """The file itself, or the recordings of the folder, sorted by path."""
    metadata: Metadata | None = None
    """Metadata of the recordings of a folder."""


@dataclass(frozen=True)
class Beside:
    """Listing of a folder with recordings, in which files beside them may describe them."""

    root: str
    recordings: Sequence[Entry]
    shards: Sequence[Entry]
    """Files that hold rows by their names."""
    entries: Sequence[Entry]
    """All files."""
    text: str | None
    """Column of the texts (`Shards.text`); None: no texts are read."""


@dataclass(frozen=True)
class Cut:
    """A shard cut from an origin; its rows are not surveyed yet."""

    num_bytes: int
    version: str
    part: str = ""
    """Part of the origin, in a format of the kind; empty for a whole file."""
    unnamed: int = 0
    """Recordings without a row in the metadata of their folder."""
    missing: int = 0
    """Recordings of the metadata that do not exist."""
    faults: tuple[str, ...] = ()
    """Why texts beside recordings cannot be read, one for each recording."""
    gone: tuple[tuple[int, str], ...] = ()
    """Rows of a recorded part whose recordings are no longer listed, with the paths of these."""


class SourceKind(ABC):
    """Base of kinds of sources. The defaults are those of files with a column of recordings, one shard each."""

    name: ClassVar[str]
    """Name in the records of sinks; never changes."""
    described: ClassVar[str]
    """The files for messages, such as "Parquet (*.parquet)"."""
    suffixes: ClassVar[tuple[str, ...]] = ()
    """Suffixes of files that hold rows; a longer one before its own end."""
    folder_suffixes: ClassVar[tuple[str, ...]] = ()
    """Those of `suffixes` that are also read if the url is a folder."""
    named_suffixes: ClassVar[tuple[str, ...]] = ()
    """Those of `suffixes` that are read only if the url ends with them: other files have them as well."""
    companions: ClassVar[tuple[str, ...]] = ()
    """Names of files that describe the shards of a folder and need not be reported."""
    excerpt_columns: ClassVar[tuple[str, ...]] = ()
    """Columns of offset and duration in seconds, which select a part of each recording; empty for whole recordings."""
    holds_audio: ClassVar[bool] = True
    """Whether rows may hold recordings. Otherwise they only name files."""
    is_sliced: ClassVar[bool] = False
    """Whether an origin is cut into any number of shards, whose label shards are numbered."""
    has_ids: ClassVar[bool] = False
    """Whether rows have ids whatever the source holds, such as paths."""
    ids_are_paths: ClassVar[bool] = False
    """Whether ids are paths of members of an archive."""
    is_folder: ClassVar[bool] = False
    """Whether the url of a shard is a folder, not a file."""
    as_texts: ClassVar[str] = "write the column as strings (pandas: .astype('string'))"
    """How a user writes a column of numbers as texts, for messages."""
    piece_rows: ClassVar[int] = PIECE_ROWS
    """Most rows of a piece."""
    reads_columns_alone: ClassVar[bool] = True
    """Whether one column can be read without reading the recordings."""
    has_faults: ClassVar[bool] = False
    """Whether values of single rows may be unreadable; rows then have the column `FAULT`."""

    def within(self, audio_root: str | None) -> "SourceKind":
        """Return the kind as it reads files beside recordings whose links may lead into a folder."""
        return self

    def claims(self, name: str, *, in_folder: bool = False) -> bool:
        """Return whether a file holds rows of this kind by its name; of a folder it is read only if that is certain."""
        return name.endswith(self.folder_suffixes if in_folder else self.suffixes)

    def describes(self, name: str) -> bool:
        """Return whether a file of a folder describes its shards, by its name, and need not be reported."""
        return name in self.companions

    def stem(self, path: str) -> str:
        """Return a file's path without the suffix of its kind, or else without its last one."""
        for suffix in self.suffixes:
            if path.endswith(suffix):
                return path.removesuffix(suffix)
        head, dot, _ = path.rpartition(".")
        return head if dot and not head.endswith("/") else path

    def chosen(self, root: str, entries: Sequence[Entry], storage_options: Options) -> Sequence[Entry]:
        """Return the files of a folder, without files of this kind that are not shards."""
        return entries

    def described_by(self, given: Beside, storage_options: Options) -> tuple[Metadata | None, Sequence[str]]:
        """Return the description of the recordings of a folder, with the paths of its files.

        Raises:
            ShardError, StoreError: the files cannot be read.
        """
        return None, ()

    def cut(self, origin: Origin, recorded: Sequence[Shard], storage_options: Options, *, recut: bool) -> list[Cut]:
        """Cut an origin into shards: first the recorded ones, then new ones.

        Args:
            origin: the file or folder.
            recorded: its recorded shards, in order; given to sliced kinds only.
            storage_options: options of its storage.
            recut: whether recorded shards whose content changed may be cut again.

        Raises:
            ShardError, StoreError: the origin cannot be cut.
        """
        [entry] = origin.entries
        return [Cut(entry.num_bytes, entry.version)]

    @abstractmethod
    def survey(
        self, url: str, part: str, storage_options: Options = None, columns: Sequence[str] | None = None
    ) -> Survey:
        """Return the survey of a shard, reading as little as possible.

        Args:
            url: url of the file or folder.
            part: part of the url's content.
            storage_options: options of its storage.
            columns: columns that will be read, that of the recordings first; None for all.

        Raises:
            ShardError: the shard cannot be read, or would run foreign code.
            StoreError: the shard is missing or not readable.
        """
        ...

    @abstractmethod
    def read_rows(
        self,
        shard: Shard,
        piece: Piece,
        columns: Sequence[str],
        storage_options: Options = None,
        as_dictionaries: Collection[str] = (),
    ) -> Iterator[pa.RecordBatch]:
        """Yield a piece's rows in order, with only the given `columns`.

        Repeated recordings in the columns `as_dictionaries` may be returned as dictionaries.

        Raises:
            ShardError: the shard is damaged, or changed since it was planned.
        """
        ...

    def starts(self, shard: Shard, storage_options: Options = None) -> list[int]:
        """Return rows, 0 first, at which reading may begin without reading the rows before.

        Raises:
            ShardError, StoreError: the shard cannot be read.
        """
        return [piece.first for piece in shard.pieces]

    def path_column(self, shard: Shard, audio: str, storage_options: Options = None) -> str | None:
        """Return the column to read for the paths of recordings; None if there are none.

        Raises:
            ShardError, StoreError: the shard cannot be read.
        """
        return audio

    def audio_root(self, shard: Shard) -> str | None:
        """Return the folder that confines the paths of a shard's recordings; None if paths are not allowed."""
        return None

    def rows_id(self, shard: Shard) -> str:
        """Return an identifier of the rows of a shard, which covers recordings only where the shard holds them."""
        part = f"-{hashlib.sha256(shard.part.encode()).hexdigest()[:8]}" if shard.part else ""
        return f"{shard.input_id}{part}"

    def files_of(self, shard: Shard) -> list[str]:
        """Return the urls of the files that hold the recordings of a shard; none if rows only name files."""
        return [shard.url] if self.holds_audio else []

    def narrow(self, shard: Shard, piece: Piece) -> Shard:
        """Return a shard reduced to one of its pieces, small enough to be sent with it.

        Raises:
            ShardError: the recorded part is damaged.
        """
        return replace(shard, pieces=(piece,))
