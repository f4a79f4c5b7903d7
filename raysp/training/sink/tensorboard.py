"""Event files for TensorBoard, below `.raysp/tensorboard/`: one for each commit of each run.

TensorBoard reads the files of a folder in the order of their names, which is the order of runs. The first file of a run
tells it to forget later steps of earlier runs.
"""

import logging
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from raysp.errors import StoreError
from raysp.sink.layout import HOME
from raysp.storage.store import Store

logger = logging.getLogger(__name__)

TENSORBOARD = f"{HOME}tensorboard/"


class _Value(NamedTuple):
    name: str
    value: float
    done: int
    time: float


class TensorBoardLog:
    """Writer of the event files of one run.

    Args:
        store: the sink.
        run_id: id of the run.
    """

    def __init__(self, store: Store, run_id: str) -> None:
        self._store = store
        self._run_id = run_id
        self._values: list[_Value] = []
        self._has_written = False

    def log(self, step: int, values: Mapping[str, float], at: float | None = None) -> None:
        """Add values by name, such as `StepMetrics.tracked` or `StepEvaluation.tracked`.

        Args:
            step: updates of the weights so far.
            values: values by name.
            at: time of the step, in seconds since the epoch; None: now.
        """
        now = time.time() if at is None else at
        self._values += [_Value(name, value, step, now) for name, value in values.items()]

    def write(self) -> None:
        """Write the values since the last call to a file. If that fails, they are written by the next call."""
        if not self._values:
            return
        first = min(value.done for value in self._values)
        path = f"{TENSORBOARD}events.out.tfevents.{self._run_id}-{first:09}"
        try:
            self._store.replace(path, _encoded(self._values, purge_step=None if self._has_written else first))
        except (StoreError, OSError) as error:
            logger.warning("%s: events of TensorBoard are not written yet: %s", self._store.url, error)
            return
        self._values.clear()
        self._has_written = True

    def finish(self) -> None:
        """Write the values that are left."""
        self.write()


def _encoded(values: list[_Value], *, purge_step: int | None) -> bytes:
    """Return an event file; with `purge_step`, TensorBoard forgets this and later steps of earlier files."""
    from tensorboardX import SummaryWriter

    with tempfile.TemporaryDirectory(prefix="raysp-events-") as folder:
        writer = SummaryWriter(folder, purge_step=purge_step)
        for scalar in values:
            writer.add_scalar(scalar.name, scalar.value, scalar.done, walltime=scalar.time)
        writer.close()
        [file] = Path(folder).iterdir()
        return file.read_bytes()
