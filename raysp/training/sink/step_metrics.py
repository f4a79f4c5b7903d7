"""Metrics of the steps of a training: JSON lines below `.raysp/metrics/`, a file for each commit of each run.

The file of a commit is written before its marker, so that every committed step has a line. A run that goes on from an
earlier step writes lines for the same steps again. The later run counts.
"""

import json
import re
from dataclasses import asdict, dataclass

from raysp import bounds
from raysp.errors import StoreError
from raysp.sink import records
from raysp.sink.commit import for_each
from raysp.sink.layout import HOME
from raysp.sink.records import AnyFloat, Natural
from raysp.storage.store import Store
from raysp.training.sink import training_record

METRICS = f"{HOME}metrics/"

_STEPS_OF_FILE = re.compile(r"-\d{9,}-\d{9,}\.jsonl$")  # the id of a run may end with six digits of its own


@dataclass(frozen=True)
class StepMetrics:
    """Figures of a step."""

    done: Natural
    """Updates of the weights, with this one."""
    epoch: Natural
    step: Natural
    """Number of the step in the epoch."""
    loss: AnyFloat
    norm: AnyFloat
    """Norm of the gradients before clipping."""
    learning_rate: float
    rows: Natural
    audio_seconds: float
    seconds: float
    """Wall-clock time of the step."""
    waited: float
    """Seconds of it spent waiting for rows."""
    share: float
    """Share of the training that was done before the step, from 0 to 1."""


class MetricsLog:
    """Writer of the metrics of one run.

    Args:
        store: the sink.
        run_id: id of the run.
    """

    def __init__(self, store: Store, run_id: str) -> None:
        self.store = store
        self.run_id = run_id
        self._lines: list[str] = []

    def add(self, step: StepMetrics) -> None:
        """Add a step."""
        self._lines.append(json.dumps(asdict(step)))

    def write(self) -> None:
        """Write the steps since the last call; a file of the same run and steps stays.

        Raises:
            StoreError: they cannot be written; the next call writes them.
        """
        if not self._lines:
            return
        first, last = (json.loads(line)["done"] for line in (self._lines[0], self._lines[-1]))
        content = "\n".join([*self._lines, ""])
        # Workers of a run that were started again may commit other steps: a file of theirs never replaces another one.
        self.store.create(f"{METRICS}{self.run_id}-{first:09}-{last:09}.jsonl", content.encode())
        self._lines.clear()


def load(store: Store) -> list[StepMetrics]:
    """Return the metrics of all steps in order; of a step that several runs made, the last run's."""
    steps: dict[int, StepMetrics] = {}
    for of_file in for_each(lambda path: _read(store, path), _paths(store)):
        steps.update(of_file)
    return [steps[done] for done in sorted(steps)]


def load_last(store: Store, number: int, *, until: int) -> list[StepMetrics]:
    """Return the metrics of the last steps in order; only the files that hold them are read.

    Args:
        store: the sink.
        number: number of steps.
        until: number of the last step.
    """
    steps: dict[int, StepMetrics] = {}
    for path in reversed(_paths(store)):
        steps = {done: step for done, step in _read(store, path).items() if done <= until} | steps
        if len(steps) >= number:
            break
    return [steps[done] for done in sorted(steps)[-number:]]


def load_last_run(store: Store, number: int) -> tuple[str, list[StepMetrics]]:
    """Return the id of the last run with metrics, and the metrics of its last steps in order; "" and none without any.

    Args:
        store: the sink.
        number: number of steps.
    """
    paths = _paths(store)
    run_id = _run_of(paths[-1]) if paths else ""
    steps: dict[int, StepMetrics] = {}
    for path in [path for path in reversed(paths) if path.startswith(f"{METRICS}{run_id}-")]:
        steps = _read(store, path) | steps
        if len(steps) >= number:
            break
    return run_id, [steps[done] for done in sorted(steps)[-number:]]


def _paths(store: Store) -> list[str]:
    """Return the files of the runs of this training in the order in which they were written."""
    paths = {path: _run_of(path) for path in sorted(entry.path for entry in store.list(METRICS))}
    ours = training_record.belongs(store, {*paths.values()})
    return [path for path, run_id in paths.items() if run_id in ours]


def _run_of(path: str) -> str:
    """Return the id of the run of a file."""
    return _STEPS_OF_FILE.sub("", path.removeprefix(METRICS))


def _read(store: Store, path: str) -> dict[int, StepMetrics]:
    """Return the steps of a file by their numbers.

    Raises:
        StoreError: it cannot be parsed.
    """
    try:
        steps = [records.parse(line, StepMetrics) for line in store.read(path).splitlines()]
        return {step.done: step for step in steps}
    except ValueError as error:
        raise StoreError(
            f"{store.url}/{path}: not the metrics of steps ({bounds.plain(error)}); remove this file"
        ) from error
