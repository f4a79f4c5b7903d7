"""The folder of an export: which export it holds, and which label shards it holds completely.

`.raysp/export.json` is written first and identifies the export. The files of a label shard are each published in one
atomic step, then its marker below `.raysp/done/`. The same labels and options give the same bytes, so that an export
that was killed writes the files of an unmarked shard again.

A later export compares the files with what was recorded. Files of rows, which users edit, are the export's own as long
as their content is one that was recorded before it was written: others are kept. Files of whole label shards are
written again if they differ.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import KW_ONLY, asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa

from raysp import bounds
from raysp.errors import ChangedError, PlanError
from raysp.sink import records
from raysp.sink.records import Natural
from raysp.sink.run_record import differences
from raysp.specs.values import JsonValue
from raysp.storage.store import HOME, TMP, Store

RECORD, DONE, PARTS, NAMES = f"{HOME}export.json", f"{HOME}done/", f"{HOME}parts/", f"{HOME}names/"
AT_ONCE = 8
"""Files of rows that are written or compared concurrently."""
MOST_BYTES = 64 * 1024 * 1024
"""Bytes of a file of a row that may be the export's own."""
CHUNK_BYTES = 1024 * 1024
WHOLE = ""
"""Name that stands for the whole export, whose files are recorded as those of a label shard."""
Hashes = Mapping[str, tuple[str, ...]]
"""Hashes of the contents that an export wrote, or is about to write, by path."""
INSTEAD = "choose another destination, or add --restart (in Python restart=True), which removes the export in it"


@dataclass(frozen=True)
class ShardMark:
    """Marker of a label shard that was exported completely."""

    shard: str
    identity: str
    """Hash of the version of the label shard and of its input."""
    rows: Natural
    """Rows exported."""
    clips: Natural
    num_files: Natural
    seconds: float
    """Seconds of audio of the exported rows, or of their clips."""
    num_bytes: Natural
    left_out: Mapping[str, Natural]
    """Rows, and in exports of clips also clips, that were left out by reason."""
    sizes: Mapping[str, Natural]
    """Bytes of the files of the whole shard, by path; empty where each row has a file."""
    untimed: Natural = 0
    """Rows with a text none of whose words has a time."""
    without_reference: Natural = 0
    """Rows without a reference text, where other rows may have one; their text is the transcript."""
    kept: tuple[str, ...] = ()
    """Paths of files of rows that no export wrote, or that were edited since."""
    hashes: Mapping[str, str] = field(default_factory=dict)
    """Hashes of files in `sizes`, but of those with recordings, which are compared by their size."""


@dataclass
class ShardFiles:
    """The files of one label shard while they are written, and counts of its rows."""

    store: Store
    """Folder of the records, and of the files of the whole shard."""
    shard: str
    """Name of the label shard."""
    _: KW_ONLY
    folder: Store
    """Folder of the files of rows."""
    is_of_another: Callable[[str, str], bool] = lambda path, content: False
    """Callable that returns whether another label shard's record has a content, by its hash, of a path."""
    rows: int = 0
    clips: int = 0
    untimed: int = 0
    without_reference: int = 0
    seconds: float = 0.0
    left_out: Counter[str] = field(default_factory=Counter)
    sizes: dict[str, int] = field(default_factory=dict)
    hashes: dict[str, str] = field(default_factory=dict)
    row_files: set[str] = field(default_factory=set)
    num_bytes: int = 0
    kept: list[str] = field(default_factory=list)

    @contextmanager
    def file(self, path: str, *, is_hashed: bool = False) -> Iterator[Path]:
        """Yield a local path for the content of a file, which is published at the end.

        Args:
            path: path of the file.
            is_hashed: whether a later export compares the content, else the size alone.
        """
        with self.store.scratch() as scratch:
            yield scratch
            self.sizes[path] = scratch.stat().st_size
            if is_hashed:
                with scratch.open("rb") as file:
                    self.hashes[path] = hash_of(file)
            self.num_bytes += self.sizes[path]
            self.store.publish(scratch, path, replace=True)

    def put(self, files: Iterable[tuple[str, bytes]]) -> None:
        """Write files of rows, each in one atomic step, after the hashes of their contents; keep those of others."""
        held = list(files)
        written = self.recorded
        self.record({**written, **{path: (*written.get(path, ()), _hash(data)) for path, data in held}})
        with ThreadPoolExecutor(AT_ONCE) as pool:
            are_own = pool.map(lambda one: self._put(one[0], one[1], written.get(one[0], ())), held)
            for (path, data), is_own in zip(held, are_own, strict=True):
                self._wanted.add(path)
                if is_own:
                    self.row_files.add(path)
                    self.num_bytes += len(data)
                else:
                    self.kept.append(path)

    def _put(self, path: str, data: bytes, written: tuple[str, ...]) -> bool:
        """Write a file; return False without a change if another one is there."""
        if (not written or self.folder.stat(path) is None) and self.folder.create(path, data):
            return True
        found = self._content(path)
        if found is None or found == data:
            return found is not None
        is_own = _hash(found) in written or self.is_of_another(path, _hash(found))
        if is_own:
            self.folder.replace(path, data)
        return is_own

    def _content(self, path: str) -> bytes | None:
        """Return the content of a file; None if there is none, or one that cannot be the export's own."""
        entry = self.folder.stat(path)
        return None if entry is None or entry.num_bytes > MOST_BYTES else self.folder.read(path)

    def remove_others(self, suffix: str, is_elsewhere: Callable[[str], bool]) -> None:
        """Remove unchanged files of rows that an export of earlier labels wrote for the label shard.

        Args:
            suffix: suffix of all files.
            is_elsewhere: whether a path, without the suffix, is now the file of a row of another label shard.
        """
        written = {**self.moved, **self.recorded}
        moved: dict[str, tuple[str, ...]] = {}
        for path in sorted(written.keys() - self._wanted):
            if path.endswith(suffix) and is_elsewhere(path.removesuffix(suffix)):
                moved[path] = written[path]
            elif path.endswith(suffix):
                self.remove(path, written[path])
        self.record({path: written[path][-1:] for path in self._wanted}, moved)

    def remove(self, path: str, written: tuple[str, ...]) -> None:
        """Remove a file if its content is one that was written."""
        found = self._content(path)
        if found is not None and _hash(found) in written:
            self.folder.delete(path)

    def compare(self) -> tuple[dict[str, int], list[str], list[str]]:
        """Return the bytes of recorded files of rows by path, the paths of removed ones, and those of edited ones."""
        paths = sorted(self.recorded)
        with ThreadPoolExecutor(AT_ONCE) as pool:
            found = list(pool.map(self._compared, paths))
        own = {path: size for path, (size, _) in zip(paths, found, strict=True) if size is not None}
        removed = [path for path, (_, is_there) in zip(paths, found, strict=True) if not is_there]
        return own, removed, [path for path in paths if path not in own and path not in {*removed}]

    def _compared(self, path: str) -> tuple[int | None, bool]:
        """Return the bytes of a file of a row if its content is as written, and whether there is a file."""
        if (entry := self.folder.stat(path)) is None:
            return None, False
        is_own = entry.num_bytes <= MOST_BYTES and _hash(self.folder.read(path)) in self.recorded[path]
        return (entry.num_bytes if is_own else None), True

    @cached_property
    def _wanted(self) -> set[str]:
        """Paths of the files of rows that the labels give."""
        return set()

    @cached_property
    def _read(self) -> tuple[Hashes, Hashes]:
        return read_hashes(self.store, self._names)

    @property
    def recorded(self) -> Hashes:
        """Hashes that were recorded before files of rows were written."""
        return self._read[0]

    @property
    def moved(self) -> Hashes:
        """Hashes of files whose paths are those of rows of another label shard by now."""
        return self._read[1]

    def record(self, files: Hashes, moved: Hashes | None = None) -> None:
        """Record the hashes of files of rows; `moved` None: as they are recorded."""
        found = files, self.moved if moved is None else moved
        if found != self._read:
            entries = [
                [path, hashes, is_moved] for is_moved in (0, 1) for path, hashes in sorted(found[is_moved].items())
            ]
            self.store.replace(self._names, json.dumps(entries).encode())
            self._read = found

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
            without_reference=self.without_reference,
            kept=tuple(self.kept),
            hashes=self.hashes,
        )


def read_hashes(store: Store, name: str) -> tuple[Hashes, Hashes]:
    """Return the recorded hashes of a label shard's files, and of those whose paths other label shards have by now.

    There are none if there is no record, or it is damaged. Paths that an export never writes are left out.
    """
    if store.stat(name) is None:
        return {}, {}
    try:
        found = records.parse(store.read(name), list[tuple[str, tuple[str, ...], Natural]])
    except ValueError:
        return {}, {}
    own, moved = (
        {path: contents for path, contents, of in found if of == is_moved and _may_be_own(path)} for is_moved in (0, 1)
    )
    return own, moved


def _may_be_own(path: str) -> bool:
    return not path.startswith(("/", HOME)) and ".." not in path.split("/")


class Destination:
    """A folder that receives an export.

    Args:
        store: folder of the records, and of the files of whole shards.
        folder: folder of the files of rows; None: the same.
    """

    def __init__(self, store: Store, folder: Store | None = None) -> None:
        self.store, self.folder = store, folder or store
        self.lost: list[str] = []
        """Paths of files of earlier exports that were removed or changed since, and are written again."""
        self.kept: list[str] = []
        """Paths of files of the whole export that were edited since."""

    @property
    def url(self) -> str:
        """Url of the folder that receives the files."""
        return self.folder.url

    def files_of(self, shard: str) -> ShardFiles:
        """Return the files of a label shard."""
        return ShardFiles(self.store, shard, folder=self.folder, is_of_another=self._is_recorded)

    def _is_recorded(self, path: str, content: str) -> bool:
        return _key(path, content) in self._keys

    @cached_property
    def _keys(self) -> frozenset[int]:
        """Keys of the contents in the records of all label shards; read once a file has another content."""
        names = [one.path for one in self.store.list(NAMES)]
        return frozenset(
            _key(path, content)
            for name in names
            for hashes in read_hashes(self.store, name)
            for path, contents in hashes.items()
            for content in contents
        )

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
            return records.parse(self.store.read(RECORD), dict[str, JsonValue])
        except ValueError as error:
            raise PlanError(
                f"{self.store.url}/{RECORD}: not the record of an export ({bounds.plain(error)}); choose another "
                "destination"
            ) from error

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
        """Return the marker of a label shard that was exported as it is now.

        None without one, or if a file of it was removed, or one of the whole shard changed; these are added to `lost`.
        Files of rows that were edited are in `kept` of the marker.
        """
        if (mark := self._mark(shard)) is None:
            return None
        changed = [path for path in mark.sizes if self._is_changed(path, mark)]
        self.lost += changed
        if mark.identity != identity:
            return None
        own, removed, edited = self.files_of(shard).compare()
        self.lost += [path for path in removed if path not in mark.kept]
        if changed or removed:
            return None
        num_bytes = sum(own.values()) + sum(mark.sizes.values())
        return replace(mark, kept=tuple(edited), num_files=len(own) + len(mark.sizes), num_bytes=num_bytes)

    def _mark(self, shard: str) -> ShardMark | None:
        path = _marker(shard)
        if path not in self._marked:
            return None
        try:
            found = records.parse(self.store.read(path), ShardMark)
        except ValueError:
            return None
        return found if found.shard == shard else None

    def _is_changed(self, path: str, mark: ShardMark) -> bool:
        """Return whether a file of a whole label shard is not there as it was written."""
        entry = self.store.stat(path)
        if entry is None or entry.num_bytes != mark.sizes[path]:
            return True
        return path in mark.hashes and self._hash_of(path) != mark.hashes[path]

    def _hash_of(self, path: str) -> str:
        with self.store.open(path) as file:
            return hash_of(file)

    def finish(self, mark: ShardMark) -> None:
        """Write the marker of a label shard after all its files."""
        self.store.replace(_marker(mark.shard), json.dumps(asdict(mark)).encode())

    def put(self, path: str, data: bytes) -> None:
        """Write a file of the whole export, unless it was edited."""
        files = self.files_of(WHOLE)
        is_lost = path in files.recorded and self.store.stat(path) is None
        files.put([(path, data)])
        files.record({path: files.recorded[path][-1:]})
        self.lost += [path] if is_lost else []
        self.kept += files.kept

    def join(self, parts: Iterable[str], path: str, head: bytes = b"") -> None:
        """Write the parts of the label shards as one file, after its head."""
        files = self.files_of(WHOLE)
        recorded = files.recorded.get(path, ())
        with self.store.scratch() as scratch:
            with scratch.open("wb") as file:
                file.write(head)
                for part in parts:
                    file.write(self.store.read(part))
            with scratch.open("rb") as file:
                written = hash_of(file)
            found = None if self.store.stat(path) is None else self._hash_of(path)
            if found != written:
                self.lost += [path] if recorded and found not in recorded else []
                files.record({path: (*recorded, written)})
                self.store.publish(scratch, path, replace=True)
        files.record({path: (written,)})


def _marker(shard: str) -> str:
    return f"{DONE}{_hashed(shard)}.json"


def hash_of(file: BinaryIO | pa.NativeFile) -> str:
    """Return the hash of the content of an open file."""
    found = hashlib.sha256()
    while chunk := file.read(CHUNK_BYTES):
        found.update(chunk)
    return found.hexdigest()


def _hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _key(path: str, content: str) -> int:
    return hash((path, content))


def _hashed(shard: str) -> str:
    return hashlib.sha256(shard.encode()).hexdigest()[:32]


def _encode(record: Mapping[str, JsonValue]) -> bytes:
    return f"{json.dumps(record, indent=1, sort_keys=True)}\n".encode()


def _listed(value: JsonValue) -> list[JsonValue]:
    return value if isinstance(value, list) else []
