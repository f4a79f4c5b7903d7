"""The event log of a run: JSON lines in numbered files below `.raysp/events/`, for people and log collectors.

Nothing reads it to decide about labels, and `gc` keeps it. A thread writes it, at most once in `WRITE_SECONDS` except
after a failure and at the end, since a file of an object store cannot be appended to. A run never waits for it: if a
file cannot be written, the events are kept for the next one, up to `MOST_EVENTS`.
"""

import json
import logging
import threading
from collections.abc import Collection
from datetime import UTC, datetime
from typing import Self
from urllib.parse import quote

from raysp.sink import layout
from raysp.specs.values import JsonValue
from raysp.storage.store import Store, join_url

logger = logging.getLogger(__name__)

WRITE_SECONDS = 30.0
LEAST_SECONDS = 2.0
"""Time between two files even after failures."""
MOST_EVENTS = 10_000
"""Events held until they can be written; the oldest are dropped and counted in an event `dropped`."""
END_SECONDS = 10.0
"""Longest time that the end of a run waits for the last file."""
MOST_CHARACTERS = 1_000
"""Longest text in an event."""
HIDDEN = "***"
"""Replaces a secret."""


class EventLog:
    """Event log of one run. Events may be added by any thread.

    Args:
        store: the sink.
        run_id: id of the run.
        secrets: texts that are replaced wherever they occur.
    """

    def __init__(self, store: Store, run_id: str, *, secrets: Collection[str] = ()) -> None:
        self._store = store
        self._run_id = run_id
        shown = {text for secret in secrets for text in _as_shown(secret)}
        self._secrets = sorted(shown, key=len, reverse=True)  # one may contain another
        self._number = 0
        self._lines: list[str] = []
        self._dropped = 0
        self._changed = threading.Condition()
        self._urgent = self._ended = False
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        """Return the log."""
        return self

    def __exit__(self, *error: object) -> None:
        """Write the rest."""
        self.close()

    def add(self, event: str, **fields: JsonValue) -> None:
        """Add an event with the current time. It is written within `WRITE_SECONDS`, or soon after `write_soon`."""
        time = datetime.now(UTC).isoformat(timespec="milliseconds")
        shown = {name: self._shown(value) for name, value in fields.items()}
        line = json.dumps({"time": time, "event": event, "run": self._run_id, **shown})
        with self._changed:
            if self._ended:
                return
            self._lines.append(line)
            self._trim()
            # Half of them: there is room for events that arrive while the file is written.
            if len(self._lines) >= MOST_EVENTS // 2:
                self._hurry()
            if self._thread is None:
                self._thread = threading.Thread(target=self._write_all, name="raysp-events", daemon=True)
                self._thread.start()

    def write_soon(self) -> None:
        """Write the events so far without waiting for the time of the next file."""
        with self._changed:
            self._hurry()

    def close(self, seconds: float = END_SECONDS) -> None:
        """Write the rest, waiting at most this long; later events are ignored."""
        with self._changed:
            self._ended = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join(seconds)

    def _shown(self, value: JsonValue) -> JsonValue:
        """Return a value without secrets, and with long texts cut."""
        if isinstance(value, dict):
            return {name: self._shown(item) for name, item in value.items()}
        if isinstance(value, list):
            return [self._shown(item) for item in value]
        if not isinstance(value, str):
            return value
        for secret in self._secrets:
            value = value.replace(secret, HIDDEN)
        # Cut last: half a secret would not be recognised.
        return value[:MOST_CHARACTERS]

    def _hurry(self) -> None:
        self._urgent = True
        self._changed.notify()

    def _trim(self) -> None:
        """Drop the oldest events if too many are held."""
        if (excess := len(self._lines) - MOST_EVENTS) > 0:
            del self._lines[:excess]
            self._dropped += excess

    def _write_all(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._urgent or self._ended, WRITE_SECONDS)
                is_last, self._urgent = self._ended, False
                lines, self._lines = self._lines, []
            if not self._write(lines):
                with self._changed:
                    self._lines[:0] = lines
                    self._trim()
            if is_last:
                return
            with self._changed:
                self._changed.wait_for(lambda: self._ended, LEAST_SECONDS)

    def _write(self, lines: list[str]) -> bool:
        """Write lines to a new file, and return whether that succeeded."""
        dropped = self._dropped
        if dropped:
            lines = [json.dumps({"event": "dropped", "run": self._run_id, "events": dropped}), *lines]
        if not lines:
            return True
        data = "".join(f"{line}\n" for line in lines).encode()
        try:
            # A write that was reported as failed may have arrived, so its number can be taken.
            while not self._store.create(layout.events_path(self._run_id, self._number), data):
                self._number += 1
        except Exception as error:
            logger.warning("%s: the event log is not written: %s", self._store.url, error)
            return False
        self._number += 1
        with self._changed:  # `add` counts in another thread
            self._dropped -= dropped
        return True


def _as_shown(secret: str) -> set[str]:
    """Return a secret as texts show it: as it is, and quoted for a shell, Python, JSON or a url."""
    in_shell = secret.replace("'", "'\"'\"'")  # as shlex does
    return {secret, in_shell, repr(secret)[1:-1], json.dumps(secret)[1:-1], quote(secret), quote(secret, safe="")}


def event_files(store: Store, run_id: str) -> str:
    """Return a glob of the urls of a run's event log."""
    return join_url(store.url, f"{layout.events_prefix(run_id)}*.jsonl")
