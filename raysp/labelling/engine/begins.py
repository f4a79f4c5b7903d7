"""Pieces that a process of the engine `here` has begun and not ended: one small file per run, in `.raysp/begun/`.

A run replaces its file before it begins a piece, and deletes it at its end, also after an error or a signal. A file
that another run finds while it holds the lease was therefore left by a process that crashed or was killed.
"""

import json
import logging
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from raysp import bounds
from raysp.corpus.shards import Piece
from raysp.sink import layout, records
from raysp.sink.records import Natural
from raysp.storage.store import Store

logger = logging.getLogger(__name__)

Place = tuple[str, Natural, Natural]
"""Shard, first row, and end of the rows."""


@dataclass(frozen=True)
class _Record:
    fingerprint: str
    open: Sequence[Place]
    ended: Natural
    """Pieces that the process has ended."""


class Begins:
    """The begun pieces of one run. Any thread may begin one.

    Args:
        store: the sink.
        run_id: id of the run.
        fingerprint: that of the pipeline.
    """

    def __init__(self, store: Store, run_id: str, fingerprint: str) -> None:
        self._store = store
        self._fingerprint = fingerprint
        self._path = layout.begun_path(run_id)
        self._open: list[Place] = []
        self._ended = 0
        self._lock = threading.Lock()

    def begin(self, shard: str, piece: Piece) -> None:
        """Record a piece, before any work on it."""
        with self._lock:
            self._open.append((shard, piece.first, piece.end))
            data = json.dumps({"fingerprint": self._fingerprint, "open": self._open, "ended": self._ended})
            self._store.replace(self._path, data.encode())

    def end(self, shard: str, piece: Piece) -> None:
        """Record in memory that a piece is done; the next `begin` writes it."""
        place = shard, piece.first, piece.end
        with self._lock:
            if place in self._open:
                self._open.remove(place)
                self._ended += 1

    def close(self) -> None:
        """Delete the file, since the run ends without a crash."""
        self._store.delete(self._path)


def unfinished(store: Store, fingerprint: str) -> Mapping[Place, int]:
    """Return the pieces that crashed processes had begun, with the number of consecutive crashes over each.

    Crashes are counted back from the newest, until a process that had not begun the piece, had ended another one or
    had another pipeline, as after a correction of its code. Damaged files are logged and ignored.
    """
    times: Counter[Place] = Counter()
    counted: set[Place] = set()
    has_ended = False
    for path in sorted((entry.path for entry in store.list(layout.BEGUN)), reverse=True):
        try:
            record = records.parse(store.read(path), _Record)
        except ValueError as error:
            logger.warning("%s/%s: ignored a file that cannot be read (%s)", store.url, path, bounds.plain(error))
            continue
        if record.fingerprint != fingerprint:
            break
        places = {*record.open}
        times.update(places - counted)
        has_ended |= record.ended > 0
        counted |= times.keys() - places if not has_ended else times.keys()
    return times


def forget(store: Store) -> None:
    """Delete the files of all runs."""
    for path in [entry.path for entry in store.list(layout.BEGUN)]:
        store.delete(path)
