"""Shards and pieces, the units of a corpus, and the interface of a kind of source, which cuts and reads them.

A kind is one class in a file of its own and one line of `sources.KINDS`, which imports the file when it is needed.
"""

import hashlib
import math
import re
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate, pairwise
from typing import ClassVar, NamedTuple, Protocol

import pyarrow as pa

from raysp.errors import ShardError
from raysp.storage.audio_root import matched
from raysp.storage.store import Entry, Store, split_url
from raysp.storage.stores import open_store
from raysp.words import RESTORE

AUDIO = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
"""Type of a column of recordings in the Hugging Face audio layout."""
PIECE_BYTES = 256 * 1024 * 1024
"""Maximum decoded bytes of a piece in the columns that a pipeline reads, unless one row is larger."""
PIECE_ROWS = 10_000
PIECE_SECONDS = 2 * 60 * 60.0
LEAST_SECONDS = 60.0
"""Estimated seconds from which a piece may end, unless its shard does."""
READ_AGAIN_BYTES = 180_000
"""Bytes that slices of a group may read again for each second of its audio: at 200 MB/s, a tenth of the time of a small
model on two cores. A slice is read from the beginning of its group."""
SECONDS_BY_PATH = 10.0
"""Assumed seconds of a row that is read by path and declares no duration."""


@dataclass(frozen=True, order=True)
class Piece:
    """Neighbouring rows `first <= row < end` of one shard, read by one task and resumed together."""

    first: int
    end: int

    @property
    def num_rows(self) -> int:
        """Number of rows."""
        return self.end - self.first


@dataclass(frozen=True)
class Shard:
    """One file of a corpus, as recorded at the first plan."""

    name: str
    """Path of its label shard under the sink, always ending in `.parquet`."""
    url: str
    num_bytes: int
    version: str
    """Version by the store: an etag, or the modification time in nanoseconds."""
    num_rows: int
    input_id: str
    """Hash of size, version and footer: 16 hexadecimal digits."""
    pieces: tuple[Piece, ...]
    """Pieces in row order, covering every row once. Cut from the survey alone, and only once."""
    kind: str = "parquet"
    """Name of its kind of source (`SourceKind.name`)."""
    part: str = ""
    """Part of the url's content, if several shards are cut from it. The format depends on the kind."""
    seconds: float | None = field(default=None, compare=False)
    """Seconds of audio as claimed by the source; None if unknown without reading audio."""
    labels: str = ""
    """Url of the label shard whose columns are read beside the columns of the shard; empty: only the shard is read."""
    labels_version: str = ""
    """Version of that label shard by its store, part of the input id."""


class Group(NamedTuple):
    """Neighbouring rows of a shard that are stored together, such as a row group."""

    num_rows: int
    num_bytes: int
    """Decoded bytes of the columns that are read, as far as known."""
    seconds: float
    """Estimated seconds of audio."""


@dataclass(frozen=True)
class PieceSize:
    """Size of the pieces that a plan cuts new shards into."""

    most_seconds: float = PIECE_SECONDS
    num_pieces: int = 1
    """Number of pieces to cut all shards into, as far as their audio suffices."""

    def seconds(self, corpus_seconds: float) -> float:
        """Return the estimated seconds of a piece of a corpus."""
        return max(LEAST_SECONDS, min(self.most_seconds, corpus_seconds / self.num_pieces))


@dataclass(frozen=True)
class Survey:
    """Facts about a shard that are known before any row is read."""

    schema: pa.Schema
    num_rows: int
    groups: Sequence[Group]
    """Groups in row order, covering every row once."""
    digest: str
    nulls: frozenset[str] = frozenset()
    """Columns (such as "audio.bytes") whose values are all null, as far as known without reading them."""
    seconds: float | None = None
    """Seconds of all its audio; None if unknown."""
    part: str = ""
    """Positions in the file to record as the part of a shard that is a whole file, so that pieces need not search."""


class Digested(Protocol):
    """Facts about a shard with a hash of what identifies its content."""

    @property
    def digest(self) -> str:
        """Hash that identifies the content of the shard."""
        ...


def place_of(url: str, storage_options: Mapping[str, object] | None) -> tuple[Store, str]:
    """Return the store of a file, and the file's path in it."""
    folder, name = split_url(url)
    return open_store(folder, storage_options or {}), name


def one_line(error: Exception) -> str:
    """Return an error's message in one line."""
    return " ".join(str(error).split()).rstrip(".")


def refuse_ray_types(url: str, raw_schema: bytes) -> None:
    """Raise if a serialised schema contains an extension type of Ray at any depth."""
    if b"ARROW:extension:name" in raw_schema and re.search(rb"\bray\.", raw_schema):
        raise ShardError(
            f"{url}: its schema holds an extension type of Ray, which would run code from the file. "
            "Write the shard again with plain columns"
        )


def input_id(num_bytes: int, version: str, survey: Digested, labels_version: str = "") -> str:
    """Hash size, version and digest, which identify the content of a shard, and the version of its label shard."""
    content = (str(num_bytes), version, survey.digest, *((labels_version,) if labels_version else ()))
    return hashlib.sha256("\0".join(content).encode()).hexdigest()[:16]


def check_same(shard: Shard, num_bytes: int, survey: Digested) -> None:
    """Raise ShardError if a shard changed since it was planned."""
    if input_id(num_bytes, shard.version, survey, shard.labels_version) != shard.input_id:
        raise ShardError(f"{shard.url}: changed since it was planned. {RESTORE}")


def cut_groups(
    groups: Iterable[Group], seconds: float = PIECE_SECONDS, most_rows: int = PIECE_ROWS
) -> tuple[Piece, ...]:
    """Cut groups into pieces: whole groups while they fit, even slices of larger ones.

    A piece holds at most `most_rows` and `PIECE_BYTES`, and about `seconds` of audio. Within these limits, a piece of
    less than `LEAST_SECONDS` is joined with its neighbour.
    """
    most = Group(most_rows, PIECE_BYTES, seconds)
    pieces: list[Group] = []
    for part in (part for group in groups for part in _slices(group, most)):
        joined = _joined(pieces[-1], part, most) if pieces else None
        if joined and (pieces[-1].seconds < LEAST_SECONDS or joined.seconds <= seconds):
            pieces[-1] = joined
        else:
            pieces.append(part)
    match pieces:
        case [*_, before, last] if last.seconds < LEAST_SECONDS and (joined := _joined(before, last, most)):
            pieces[-2:] = [joined]
    edges = accumulate((piece.num_rows for piece in pieces), initial=0)
    return tuple(Piece(first, end) for first, end in pairwise(edges))


def _slices(group: Group, most: Group) -> Iterator[Group]:
    """Yield even slices of a group that is too large for a piece, else the group; nothing if it has no rows."""
    num_rows, num_bytes, seconds = group
    needed = max(math.ceil(num_rows / most.num_rows), math.ceil(num_bytes / most.num_bytes))
    worth_reading = 1 + 2 * READ_AGAIN_BYTES * seconds / max(1, num_bytes)  # half of the group again for each but one
    by_seconds = min(math.ceil(seconds / most.seconds), int(seconds // LEAST_SECONDS), int(worth_reading))
    number = min(num_rows, max(1, needed, by_seconds))
    for k in range(number):
        rows = num_rows * (k + 1) // number - num_rows * k // number
        yield Group(rows, num_bytes * rows // num_rows, seconds * rows / num_rows)


def _joined(piece: Group, part: Group, most: Group) -> Group | None:
    """Return neighbours as one; None if that would have too many rows or bytes."""
    joined = Group(piece.num_rows + part.num_rows, piece.num_bytes + part.num_bytes, piece.seconds + part.seconds)
    return joined if joined.num_rows <= most.num_rows and joined.num_bytes <= most.num_bytes else None


def only_first_rows(shards: Sequence[Shard], num_rows: int) -> tuple[Shard, ...]:
    """Return the shards of a corpus limited to its first rows, for a try-out."""
    kept: list[Shard] = []
    for shard in shards:
        if num_rows <= 0:
            break
        pieces = tuple(replace(p, end=min(p.end, num_rows)) for p in shard.pieces if p.first < num_rows)
        seconds = shard.seconds if shard.num_rows <= num_rows else None
        kept.append(replace(shard, pieces=pieces, num_rows=min(shard.num_rows, num_rows), seconds=seconds))
        num_rows -= shard.num_rows
    return tuple(kept)


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
        listed = matched(self.checks, paths)
        return replace(self, checks={listed.get(path, path): check for path, check in self.checks.items()})


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
    """Base of kinds of sources. The defaults suit files with a column of recordings, one shard each."""

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

    def described_by(self, listing: Beside, storage_options: Options) -> tuple[Metadata | None, Sequence[str]]:
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
            columns: columns that will be read, the column of the recordings first; None for all.

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

    def narrow(self, shard: Shard, piece: Piece) -> Shard:
        """Return a shard reduced to one of its pieces, small enough to be sent with it.

        Raises:
            ShardError: the recorded part is damaged.
        """
        return replace(shard, pieces=(piece,))


# Files are chosen by name, since folders hold other files too. Their format is detected by content.
_READ = frozenset(
    {".aif", ".aifc", ".aiff", ".au", ".caf", ".flac", ".mp3", ".oga", ".ogg", ".opus"}
    | {".rf64", ".snd", ".sph", ".w64", ".wav", ".wave"}
    | {".3ga", ".3gp", ".3gpp", ".aac", ".adts", ".asf", ".m4a", ".m4b", ".m4v", ".mka", ".mkv", ".mov", ".mp4"}
    | {".weba", ".webm", ".wma", ".wmv"}
)
_NOT_READ = frozenset(
    {".ac3", ".ac4", ".alac", ".amr", ".ape", ".avi", ".awb", ".dff", ".dsf", ".dts", ".eac3", ".flv", ".gsm", ".mp2"}
    | {".mpc", ".mpeg", ".mpg", ".mpga", ".nist", ".ogm", ".ogv", ".pcm", ".qcp", ".ra", ".raw", ".shn", ".spx"}
    | {".tta", ".voc", ".vox", ".wv", ".wv1", ".wv2"}
)
"""Suffixes of formats that are mostly unsupported. Such a file is still a row (`unsupported_format`), never dropped."""
SUFFIXES = _READ | _NOT_READ
OTHER_SUFFIXES = frozenset(
    {".cfg", ".csv", ".ini", ".json", ".toml", ".tsv", ".xls", ".xlsx", ".xml", ".yaml", ".yml"}
    | {".doc", ".docx", ".htm", ".html", ".ipynb", ".log", ".md", ".pdf", ".py", ".rst", ".sh", ".txt"}
    | {".gif", ".jpeg", ".jpg", ".npy", ".npz", ".png", ".pt", ".safetensors", ".svg"}
    | {".ctm", ".lab", ".lrc", ".rttm", ".srt", ".stm", ".textgrid", ".trn", ".vtt"}
    | {".db", ".lock", ".md5", ".sha256", ".sqlite", ".zip"}
)
"""Suffixes of files that hold neither rows nor a recording."""
_PCM = frozenset(
    {".aif", ".aifc", ".aiff", ".au", ".caf", ".dff", ".dsf", ".nist", ".pcm", ".raw", ".rf64", ".snd", ".sph"}
    | {".voc", ".w64", ".wav", ".wave"}
)
_LOSSLESS = frozenset({".alac", ".ape", ".flac", ".shn", ".tta", ".wv"})
PCM_BYTES_A_SECOND = 32_000
"""Bytes per second of 16-bit PCM at 16 kHz, the rate of most models."""
_LOSSLESS_SHARE, _LOSSY_SHARE = 0.5, 0.1
"""Bytes of other formats divided by bytes of PCM."""


def is_audio(path: str) -> bool:
    """Return whether a file is a recording by its suffix, and so a row."""
    return suffix_of(path) in SUFFIXES


def suffix_of(path: str) -> str:
    """Return the suffix of a file's name in lower case, with its dot; empty if there is none."""
    _, dot, suffix = path.rpartition("/")[2].rpartition(".")
    return f".{suffix.lower()}" if dot else ""


def has_exact_seeks(path: str) -> bool:
    """Return whether a part of a recording is decoded without the parts before, by its suffix."""
    return suffix_of(path) in _PCM | _LOSSLESS


def estimated_seconds(num_bytes: int, path: str = "") -> float:
    """Estimate the seconds of recordings by their bytes and the suffix of a name; by default as if lossless."""
    suffix = suffix_of(path)
    if suffix in _PCM:
        return num_bytes / PCM_BYTES_A_SECOND
    is_lossy = suffix in SUFFIXES - _LOSSLESS
    return num_bytes / (PCM_BYTES_A_SECOND * (_LOSSY_SHARE if is_lossy else _LOSSLESS_SHARE))


def without_suffix(path: str) -> str:
    """Return the path of a recording without the suffix of a known format; others are kept."""
    return path[: -len(suffix_of(path))] if is_audio(path) else path
