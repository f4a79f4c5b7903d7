"""The store of a simulated world, and the labels in it."""

import functools
import io
import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

from raysp import StoreError
from raysp.corpus.shards import Piece, Shard
from raysp.sink import layout
from raysp.sink.commit import RESULT_SCHEMA
from raysp.storage.store import Entry

if TYPE_CHECKING:
    from tests.sink.simulation.actors import Actor
    from tests.sink.simulation.world import World

SHARD_NAMES = ("a.parquet", "b.parquet")
ROWS = 4
STAGE_ID = "a"
"""Hash of everything up to the last `Label`, with which fingerprints begin here."""
FINGERPRINTS = (STAGE_ID, f"{STAGE_ID}1", f"{STAGE_ID}2")
"""Without a step behind the last `Label`, and with one that leaves out a row, whose number follows."""
OUTPUTS = pa.schema([("text", pa.string())])
STAGED = pa.schema([*RESULT_SCHEMA, *OUTPUTS])


@functools.lru_cache(2000)  # of one history to the next most label shards are the same bytes
def read_parquet(data: bytes) -> tuple[list[dict], dict[bytes, bytes]]:
    """Read a label shard's rows, which must not be modified, and its metadata."""
    file = pq.ParquetFile(pa.BufferReader(data))
    return file.read(use_threads=False).to_pylist(), file.metadata.metadata


def rest_path(name: str, metadata: dict[bytes, bytes]) -> str:
    """Name the file of left-out rows that a label shard's footer names."""
    return layout.errors_path(
        name, *(metadata[f"raysp.{key}".encode()].decode() for key in ("input_id", "fingerprint", "rest_id"))
    )


def label(name: str, input_id: str, stage_id: str, row: int) -> str:
    return f"{name} {input_id} {stage_id} {row}"


def steps_behind(fingerprint: str) -> Callable[[pa.Table, Piece], pa.Table] | None:
    """Return what the steps behind the last `Label` do with labelled rows; None if there are none."""
    if fingerprint == STAGE_ID:
        return None
    left_out = int(fingerprint.removeprefix(STAGE_ID))

    def finish(table: pa.Table, _: Piece) -> pa.Table:
        rows = table.to_pylist()
        for row in rows:
            if row["row"] == left_out and row["status"] == "ok":
                row.update(status="skipped", error_type="filtered", error_message=fingerprint, text=None)
        return pa.Table.from_pylist(rows, schema=table.schema)

    return finish


@functools.lru_cache(1000)
def recorded_fingerprint(record: bytes) -> str:
    return json.loads(record)["fingerprint"]


@functools.lru_cache(2000)
def key_values(data: bytes) -> dict[bytes, bytes]:
    """Do as `footer._key_values`, once for the same bytes."""
    return pq.read_metadata(pa.BufferReader(data)).metadata or {}


@functools.lru_cache(10_000)
def labelled(name: str, input_id: str, rows: tuple[int, ...], failed: tuple[int, ...]) -> pa.Table:
    """Make the staged result of some rows."""
    error = {"status": "error", "error_type": "step_failed", "error_message": "by chance"}
    records = [
        {"row": row, **error}
        if row in failed
        else {"row": row, "status": "ok", "seconds": 1.0, "text": label(name, input_id, STAGE_ID, row)}
        for row in rows
    ]
    return pa.Table.from_pylist(records, schema=STAGED)


def has_every_row(paths: Iterable[str], shard: Shard, pieces: Iterable[Piece], attempt: str) -> bool:
    """Return whether files of an attempt can be laid side by side so that they hold all rows of some pieces."""
    names = [name for path in paths if (name := layout.parse_stage_path(path))]
    of_shard = (shard.name, shard.input_id, attempt)
    parts = sorted(name.rows for name in names if (name.shard, name.input_id, name.fingerprint) == of_shard)
    for piece in pieces:
        ends = {piece.first}
        for rows in parts:
            if rows.first in ends:
                ends.add(rows.end)
        if piece.end not in ends:
            return False
    return True


@functools.lru_cache(1000)
def source_ids(input_id: str, first: int, end: int) -> pa.Table:
    """Make the columns that a label shard copies."""
    return pa.table({"id": [f"{input_id}:{row}" for row in range(first, end)]})


def wrong_rows(name: str, rows: list[dict], input_id: str, fingerprint: str, *, errors: bool = True) -> str:
    """Say how rows differ from those of a shard's labels; rows that failed may stand in their places, unless told."""
    rows = sorted(rows, key=lambda row: row["row"])
    if [row["row"] for row in rows] != list(range(ROWS)):
        return f"rows {[row['row'] for row in rows]}"
    for row in rows:
        good = label(name, input_id, fingerprint[:1], row["row"])
        texts = {"skipped": None} if str(row["row"]) == fingerprint[1:] else {"ok": good}
        if errors:
            texts["error"] = None
        if row["id"] != f"{input_id}:{row['row']}":
            return f"row {row['row']} of {row['id']!r}"
        if texts.get(row["status"], good) != row["text"] or row["status"] not in texts:
            return f"row {row['row']}: {row['status']} {row['text']!r}, not {good!r}"
    return ""


class Store:
    """What one actor sees of the world's files."""

    url = "memory"

    def __init__(self, world: "World", actor: "Actor") -> None:
        self.world, self.actor = world, actor

    def _call(self, what: str, effect: Callable[[], object], changes: bool = False) -> object:
        return self.world.call(self.actor, what, effect, changes)

    def list(self, prefix: str = "") -> Iterator[Entry]:
        def entries() -> list[Entry]:
            files = self.world.files
            paths = sorted([path for path in files if path.startswith(prefix)])
            return [_entry(path, files[path]) for path in paths]

        found = self._call(f"list {prefix}", entries)
        if prefix.startswith(layout.STAGE):
            self.actor.listed = frozenset(entry.path for entry in found)
        return iter(found)

    def stat(self, path: str) -> Entry | None:
        def entry() -> Entry | None:
            found = self.world.files.get(path)
            return _entry(path, found) if found else None

        return self._call(f"stat {path}", entry)

    def read(self, path: str) -> bytes:
        return self._call(f"read {path}", lambda: self._data(path))

    def open(self, path: str) -> pa.NativeFile:
        return pa.BufferReader(self._call(f"open {path}", lambda: self._data(path)))

    def open_version(self, path: str, num_bytes: int) -> None:
        raise NotImplementedError("no history opens a version")

    def _data(self, path: str) -> bytes:
        if path not in self.world.files:
            raise StoreError(f"{path}: it is not there")
        return self.world.files[path][0]

    def create(self, path: str, data: bytes) -> bool:
        def put() -> bool:
            if path in self.world.files:
                return False
            self._put(path, data)
            return True

        return self._call(f"create {path}", put, True)

    def replace(self, path: str, data: bytes) -> None:
        self._call(f"replace {path}", lambda: self._put(path, data), True)

    def _put(self, path: str, data: bytes) -> None:
        self.world.put(self.actor, path, data)
        if not path.startswith((layout.RUN, layout.PLAN)):
            return
        if epochs := [epoch for one in self.world.files if (epoch := layout.parse_lease_path(one))]:
            holder = json.loads(self._data(layout.lease_path(max(epochs))))
            if holder["owner"] == self.actor.name:
                self.world.recorded = (self.world.changes, max(epochs))

    def delete(self, path: str) -> None:
        self._call(f"delete {path}", lambda: self.world.remove(self.actor, path), True)

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        place = self.world.folder / f"{id(self.actor)}-{self.world.random.random()}"
        try:
            yield place
        finally:
            place.unlink(missing_ok=True)

    def publish(self, scratch: Path, path: str, *, replace: bool = False, expected: str | None = None) -> Entry | None:
        data = scratch.read_bytes()

        def put() -> Entry | None:
            found = self.world.files.get(path)
            version = _entry(path, found).version if found else None
            if version != expected if expected is not None else found and not replace:
                return None
            self._put(path, data)
            return _entry(path, self.world.files[path])

        return self._call(f"{'create' if expected is None and not replace else 'replace'} {path}", put, True)


class MemoryStore(Store):
    """A store whose scratch files are in memory."""

    @contextmanager
    def scratch(self) -> Iterator["MemoryFile"]:
        yield MemoryFile()


class MemoryFile:
    """What the protocol does with a scratch file."""

    def __init__(self) -> None:
        self._data = io.BytesIO()

    def write_bytes(self, data: bytes) -> None:
        self._data = io.BytesIO(data)

    def read_bytes(self) -> bytes:
        return self._data.getvalue()

    def stat(self) -> SimpleNamespace:
        return SimpleNamespace(st_size=len(self.read_bytes()))

    @contextmanager
    def open(self, mode: str) -> Iterator[io.BytesIO]:
        yield self._data if mode == "wb" else io.BytesIO(self.read_bytes())


class OneByOne:
    """Stand-in for a pool of threads: an actor makes its calls one after the other."""

    map = staticmethod(map)

    def __init__(self, _: int) -> None:
        """Take the number of threads."""

    def __enter__(self) -> "OneByOne":
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing to end."""


def _entry(path: str, found: tuple[bytes, int, float]) -> Entry:
    return Entry(path, len(found[0]), str(found[1]), found[2])
