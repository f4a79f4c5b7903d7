"""The folder of an export: which export it holds, and which label shards it holds completely.

`.raysp/export.json` is written first and identifies the export. Each label shard has a record below `.raysp/shards/`
with the contents of its files. It is written before the files, each of which is published in one atomic step, and
again after the last one, with a mark. The same labels and options give the same bytes, so that an export that was
killed writes the files of an unmarked shard again.

A later export compares the files with the record. Files of rows, which users edit, are the export's own as long as
their content is one that was recorded before it was written: other files are kept. Files of whole label shards are
written again if they differ.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, BinaryIO, cast

import pyarrow as pa
from pydantic import Field

from raysp import bounds
from raysp.errors import ChangedError, PlanError
from raysp.sink import records
from raysp.sink.records import Natural
from raysp.sink.run_record import differences
from raysp.specs.values import JsonValue
from raysp.storage.store import HOME, TMP, Store, explained_if_full
from raysp.text.formats.safe_values import on_one_line
from raysp.words import count

RECORD, SHARDS, PARTS = f"{HOME}export.json", f"{HOME}shards/", f"{HOME}parts/"
AT_ONCE = 8
"""Files of rows that are written or compared concurrently."""
MOST_BYTES = 64 * 1024 * 1024
"""Bytes of a file of a row that may be the export's own."""
WHOLE = ""
"""Name of the record of the whole export, whose files are recorded as for a label shard."""
Contents = Mapping[str, Annotated[tuple[str, ...], Field(min_length=1)]]
"""Contents that an export wrote, or is about to write, by path: hashes, or sizes of files with recordings."""
SIZE = " bytes"
"""End of a content that is a size."""
EDITED = -1
"""Size that stands for a file of a row with another content than was written."""
INSTEAD = "choose another destination, or add --restart (in Python restart=True), which removes the export in it"


UNITS = ("clip", "utterance", "region", "word")
"""Parts of rows with which reasons such as `clip_too_short` begin; other reasons are of rows."""


def by_reason(left_out: Mapping[str, int]) -> str:
    """Return the numbers of rows and their parts that were left out, with their reasons."""
    units = ((reason.partition("_")[0], reason, number) for reason, number in left_out.items())
    return ", ".join(
        f"{count(number, unit if unit in UNITS else 'row')} ({on_one_line(reason)})" for unit, reason, number in units
    )


@dataclass
class Tally:
    """Counts of exported rows and their files."""

    rows: Natural = 0
    clips: Natural = 0
    """Clips or utterances."""
    files: Natural = 0
    num_bytes: Natural = 0
    seconds: float = 0.0
    """Seconds of audio of the rows, or of their clips."""
    left_out: Counter[str] = field(default_factory=Counter)
    """Rows, clips and words that were left out by reason: see `by_reason`."""
    untimed: Natural = 0
    """Rows with a text without word times."""
    without_reference: Natural = 0
    """Rows without a reference text, where other rows may have one; their text is the transcript."""
    splits: Counter[str] = field(default_factory=Counter)
    """Rows, or clips, of Parquet files by split."""
    split_bytes: Counter[str] = field(default_factory=Counter)
    """Bytes of these files by split."""

    def __add__(self, other: "Tally") -> "Tally":
        """Return the sums."""
        return Tally(*(getattr(self, counter.name) + getattr(other, counter.name) for counter in fields(self)))


@dataclass(frozen=True)
class ShardMark:
    """Mark of a label shard that was exported completely."""

    identity: str
    """Hash of the version of the label shard and of its input."""
    tally: Tally
    kept: tuple[str, ...] = ()
    """Paths of files of rows that no export wrote, or that were edited since."""


@dataclass(frozen=True)
class ShardRecord:
    """Files of a label shard."""

    shard: str
    rows: Contents = field(default_factory=dict)
    """Files of rows, which are kept where they were edited."""
    files: Contents = field(default_factory=dict)
    """Files of the whole shard."""
    moved: Contents = field(default_factory=dict)
    """Files whose paths now belong to rows of another label shard."""
    mark: ShardMark | None = None
    """None: not all files are there."""


class ShardFiles:
    """The files of one label shard while they are written, and counts of its rows."""

    def __init__(self, destination: "Destination", shard: str) -> None:
        self._destination = destination
        self.shard = shard
        self._store, self._folder = destination.store, destination.folder
        self._before = self._record = destination.record_of(shard)
        self._row_paths: set[str] = set()
        """Paths of the files of rows that the labels give."""
        self._paths: set[str] = set()
        """Paths of the files of the whole shard."""
        self._kept: list[str] = []
        self.lost: list[str] = []
        """Paths of files of earlier exports that were removed or changed since, and are written again."""
        self.tally = Tally()

    @contextmanager
    def file(self, path: str, *, is_hashed: bool = False) -> Iterator[Path]:
        """Yield a local path for the content of a file of the whole shard, which is published at the end.

        Args:
            path: path of the file.
            is_hashed: whether a later export compares the content, else the size alone.
        """
        with self._store.scratch() as scratch:
            with explained_if_full(f"{self._store.url}/{path}"):
                yield scratch
            num_bytes = scratch.stat().st_size
            with scratch.open("rb") as file:
                content = hash_of(file) if is_hashed else f"{num_bytes}{SIZE}"
            there, before = self._destination.content(path, content), self._record.files.get(path, ())
            if before and there not in before:
                self._note_lost(path)
            if there != content or content not in before:
                files = {**self._record.files, path: (*before, content)}
                self._write(replace(self._record, files=files, mark=None))
                self._store.publish(scratch, path, replace=True)
            self._record = replace(self._record, files={**self._record.files, path: (content,)})
            self._paths.add(path)
            self.tally.files += 1
            self.tally.num_bytes += num_bytes

    def put(self, files: Iterable[tuple[str, bytes]]) -> None:
        """Write files of rows atomically, after the hashes of their contents; keep files that no export wrote."""
        written = [(path, data, self._record.rows.get(path, ())) for path, data in files]
        rows = {path: (*before, _hash(data)) for path, data, before in written}
        self._write(replace(self._record, rows={**self._record.rows, **rows}, mark=None))
        with ThreadPoolExecutor(AT_ONCE) as pool:
            are_own = pool.map(self._put, *zip(*written, strict=True)) if written else ()
            for (path, data, _), is_own in zip(written, are_own, strict=True):
                self._row_paths.add(path)
                if is_own:
                    self.tally.files += 1
                    self.tally.num_bytes += len(data)
                else:
                    self._kept.append(path)

    def _put(self, path: str, data: bytes, written: tuple[str, ...]) -> bool:
        """Write a file; return False without a change if a file of another content is there."""
        is_there = bool(written) and self._folder.stat(path) is not None
        if not is_there and self._folder.create(path, data):
            if written:
                self._note_lost(path)
            return True
        content = self._content(path)
        if content is None or content == data:
            return content is not None
        is_own = _hash(content) in written or self._destination.is_recorded(path, _hash(content))
        if is_own:
            self._folder.replace(path, data)
        return is_own

    def _note_lost(self, path: str) -> None:
        """Note that a file which an export completed is gone or has another content, and is written again."""
        if (mark := self._before.mark) is not None and path not in mark.kept:
            self.lost.append(path)

    def _content(self, path: str) -> bytes | None:
        """Return the content of a file; None without a file, or if it cannot be the export's own."""
        entry = self._folder.stat(path)
        return None if entry is None or entry.num_bytes > MOST_BYTES else self._folder.read(path)

    def remove_outdated(self, suffix: str, is_elsewhere: Callable[[str], bool]) -> None:
        """Remove unchanged files of rows that an export of earlier labels wrote for the label shard.

        Args:
            suffix: suffix of all files.
            is_elsewhere: whether a path, without the suffix, is now the file of a row of another label shard.
        """
        written = {**self._record.moved, **self._record.rows}
        outdated = {path: written[path] for path in sorted(written.keys() - self._row_paths) if path.endswith(suffix)}
        moved = {path: contents for path, contents in outdated.items() if is_elsewhere(path.removesuffix(suffix))}
        for path in outdated.keys() - moved.keys():
            self._remove(path, outdated[path])
        self._record = replace(self._record, moved=moved)

    def _remove(self, path: str, written: tuple[str, ...]) -> None:
        """Remove a file of a row, unless it was edited: `written` are the hashes of its contents by exports."""
        content = self._content(path)
        if content is not None and _hash(content) in written:
            self._folder.delete(path)

    def remove(self) -> None:
        """Remove all files that were not edited."""
        for path, written in {**self._record.rows, **self._record.moved}.items():
            self._remove(path, written)
        for path in self._record.files:
            self._store.delete(path)

    def _write(self, record: ShardRecord) -> None:
        if record != self._record:
            self._store.replace(_place(record.shard), json.dumps(record, default=vars).encode())
            self._record = record

    def finish(self, identity: str) -> ShardMark:
        """Record that all files are there, and return the mark; files of earlier labels are removed."""
        for path in self._record.files.keys() - self._paths:
            self._store.delete(path)
        self.tally.seconds = round(self.tally.seconds, 3)
        mark = ShardMark(identity, self.tally, tuple(self._kept))
        rows = {path: self._record.rows[path][-1:] for path in sorted(self._row_paths)}
        files = {path: self._record.files[path] for path in sorted(self._paths)}
        self._write(replace(self._record, rows=rows, files=files, mark=mark))
        return mark


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

    @cached_property
    def _recorded(self) -> frozenset[str]:
        """Paths of the records of earlier exports."""
        return frozenset(entry.path for entry in self.store.list(SHARDS))

    def record_of(self, shard: str) -> ShardRecord:
        """Return the record of a label shard; empty if it is missing or damaged."""
        record = self._read(path) if (path := _place(shard)) in self._recorded else None
        return record if record and record.shard == shard else ShardRecord(shard)

    def _read(self, path: str) -> ShardRecord | None:
        try:
            record = records.parse(self.store.read(path), ShardRecord)
        except ValueError:
            return None
        return replace(record, rows=_own(record.rows), files=_own(record.files), moved=_own(record.moved))

    @cached_property
    def _contents(self) -> frozenset[int]:
        """Keys of the contents in the records of all label shards; read once a file has another content."""
        read = filter(None, map(self._read, self._recorded))
        written = (item for record in read for rows in (record.rows, record.moved) for item in rows.items())
        return frozenset(hash((path, content)) for path, contents in written for content in contents)

    def is_recorded(self, path: str, content: str) -> bool:
        """Return whether the record of any label shard has a content of the file of a row."""
        return hash((path, content)) in self._contents

    def content(self, path: str, like: str) -> str:
        """Return the hash of a file of a whole shard, or its size if `like` is one; empty without the file."""
        if (entry := self.store.stat(path)) is None:
            return ""
        if like.endswith(SIZE):
            return f"{entry.num_bytes}{SIZE}"
        with self.store.open(path) as file:
            return hash_of(file)

    def begin(self, record: Mapping[str, JsonValue], *, restart: bool) -> None:
        """Record the export, or check that the folder holds this one.

        Args:
            record: identity of the export.
            restart: remove another export that the folder holds, but for files that were edited.

        Raises:
            ChangedError: the folder holds another export.
            PlanError: it holds something else.
        """
        if self.store.stat(RECORD) is None:
            other = next((entry.path for entry in self.store.list() if not entry.path.startswith(f"{TMP}/")), None)
            if other is not None:
                raise PlanError(
                    f"{self.store.url}: holds {other!r}, which no export wrote; expected a new or empty folder: choose "
                    "another destination"
                )
            self.store.create(RECORD, _encode(record))
        existing = self._export()
        if restart:
            self.keep_only(())
            self.store.replace(RECORD, _encode(record))
            del self._recorded
        elif existing != record:
            changed = differences(existing, record)
            raise ChangedError(f"{self.folder.url}: holds another export ({'; '.join(changed)}); {INSTEAD}", changed)

    def _export(self) -> Mapping[str, JsonValue]:
        try:
            return records.parse(self.store.read(RECORD), dict[str, JsonValue])
        except ValueError as error:
            raise PlanError(
                f"{self.store.url}/{RECORD}: not the record of an export ({bounds.plain(error)}); choose another "
                "destination"
            ) from error

    def keep_only(self, shards: Collection[str]) -> None:
        """Remove all files but those recorded for some label shards, or for the `WHOLE`, and but those edited."""
        for path in sorted(self._recorded.difference(map(_place, shards))):
            if old := self._read(path):
                ShardFiles(self, old.shard).remove()
            self.store.delete(path)

    def done(self, shard: str, identity: str) -> ShardMark | None:
        """Return the mark of a label shard that was exported as it is now.

        None without one, or if a file was removed, or one of the whole shard changed. Files of rows that were edited
        are in `kept` of the mark.
        """
        record = self.record_of(shard)
        if record.mark is None or record.mark.identity != identity:
            return None
        if any(self.content(path, contents[-1]) not in contents for path, contents in record.files.items()):
            return None
        if not record.rows:
            return record.mark
        with ThreadPoolExecutor(AT_ONCE) as pool:
            sizes = [*pool.map(self._own_bytes, record.rows, record.rows.values())]
        if None in sizes:
            return None
        own = [size for size in sizes if size is not None and size != EDITED]
        edited = tuple(path for path, size in zip(record.rows, sizes, strict=True) if size == EDITED)
        tally = replace(record.mark.tally, files=len(own), num_bytes=sum(own))
        return ShardMark(identity, tally, edited)

    def _own_bytes(self, path: str, contents: tuple[str, ...]) -> int | None:
        """Return the bytes of a file of a row if its content is as written, else `EDITED`; None without a file."""
        if (entry := self.folder.stat(path)) is None:
            return None
        is_own = entry.num_bytes <= MOST_BYTES and _hash(self.folder.read(path)) in contents
        return entry.num_bytes if is_own else EDITED

    @contextmanager
    def whole(self) -> Iterator[ShardFiles]:
        """Yield the files of the whole export; edited files are added to `kept`."""
        files = ShardFiles(self, WHOLE)
        yield files
        self.kept += files.finish("").kept
        self.lost += files.lost


def _place(shard: str) -> str:
    """Return the path of the record of a label shard."""
    return f"{SHARDS}{_hash(shard.encode())[:32]}.json"


def _own(contents: Contents) -> Contents:
    """Return the contents of files that an export may have written: paths of a damaged record may lead elsewhere."""
    inside = (path for path in contents if not path.startswith("/") and ".." not in path.split("/"))
    return {path: contents[path] for path in inside if path.startswith(PARTS) or not path.startswith(HOME)}


def hash_of(file: BinaryIO | pa.NativeFile) -> str:
    """Return the hash of the content of an open file."""
    return hashlib.file_digest(cast("Any", file), "sha256").hexdigest()


def _hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _encode(record: Mapping[str, JsonValue]) -> bytes:
    return f"{json.dumps(record, indent=1, sort_keys=True)}\n".encode()
