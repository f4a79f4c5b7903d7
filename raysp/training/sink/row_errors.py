"""Rows of a training that could not be decoded: JSON lines below `.raysp/errors/`, each row once a run."""

import json
import logging
from collections.abc import Iterable
from dataclasses import asdict, dataclass

from raysp.errors import StoreError
from raysp.sink.layout import ERRORS
from raysp.storage.store import Store

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ErrorRow:
    """A row that could not be decoded."""

    shard: str
    row: int
    """Number of the row in its shard."""
    error_type: str
    """Error type, as in label shards."""
    error_message: str


class ErrorsLog:
    """Writer of the error rows of one run.

    Args:
        store: the sink.
        run_id: id of the run.
    """

    def __init__(self, store: Store, run_id: str) -> None:
        self.store = store
        self.run_id = run_id
        self._rows: list[ErrorRow] = []
        self._num_files = 0

    def add(self, rows: Iterable[ErrorRow]) -> None:
        """Add rows."""
        self._rows += rows

    def write(self) -> None:
        """Write the rows since the last call. If that fails, they are written by the next call."""
        if not self._rows:
            return
        lines = "".join(f"{json.dumps(asdict(row))}\n" for row in self._rows)
        try:
            self.store.create(f"{ERRORS}{self.run_id}-{self._num_files:06}.jsonl", lines.encode())
        except StoreError as error:
            logger.warning("%s: %d error rows are not written yet: %s", self.store.url, len(self._rows), error)
            return
        self._rows, self._num_files = [], self._num_files + 1
