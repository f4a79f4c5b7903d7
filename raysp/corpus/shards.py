"""Shards and pieces, the units of a corpus."""

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Protocol

import pyarrow as pa

from raysp.errors import ShardError
from raysp.storage.store import Store, split_url
from raysp.storage.stores import open_store
from raysp.words import RESTORE

AUDIO = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
"""Type of a column of recordings in the Hugging Face audio layout."""
PIECE_BYTES = 256 * 1024 * 1024
"""Maximum encoded bytes of a piece, unless one row is larger."""
PIECE_ROWS = 10_000
PIECE_DECODED_BYTES = 1024 * 1024 * 1024
"""Maximum decoded bytes of a piece in the columns that a pipeline reads, unless one row is larger."""


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
    """Pieces in row order, covering every row once. Cut by the footer alone, and only once."""
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


@dataclass(frozen=True)
class Survey:
    """Facts about a shard that are known before any row is read."""

    schema: pa.Schema
    num_rows: int
    pieces: tuple[Piece, ...]
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
    groups: Sequence[tuple[int, int] | tuple[int, int, int]], max_bytes: int = PIECE_BYTES
) -> tuple[Piece, ...]:
    """Cut groups of (bytes, rows, decoded bytes) into pieces: whole groups while they fit, even slices of larger ones.

    A piece holds at most `max_bytes`, `PIECE_ROWS` rows and `PIECE_DECODED_BYTES`.
    """
    limits = (max_bytes, PIECE_ROWS, PIECE_DECODED_BYTES)
    edges, row, held = [0], 0, [0, 0, 0]
    for group in groups:
        num_rows, sizes = group[1], (*group, 0)[:3]
        if any(one + more > most for one, more, most in zip(held, sizes, limits, strict=True)):
            slices = min(num_rows, max(-(-more // most) for more, most in zip(sizes, limits, strict=True)))
            edges += [row + num_rows * k // slices for k in range(slices)]
            held = list(sizes if slices == 1 else limits)  # slices take no further groups
        else:
            held = [one + more for one, more in zip(held, sizes, strict=True)]
        row += num_rows
    edges.append(row)
    return tuple(Piece(a, b) for a, b in pairwise(edges) if b > a)


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
