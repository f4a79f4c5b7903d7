"""The log of a run: its receipts and events, as JSON lines in numbered files that are never rewritten.

Receipts are read by `receipts`. Events are for people and log collectors; nothing reads them to decide about labels.
Within a `with` statement a thread writes, at most once in `WRITE_SECONDS` except after a failure, for a full batch and
at the end, since a file of an object store cannot be appended to. A run never waits for it: lines that cannot be
written are kept for the next file, up to `MOST_LINES`.
"""

import json
import logging
import threading
from collections.abc import Collection, Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Self
from urllib.parse import quote

from raysp.sink import layout
from raysp.sink.receipts import KIND_OF, Receipt, ShardFailure
from raysp.specs.values import JsonValue
from raysp.storage.store import Store, join_url

logger = logging.getLogger(__name__)

BATCH = 500
"""Lines that are written at once."""
WRITE_SECONDS = 30.0
LEAST_SECONDS = 2.0
"""Time between two files even after failures."""
MOST_LINES = 10_000
"""Lines held until they can be written; the oldest are dropped and counted in an event `dropped`."""
END_SECONDS = 10.0
"""Longest time that the end of a run waits for the last file."""
MOST_CHARACTERS = 1_000
"""Longest text in an event."""
HIDDEN = "***"
"""Replaces a secret."""


class RunLog:
    """Log of one run. Any thread may add to it.

    Args:
        store: the sink.
        run_id: id of the run.
        secrets: texts that are replaced in events and reasons wherever they occur.
    """

    def __init__(self, store: Store, run_id: str, *, secrets: Collection[str] = ()) -> None:
        self._store = store
        self._run_id = run_id
        shown = {text for secret in secrets for text in _as_shown(secret)}
        self._secrets = sorted(shown, key=len, reverse=True)  # one may contain another
        self._number = 0
        self._lines: list[str] = []
        self._dropped = 0
        self._changed, self._writing = threading.Condition(), threading.Lock()
        self._urgent = self._ended = False
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        """Return the log, which a thread writes from now on."""
        self._thread = threading.Thread(target=self._write_all, name="raysp-log", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        """Write the rest, waiting at most `END_SECONDS`; later lines are ignored."""
        with self._changed:
            self._ended = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join(END_SECONDS)

    def add(self, receipt: Receipt) -> None:
        """Add a receipt; a failure is written soon."""
        fields = asdict(receipt)
        fields.pop("examples_behind", None)  # events have these messages, without secrets
        if isinstance(receipt, ShardFailure):
            fields |= {"reason": self._shown(receipt.reason)}
        self._append(KIND_OF[type(receipt)], fields)
        if isinstance(receipt, ShardFailure):
            self.write_soon()

    def event(self, kind: str, **fields: JsonValue) -> None:
        """Add an event with the current time."""
        self._append(kind, {"run": self._run_id, **{name: self._shown(value) for name, value in fields.items()}})

    def urgent_event(self, kind: str, **fields: JsonValue) -> None:
        """Add an event that is written soon."""
        self.event(kind, **fields)
        self.write_soon()

    def write_soon(self) -> None:
        """Write the lines so far without waiting for the time of the next file."""
        with self._changed:
            self._urgent = True
            self._changed.notify()

    def flush(self) -> None:
        """Write the lines so far.

        Raises:
            StoreError: they cannot be written; they are kept.
        """
        with self._writing:
            with self._changed:
                lines, self._lines = self._lines, []
                dropped, self._dropped = self._dropped, 0
            try:
                self._write([_line("dropped", {"run": self._run_id, "lines": dropped}), *lines] if dropped else lines)
            except BaseException:
                with self._changed:
                    self._lines[:0] = lines
                    self._dropped += dropped
                    self._trim()
                raise

    def _append(self, kind: str, fields: Mapping[str, object]) -> None:
        line = _line(kind, fields)
        with self._changed:
            if self._ended:
                return
            self._lines.append(line)
            self._trim()
            is_full = len(self._lines) >= BATCH
        if is_full and self._thread:
            self.write_soon()
        elif is_full:
            self.flush()

    def _shown(self, value: JsonValue) -> JsonValue:
        """Return a value without secrets, and with long texts cut."""
        if isinstance(value, dict):
            return {name: self._shown(field) for name, field in value.items()}
        if isinstance(value, list):
            return [self._shown(item) for item in value]
        if not isinstance(value, str):
            return value
        for secret in self._secrets:
            value = value.replace(secret, HIDDEN)
        # Cut last: half a secret would not be recognised.
        return value[:MOST_CHARACTERS]

    def _trim(self) -> None:
        """Drop the oldest lines if too many are held."""
        if (excess := len(self._lines) - MOST_LINES) > 0:
            del self._lines[:excess]
            self._dropped += excess

    def _write_all(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._urgent or self._ended, WRITE_SECONDS)
                is_last, self._urgent = self._ended, False
            try:
                self.flush()
            except Exception as error:
                logger.warning("%s: the log of the run is not written: %s", self._store.url, error)
            if is_last:
                return
            with self._changed:
                self._changed.wait_for(lambda: self._ended, LEAST_SECONDS)

    def _write(self, lines: list[str]) -> None:
        """Write lines to a new file."""
        if not lines:
            return
        data = "".join(f"{line}\n" for line in lines).encode()
        # A write that was reported as failed may have arrived, so its number can be taken.
        while not self._store.create(layout.log_path(self._run_id, self._number), data):
            self._number += 1
        self._number += 1


def _line(kind: str, fields: Mapping[str, object]) -> str:
    # The kind comes first, so that readers skip lines of other kinds without parsing them.
    time = datetime.now(UTC).isoformat(timespec="milliseconds")
    return json.dumps({"kind": kind, "time": time, **fields})


def _as_shown(secret: str) -> set[str]:
    """Return a secret as texts show it: as it is, and quoted for a shell, Python, JSON or a url."""
    in_shell = secret.replace("'", "'\"'\"'")  # as shlex does
    return {secret, in_shell, repr(secret)[1:-1], json.dumps(secret)[1:-1], quote(secret), quote(secret, safe="")}


def log_files(store: Store, run_id: str) -> str:
    """Return a glob of the urls of a run's log."""
    return join_url(store.url, f"{layout.log_prefix(run_id)}*.jsonl")
