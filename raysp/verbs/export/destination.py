"""The folder of an export: which export it holds, and which label shards it holds completely.

`.raysp/export.json` is written first and identifies the export. The files of a label shard are each published in one
atomic step, then its marker below `.raysp/done/`. The same labels and options give the same bytes, so that an export
that was killed writes the files of an unmarked shard again.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path

from raysp import bounds
from raysp.errors import ChangedError, PlanError
from raysp.sink.run_record import differences
from raysp.specs.values import JsonValue
from raysp.storage.store import HOME, TMP, Store

RECORD, DONE, PARTS, NAMES = f"{HOME}export.json", f"{HOME}done/", f"{HOME}parts/", f"{HOME}names/"
AT_ONCE = 8
"""Files of rows that are written concurrently."""
INSTEAD = "choose another destination, or add --restart (in Python restart=True), which removes the export in it"


@dataclass(frozen=True)
class ShardMark:
    """Marker of a label shard that was exported completely."""

    shard: str
    identity: str
    """Hash of the version of the label shard and of its input."""
    rows: int
    """Rows exported."""
    clips: int
    num_files: int
    seconds: float
    """Seconds of audio of the exported rows, or of their clips."""
    num_bytes: int
    left_out: Mapping[str, int]
    """Rows, and in exports of clips also clips, that were left out by reason."""
    sizes: Mapping[str, int]
    """Bytes of the files of the whole shard, by path; empty where each row has a file."""
    untimed: int = 0
    """Rows with a text none of whose words has a time."""
    kept: tuple[str, ...] = ()
    """Paths of files that are there and that no export wrote; such a marker is not written."""


@dataclass
class ShardFiles:
    """The files of one label shard while they are written, and counts of its rows."""

    store: Store
    shard: str
    """Name of the label shard."""
    rows: int = 0
    clips: int = 0
    untimed: int = 0
    seconds: float = 0.0
    left_out: Counter[str] = field(default_factory=Counter)
    sizes: dict[str, int] = field(default_factory=dict)
    row_files: set[str] = field(default_factory=set)
    num_bytes: int = 0
    kept: list[str] = field(default_factory=list)

    @contextmanager
    def file(self, path: str) -> Iterator[Path]:
        """Yield a local path for the content of a file, which is published at the end."""
        with self.store.scratch() as scratch:
            yield scratch
            self.sizes[path] = scratch.stat().st_size
            self.num_bytes += self.sizes[path]
            self.store.publish(scratch, path, replace=True)

    def put(self, files: Iterable[tuple[str, bytes]]) -> None:
        """Write files of rows, each in one atomic step, after their names."""
        held = list(files)
        self._record({*self._recorded, *(path for path, _ in held)})
        with ThreadPoolExecutor(AT_ONCE) as pool:
            for _ in pool.map(lambda one: self.store.replace(*one), held):
                pass
        self.row_files.update(path for path, _ in held)
        self.num_bytes += sum(len(data) for _, data in held)

    def remove_others(self, suffix: str, is_elsewhere: Callable[[str], bool]) -> None:
        """Remove files of rows that an export of earlier labels wrote for the label shard.

        Args:
            suffix: suffix of all files.
            is_elsewhere: whether a path, without the suffix, is now the file of a row of another label shard.
        """
        for path in sorted(self._recorded - self.row_files):
            if path.endswith(suffix) and not is_elsewhere(path.removesuffix(suffix)):
                self.store.delete(path)
        self._record(self.row_files)

    @cached_property
    def _recorded(self) -> set[str]:
        """Paths that were recorded before files of rows were written; those that an export never writes are omitted."""
        if self.store.stat(self._names) is None:
            return set()
        try:
            found = bounds.parse_record(self.store.read(self._names))
        except ValueError:
            return set()
        paths = [path for path in found if isinstance(path, str)] if isinstance(found, list) else []
        return {path for path in paths if not path.startswith(("/", HOME)) and ".." not in path.split("/")}

    def _record(self, paths: set[str]) -> None:
        if paths != self._recorded:
            self.store.replace(self._names, json.dumps(sorted(paths)).encode())
            self._recorded = {*paths}

    @property
    def _names(self) -> str:
        return f"{NAMES}{_hashed(self.shard)}.json"

    def mark(self, identity: str) -> ShardMark:
        """Return the marker."""
        return ShardMark(
            shard=self.shard,
            identity=identity,
            rows=self.rows,
            clips=self.clips,
            num_files=len(self.sizes) + len(self.row_files),
            seconds=round(self.seconds, 3),
            num_bytes=self.num_bytes,
            left_out=dict(sorted(self.left_out.items())),
            sizes=self.sizes,
            untimed=self.untimed,
            kept=tuple(self.kept),
        )


class Destination:
    """A folder that receives an export."""

    def __init__(self, store: Store) -> None:
        self.store = store

    @property
    def url(self) -> str:
        """Url of the folder that receives the files."""
        return self.store.url

    def files_of(self, shard: str) -> ShardFiles:
        """Return the files of a label shard."""
        return ShardFiles(self.store, shard)

    def begin(self, record: Mapping[str, JsonValue], *, restart: bool) -> None:
        """Record the export, or check that the folder holds this one.

        Args:
            record: identity of the export.
            restart: remove another export that the folder holds, with all files below it that such an export writes.

        Raises:
            ChangedError: the folder holds another export.
            PlanError: it holds something else.
        """
        if self.store.stat(RECORD) is None:
            self._refuse_other_files()
            self.store.create(RECORD, _encode(record))
        found = self._recorded()
        if restart:
            self._remove(found)
            self.store.replace(RECORD, _encode(record))
        elif found != record:
            changed = differences(found, record)
            raise ChangedError(
                f"{self.url}: holds another export ({'; '.join(changed)}); {INSTEAD}",
                changed,
            )

    def _refuse_other_files(self) -> None:
        other = next((one.path for one in self.store.list() if not one.path.startswith(f"{TMP}/")), None)
        if other is not None:
            raise PlanError(
                f"{self.store.url}: holds {other!r}, which no export wrote; expected a new or empty folder: choose "
                "another destination"
            )

    def _recorded(self) -> Mapping[str, JsonValue]:
        try:
            found = bounds.parse_record(self.store.read(RECORD))
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise PlanError(f"{self.store.url}/{RECORD}: not the record of an export; choose another destination")
        return found

    def _remove(self, record: Mapping[str, JsonValue]) -> None:
        """Remove the markers of an export, then its files: a marker never stands without them."""
        names = {str(one) for one in _listed(record.get("files"))}
        suffixes = tuple(name for name in names if name.startswith("."))
        found = [one.path for one in self.store.list()]
        paths = [path for path in found if path.startswith((DONE, PARTS, NAMES))]
        paths += [path for path in found if not path.startswith(HOME) and (path.endswith(suffixes) or path in names)]
        for path in paths:
            self.store.delete(path)

    @cached_property
    def _marked(self) -> frozenset[str]:
        return frozenset(one.path for one in self.store.list(DONE))

    def done(self, shard: str, identity: str) -> ShardMark | None:
        """Return the marker of a label shard that was exported as it is now; None without one, or if a file is gone."""
        path = _marker(shard)
        if path not in self._marked:
            return None
        try:
            found = ShardMark(**bounds.parse_record(self.store.read(path)))
        except (ValueError, TypeError):
            return None
        if (found.shard, found.identity) != (shard, identity):
            return None
        for name, num_bytes in found.sizes.items():
            entry = self.store.stat(name)
            if entry is None or entry.num_bytes != num_bytes:
                return None
        return found

    def finish(self, mark: ShardMark) -> None:
        """Write the marker of a label shard after all its files."""
        self.store.replace(_marker(mark.shard), json.dumps(asdict(mark)).encode())

    def put(self, path: str, data: bytes) -> None:
        """Write a file of the whole export, unless it has this content."""
        if self.store.stat(path) is None or self.store.read(path) != data:
            self.store.replace(path, data)

    def join(self, parts: Iterable[str], path: str, head: bytes = b"") -> None:
        """Write the parts of the label shards as one file, after its head."""
        with self.store.scratch() as scratch:
            with scratch.open("wb") as file:
                file.write(head)
                for part in parts:
                    file.write(self.store.read(part))
            self.store.publish(scratch, path, replace=True)


def _marker(shard: str) -> str:
    return f"{DONE}{_hashed(shard)}.json"


def _hashed(shard: str) -> str:
    return hashlib.sha256(shard.encode()).hexdigest()[:32]


def _encode(record: Mapping[str, JsonValue]) -> bytes:
    return f"{json.dumps(record, indent=1, sort_keys=True)}\n".encode()


def _listed(value: JsonValue) -> list[JsonValue]:
    return value if isinstance(value, list) else []
