"""Runs that stopped because too many rows failed: none of their error rows stays.

`.raysp/stopped/<number>.json` is made before such a run ends. From then on results are staged under another id, so that
nothing that the run staged is ever committed, whichever of its workers comes late; and the error rows that it had
committed by then are done again by the next run. `.raysp/stopped/<number>.done` says that they were. Neither is ever
removed.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from raysp.corpus.shards import Shard
from raysp.errors import StoreError
from raysp.sink import layout
from raysp.sink.recommitting import find_error_rows
from raysp.sink.todo import Todo
from raysp.storage.store import Store

_STOP = re.compile(rf"{re.escape(layout.STOPPED)}(\d+)\.(json|done)")


@dataclass(frozen=True)
class Stops:
    """The runs of a sink that stopped because too many rows failed."""

    number: int = 0
    redo: frozenset[str] = frozenset()
    """Label shards that they committed with error rows, which are still to be done again."""
    is_open: bool = False
    """No run has come to its end since."""

    def stage_id(self, fingerprint: str) -> str:
        """Return what stands for the fingerprint in the names of staged results: another id after each stop."""
        if not self.number:
            return fingerprint
        return hashlib.sha256(f"stopped\0{fingerprint}\0{self.number}".encode()).hexdigest()[:16]


def load(store: Store) -> Stops:
    """Read which runs stopped.

    Raises:
        StoreError: a record of one cannot be read.
    """
    found = [match for entry in store.list(layout.STOPPED) if (match := _STOP.fullmatch(entry.path))]
    numbers = sorted(int(match[1]) for match in found if match[2] == "json")
    done = max((int(match[1]) for match in found if match[2] == "done"), default=0)
    still_open = [number for number in numbers if number > done]
    redo = frozenset(name for number in still_open for name in _shards(store, layout.stopped_path(number)))
    return Stops(max(numbers, default=0), redo, bool(still_open))


def _shards(store: Store, path: str) -> Iterable[str]:
    try:
        return [str(name) for name in json.loads(store.read(path))["shards"]]
    except (ValueError, KeyError, TypeError) as error:
        raise StoreError(f"{store.url}/{path}: not a record of a stopped run ({error}); restore it") from error


def record(store: Store, shards: Iterable[str]) -> None:
    """Note that a run stops; `shards` are those whose commit it began, with error rows."""
    number = load(store).number + 1
    data = json.dumps({"shards": sorted(shards)}).encode()
    while not store.create(layout.stopped_path(number), data):
        number += 1


def settle(store: Store, number: int) -> None:
    """Note that a run came to its end after these stops: there is nothing of them to do again."""
    store.create(layout.stopped_path(number, is_done=True), b"")


def redo(store: Store, stops: Stops, shards: Iterable[Shard], fingerprint: str) -> Sequence[Todo]:
    """Find the error rows that stopped runs committed, to be done again; what is staged of them does not count.

    Args:
        store: the sink.
        stops: as loaded.
        shards: committed ones.
        fingerprint: of the pipeline.
    """
    return list(find_error_rows(store, [shard for shard in shards if shard.name in stops.redo], fingerprint))
