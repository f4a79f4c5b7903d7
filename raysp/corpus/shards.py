"""Shards and pieces, the units of a corpus."""

import hashlib
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate, pairwise
from typing import NamedTuple, Protocol

import pyarrow as pa

from raysp.errors import ShardError
from raysp.storage.store import Store, split_url
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
    """Url of the label shard whose columns are read with those of the shard; empty: only the shard is read."""
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

    @property
    def enough_seconds(self) -> float:
        """Seconds of audio from which more audio does not change the size."""
        return self.most_seconds * self.num_pieces

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


def input_id(num_bytes: int, version: str, found: Digested, labels_version: str = "") -> str:
    """Hash size, version and digest, which identify the content of a shard, and the version of its label shard."""
    content = (str(num_bytes), version, found.digest, *((labels_version,) if labels_version else ()))
    return hashlib.sha256("\0".join(content).encode()).hexdigest()[:16]


def check_same(shard: Shard, num_bytes: int, found: Digested) -> None:
    """Raise ShardError if a shard changed since it was planned."""
    if input_id(num_bytes, shard.version, found, shard.labels_version) != shard.input_id:
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
        if pieces and _is_open(pieces[-1], part, most) and _can_be_joined(pieces[-1], part, most):
            pieces[-1] = _joined(pieces[-1], part)
        else:
            pieces.append(part)
    match pieces:
        case [*_, before, last] if last.seconds < LEAST_SECONDS and _can_be_joined(before, last, most):
            pieces[-2:] = [_joined(before, last)]
    edges = accumulate((piece.num_rows for piece in pieces), initial=0)
    return tuple(Piece(first, end) for first, end in pairwise(edges))


def _slices(group: Group, most: Group) -> Iterator[Group]:
    """Yield even slices of a group that is too large for a piece, else the group; nothing if it has no rows."""
    num_rows, num_bytes, seconds = group
    needed = max(math.ceil(num_rows / most.num_rows), math.ceil(num_bytes / most.num_bytes))
    worth_reading = 1 + 2 * READ_AGAIN_BYTES * seconds / max(1, num_bytes)  # half of the group again for each but one
    wanted = min(math.ceil(seconds / most.seconds), int(seconds // LEAST_SECONDS), int(worth_reading))
    number = min(num_rows, max(1, needed, wanted))
    for k in range(number):
        rows = num_rows * (k + 1) // number - num_rows * k // number
        yield Group(rows, num_bytes * rows // num_rows, seconds * rows / num_rows)


def _is_open(piece: Group, part: Group, most: Group) -> bool:
    """Return whether the audio of a piece lets it go on with the next part."""
    return piece.seconds < LEAST_SECONDS or piece.seconds + part.seconds <= most.seconds


def _can_be_joined(piece: Group, part: Group, most: Group) -> bool:
    return piece.num_rows + part.num_rows <= most.num_rows and piece.num_bytes + part.num_bytes <= most.num_bytes


def _joined(piece: Group, part: Group) -> Group:
    return Group(piece.num_rows + part.num_rows, piece.num_bytes + part.num_bytes, piece.seconds + part.seconds)


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
