"""Shards and pieces, the units of a corpus."""

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Protocol, cast

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
    """Url of the label shard whose columns are read with those of the shard; empty: none is."""
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
        """The hash."""
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


def check_columns(url: str, schema: pa.Schema, *, audio: str, others: Sequence[str], has_rows: bool = True) -> None:
    """Raise unless the shard has the columns that a pipeline reads. Types are not checked in a shard without rows.

    Raises:
        ShardError: with the shard, the column, the columns found and those expected.
    """
    for column in dict.fromkeys((audio, *others)):
        if (times := schema.names.count(column)) != 1:
            found = f"{times} columns" if times else "no column"
            raise ShardError(f"{url}: has {found} {column!r}, expected one; its columns are {', '.join(schema.names)}")
    kind = schema.field(audio).type
    if has_rows and not (_is_bytes(kind) or (pa.types.is_struct(kind) and _is_bytes(_child(kind, "bytes")))):
        raise ShardError(
            f"{url}: column {audio!r} is {kind!s:.200}; expected struct<bytes: binary, path: string> or binary, the "
            f"bytes of audio files. {_remedy(kind)}"
        )


def _remedy(kind: pa.DataType) -> str:
    """Return what to do with a column of another type than recordings."""
    kind = kind.value_type if isinstance(kind, pa.DictionaryType) else kind
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return (
            "Of paths, write {'bytes': None, 'path': path} and set source.audio_root to their folder, or write a "
            'manifest: {"audio_filepath": path} in a line of a *.jsonl file each. If another column has the '
            "recordings, set source.audio"
        )
    if _is_list(kind) or (pa.types.is_struct(kind) and _is_list(_child(kind, "array"))):
        return (
            "Of samples, write the bytes of WAV or FLAC files, such as those of soundfile.write(io.BytesIO(), samples, "
            "rate, format='WAV'); datasets writes files with cast_column('audio', Audio()). Of several recordings in a "
            "row, write a row each"
        )
    if pa.types.is_struct(kind) and not pa.types.is_null(_child(kind, "path")):
        return "Add the field 'bytes', null for recordings that 'path' names, and set source.audio_root to their folder"
    return "Set source.audio to the column of recordings"


def _is_list(kind: pa.DataType) -> bool:
    of_lists = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    of_views = (pa.types.is_list_view, pa.types.is_large_list_view)
    return any(fits(kind) for fits in (*of_lists, *of_views))


def _child(kind: pa.DataType, name: str) -> pa.DataType:
    index = cast("pa.StructType", kind).get_field_index(name)
    return kind.field(index).type if index >= 0 else pa.null()


def _is_bytes(kind: pa.DataType) -> bool:
    kind = kind.value_type if isinstance(kind, pa.DictionaryType) else kind
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind))


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
