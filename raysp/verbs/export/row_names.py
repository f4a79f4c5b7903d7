"""Names of the files of rows: names of their recordings, or ids.

Names by path are a function of the source alone, so an export that is killed and run again writes the same files. No
two files of an export have one name, also where letter case is ignored: of recordings that would share a name, such as
`a.wav` and `a.flac` or two excerpts of a file, the first in the source has it, and further ones are numbered.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import count, islice

import numpy as np
from numpy.typing import NDArray

from raysp.corpus.shards import Shard
from raysp.text.formats.safe_values import LONGEST_PART_BYTES, LONGEST_PATH_BYTES, FileNames, cut, key_of, safe_path
from raysp.verbs.export.export_rows import Row, id_of, stem_of
from raysp.verbs.export.source_audio import Source

Namer = Callable[[Row], str]
"""Callable that returns the path of the file of a row of one label shard, without a suffix."""


@dataclass(frozen=True)
class IdNames:
    """Names by id, in a folder for each label shard."""

    suffix: str
    ending: str = ""
    """Ending of the names of all folders."""
    are_paths: bool = False
    """Whether the folders of ids are kept, as of members of archives."""

    def of(self, shard: Shard) -> Namer:
        """Return the names of the rows of a label shard."""
        folder = self._folder(shard)
        name = PathNamer(self.suffix) if self.are_paths else FileNames()
        return lambda row: f"{folder}/{name(id_of(row, shard), int(str(row['row'])))}"

    def _folder(self, shard: Shard) -> str:
        """Return the folder of a label shard's rows, which is never named like the file of a row."""
        stem = stem_of(shard)
        is_like_a_file = stem.rstrip("~").endswith(self.suffix)
        return f"{stem}{self.ending or ('~' if is_like_a_file else '')}"

    def digest(self, shard: Shard) -> str:
        """Return an empty text."""
        return ""

    def is_elsewhere(self, path: str, shard: Shard) -> bool:
        """Return False: no other label shard has files in the folder of one."""
        return False


class PathNamer:
    """Names of rows whose ids are paths; a name that an earlier row has is followed by `~` and the number of the row.

    Args:
        suffix: suffix of all files.
    """

    def __init__(self, suffix: str) -> None:
        self._suffix = suffix
        self._used: set[str] = set()

    def __call__(self, id_: str, row: int) -> str:
        """Return the name of the file of a row, without a suffix."""
        name = fitted(safe_path(id_, self._suffix))
        name = next(candidate for candidate in _numbered(name, row) if key_of(candidate) not in self._used)
        self._used.add(key_of(name))
        return name


def _numbered(name: str, number: int) -> Iterator[str]:
    """Yield a name, the name with a number, then with a growing number of `~` at the end."""
    yield name
    folder, slash, last = name.rpartition("/")
    yield from (f"{folder}{slash}{cut(last, LONGEST_PART_BYTES)}~{number}{'~' * more}" for more in count())


class PathNames:
    """Names by the path of each recording, relative to the folder that holds them all.

    Rows without a path are named by their ids.

    Args:
        source: source of the rows.
        by_id: names of rows without a path, with the suffix of all files.
        as_they_are: use the names of recordings unchanged, which another system may not allow.
    """

    def __init__(self, source: Source, by_id: IdNames, *, as_they_are: bool = False) -> None:
        self._source, self._by_id, self._as_they_are = source, by_id, as_they_are
        self._shards = source.labelling.finished_shards
        self._places, self._first_rows = _first_rows(self._shards), _first_rows(source.labelling.shards.values())
        """Numbers of rows before each shard: of finished ones, and of all rows of the plan."""
        self._last: tuple[str, list[str | None]] = ("", [])
        """Name, and names of the rows, of the last requested shard: an export hashes and then writes them."""
        hashes = np.concatenate([self._hashes(self._safe(shard)) for shard in self._shards])
        self._used, self._owners = np.unique(hashes, return_index=True)

    def _safe(self, shard: Shard) -> list[str | None]:
        return [None if path is None else self._name(path) for path in self._source.names(shard)]

    def _name(self, path: str) -> str:
        return path.removeprefix("/") if self._as_they_are else fitted(safe_path(path, self._by_id.suffix))

    @staticmethod
    def _hashes(names: Sequence[str | None]) -> NDArray[np.uint64]:
        return np.array([0 if name is None else _hash(name) for name in names], np.uint64)

    def of(self, shard: Shard) -> Namer:
        """Return the names of the rows of a label shard."""
        names, by_id = self._names(shard), self._by_id.of(shard)
        return lambda row: names[int(str(row["row"]))] or by_id(row)

    def _names(self, shard: Shard) -> list[str | None]:
        """Return the names of all rows of a shard; None for rows without a path."""
        if self._last[0] != shard.name:
            self._last = (shard.name, self._read(shard))
        return self._last[1]

    def _read(self, shard: Shard) -> list[str | None]:
        names, place = self._safe(shard), self._places[shard.name]
        owners = self._owners[np.searchsorted(self._used, self._hashes(names))]
        for row in np.flatnonzero(owners != np.arange(place, place + len(names))).tolist():
            if (name := names[row]) is not None:
                numbered = islice(_numbered(name, self._first_rows[shard.name] + row), 1, None)
                names[row] = next(candidate for candidate in numbered if not self._is_used(candidate))
        return names

    def _is_used(self, name: str) -> bool:
        place = int(np.searchsorted(self._used, np.uint64(_hash(name))))
        return place < len(self._used) and int(self._used[place]) == _hash(name)

    def digest(self, shard: Shard) -> str:
        """Return a hash of the names of a label shard's rows."""
        return hashlib.sha256("\0".join(name or "" for name in self._names(shard)).encode()).hexdigest()[:16]

    def is_elsewhere(self, path: str, shard: Shard) -> bool:
        """Return whether a path, without a suffix, is the name of a row of another label shard."""
        return any(_hash(path) in hashes for name, hashes in self._named.items() if name != shard.name)

    @cached_property
    def _named(self) -> dict[str, NDArray[np.uint64]]:
        """Hashes of the names of each label shard."""
        return {shard.name: self._hashes(self._names(shard)) for shard in self._shards}


RowNames = IdNames | PathNames
"""Names of the files of all rows of an export."""


def _first_rows(shards: Iterable[Shard]) -> dict[str, int]:
    """Return the number of rows before each of some shards, by its name."""
    first_rows, rows = {}, 0
    for shard in shards:
        first_rows[shard.name] = rows
        rows += shard.num_rows
    return first_rows


def _hash(name: str) -> int:
    """Return 63 bits and a one; a row without a path has 0."""
    return int.from_bytes(hashlib.blake2b(key_of(name).encode(), digest_size=8).digest(), "big") | 1


def fitted(path: str) -> str:
    """Return a path of at most `LONGEST_PATH_BYTES`, without the first folders of a longer one."""
    while len(path.encode()) > LONGEST_PATH_BYTES:
        path = path.partition("/")[2]
    return path
