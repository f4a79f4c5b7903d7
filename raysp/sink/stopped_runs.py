"""Runs that stopped because too many rows failed: all of their error rows are redone.

`.raysp/stopped/<number>.json` is written before such a run ends. From then on results are staged under another id, so
that results staged by the run are never committed, even by a late worker. Error rows that it had already committed are
redone by the next run. `.raysp/stopped/<number>.done` records that they were. Neither file is ever removed.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from raysp import bounds
from raysp.corpus.shards import Shard
from raysp.errors import StoreError
from raysp.sink import layout
from raysp.sink.todo import Todo
from raysp.storage.store import Store

_STOP = re.compile(rf"{re.escape(layout.STOPPED)}(\d+)\.(json|done)")


@dataclass(frozen=True)
class Stops:
    """Runs of a sink that stopped because too many rows failed."""

    number: int = 0
    redo: frozenset[str] = frozenset()
    """Label shards that they committed with error rows, and that are still to be redone."""
    is_open: bool = False
    """Whether no run has completed since."""

    def stage_id(self, fingerprint: str) -> str:
        """Return the id in the names of staged results: the fingerprint, and another id after each stop."""
        if not self.number:
            return fingerprint
        return hashlib.sha256(f"stopped\0{fingerprint}\0{self.number}".encode()).hexdigest()[:16]


def load(store: Store) -> Stops:
    """Return the stopped runs.

    Raises:
        StoreError: the record of a stopped run cannot be read.
    """
    found = [match for entry in store.list(layout.STOPPED) if (match := _STOP.fullmatch(entry.path))]
    numbers = sorted(int(match[1]) for match in found if match[2] == "json")
    done = max((int(match[1]) for match in found if match[2] == "done"), default=0)
    still_open = [number for number in numbers if number > done]
    redo = frozenset(name for number in still_open for name in _shards(store, layout.stopped_path(number)))
    return Stops(max(numbers, default=0), redo, bool(still_open))


def _shards(store: Store, path: str) -> Iterable[str]:
    try:
        return [str(name) for name in bounds.parse_record(store.read(path))["shards"]]
    except (ValueError, KeyError, TypeError) as error:
        raise StoreError(
            f"{store.url}/{path}: not a record of a stopped run ({bounds.plain(error)}); restore it"
        ) from error


def record(store: Store, shards: Iterable[str]) -> None:
    """Record that a run stops; `shards` are those with error rows whose commit it began."""
    number = load(store).number + 1
    data = json.dumps({"shards": sorted(shards)}).encode()
    while not store.create(layout.stopped_path(number), data):  # another run has stopped since the listing
        number += 1


def settle(store: Store, number: int) -> None:
    """Record that a run completed after these stops, so that nothing of them is left to redo."""
    store.create(layout.stopped_path(number, is_done=True), b"")


def redo(store: Store, stops: Stops, shards: Iterable[Shard], fingerprint: str) -> Sequence[Todo]:
    """Return the error rows that stopped runs committed, to be redone; results staged for them are not used.

    Args:
        store: the sink.
        stops: the stopped runs.
        shards: committed shards.
        fingerprint: fingerprint of the pipeline.
    """
    if not stops.redo:
        return []
    from raysp.sink.recommitting import find_error_rows

    return list(find_error_rows(store, [shard for shard in shards if shard.name in stops.redo], fingerprint))
