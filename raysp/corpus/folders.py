"""Shards cut from folders of audio files: a file a row, ten thousand files of the sorted listing a shard.

The listing of a shard is recorded with it, packed: files that come later make new shards, and a file that goes leaves
its row behind.
"""

import base64
import functools
import hashlib
import json
import zlib
from collections.abc import Iterator, Sequence

import pyarrow as pa

from raysp.corpus.manifests import AUDIO_TYPE
from raysp.corpus.shards import Piece, Shard, Survey, cut_groups
from raysp.errors import ShardError
from raysp.storage.store import Entry

FILES_A_SHARD = 10_000
FILES_A_PIECE = 400
"""So that a piece's part of the listing, which travels with it, stays below 20 KB: about 33 bytes a file whose name
cannot be compressed."""
# By name, since a folder holds other things too; what a file is its content says.
_READ = frozenset(
    {".aif", ".aifc", ".aiff", ".au", ".caf", ".flac", ".mp3", ".oga", ".ogg", ".opus"}
    | {".rf64", ".snd", ".sph", ".w64", ".wav", ".wave"}
)
_NOT_READ = frozenset(
    {".3ga", ".3gp", ".3gpp", ".aac", ".ac3", ".ac4", ".adts", ".alac", ".amr", ".ape", ".asf", ".avi", ".awb"}
    | {".dff", ".dsf", ".dts", ".eac3", ".flv", ".gsm", ".m4a", ".m4b", ".m4v", ".mka", ".mkv", ".mov", ".mp2", ".mp4"}
    | {".mpc", ".mpeg", ".mpg", ".mpga", ".nist", ".ogm", ".ogv", ".pcm", ".qcp", ".ra", ".raw", ".shn", ".spx"}
    | {".tta", ".voc", ".vox", ".weba", ".webm", ".wma", ".wmv", ".wv", ".wv1", ".wv2"}
)
"""Of formats that are mostly not read: such a file is a row all the same, `unsupported_format`, and is never lost."""
SUFFIXES = _READ | _NOT_READ
SCHEMA = pa.schema([pa.field("id", pa.string()), pa.field("audio", AUDIO_TYPE)])

_FROM = "@"  # behind the first row of a narrowed listing; base64 does not have it

Listing = Sequence[tuple[str, int, int]]
"""Path, bytes and a hash of the version of each file."""


def is_audio(path: str) -> bool:
    """Return whether a file looks like a recording by its name, so that it is a row."""
    return suffix_of(path) in SUFFIXES


def suffix_of(path: str) -> str:
    """Return the suffix of a file's name in small letters, with its dot; empty where there is none."""
    _, dot, suffix = path.rpartition("/")[2].rpartition(".")
    return f".{suffix.lower()}" if dot else ""


def cut(entries: Sequence[Entry], recorded: Sequence[str]) -> list[str]:
    """Cut a listing into parts: first those that are recorded, brought up to date, then files that are new."""
    now = {entry.path: (entry.path, entry.num_bytes, zlib.crc32(entry.version.encode())) for entry in entries}
    parts = [[now.pop(one[0], one) for one in unpack(part)] for part in recorded]
    new = [now[path] for path in sorted(now)]
    parts += [new[first : first + FILES_A_SHARD] for first in range(0, len(new), FILES_A_SHARD)]
    return [pack(part) for part in parts]


def survey(part: str) -> Survey:
    """Survey a part."""
    listing = unpack(part)
    pieces = [
        Piece(first + piece.first, first + piece.end)
        for first in range(0, len(listing), FILES_A_PIECE)
        for piece in cut_groups([(num_bytes, 1) for _, num_bytes, _ in listing[first : first + FILES_A_PIECE]])
    ]
    return Survey(SCHEMA, len(listing), tuple(pieces), version(part))


def narrow(shard: Shard, piece: Piece) -> str:
    """Give what is needed of a shard's listing to read one of its pieces.

    Raises:
        ShardError: the recorded listing is damaged.
    """
    if _version(shard.part) != shard.version:
        raise ShardError(f"{shard.url}: its recorded listing is damaged. Take another sink")
    return f"{piece.first}{_FROM}{pack(_unpack(shard.part)[piece.first : piece.end])}"


def version(part: str) -> str:
    """Hash a listing, with the versions of its files."""
    return hashlib.sha256(repr([tuple(one) for one in unpack(part)]).encode()).hexdigest()[:16]


def num_bytes(part: str) -> int:
    """Add up the files."""
    return sum(size for _, size, _ in unpack(part))


def read_rows(shard: Shard, piece: Piece, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    """Yield a piece's rows: `id` is the path in the folder."""
    first, is_narrow, part = shard.part.rpartition(_FROM)
    if not is_narrow:
        first, _, part = narrow(shard, piece).rpartition(_FROM)
    paths = [path for path, _, _ in unpack(part)[piece.first - int(first) : piece.end - int(first)]]
    audio = pa.array([{"bytes": None, "path": path} for path in paths], AUDIO_TYPE)
    table = pa.table({"id": pa.array(paths, pa.string()), "audio": audio})
    yield from table.select(list(columns)).to_batches()


def pack(listing: Listing) -> str:
    """Write a listing down in few bytes."""
    return base64.b64encode(zlib.compress(json.dumps([list(one) for one in listing]).encode())).decode()


def unpack(part: str) -> list[tuple[str, int, int]]:
    """Read a listing, or what is left of a narrowed one."""
    part = part.rpartition(_FROM)[2]
    return [(path, size, check) for path, size, check in json.loads(zlib.decompress(base64.b64decode(part)))]


# A shard of 10,000 files is narrowed for each of its pieces: once is enough to read its listing.
_unpack = functools.lru_cache(maxsize=4)(unpack)
_version = functools.lru_cache(maxsize=4)(version)
