"""Log of a training: a JSON line for each step below `.raysp/log/`, in a file for each commit of each run.

The file of a commit is written before its marker, so that every committed step has its record. A run that goes on from
an earlier step records the same steps again: the later run counts. Steps after the last commit do not count. Failed
rows that no commit covers are in a last file of the run.
"""

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import cast

from raysp import bounds
from raysp.errors import StoreError
from raysp.sink import records
from raysp.sink.commit import for_each
from raysp.sink.layout import LOG
from raysp.sink.records import AnyFloat, Natural
from raysp.specs.values import JsonValue
from raysp.storage.store import Store
from raysp.training.sink import training_record
from raysp.training.sink.step_evaluation import StepEvaluation

_FILE = re.compile(rf"{re.escape(LOG)}(.+)-(\d{{9,}})-\d{{9,}}\.jsonl")  # the id of a run may end with six digits


@dataclass(frozen=True)
class ErrorRow:
    """A row that could not be decoded, or whose target does not fit the decoded recording."""

    shard: str
    row: int
    """Number of the row in its shard."""
    error_type: str
    """Error type, as in label shards."""
    error_message: str


@dataclass(frozen=True)
class StepRecord:
    """A step of a training."""

    done: Natural
    """Updates of the weights, with this one."""
    epoch: Natural
    """Epochs that are done after the step."""
    step: Natural
    """Steps of the current epoch that are done."""
    loss: AnyFloat
    """Mean over rows or tokens."""
    norm: AnyFloat
    """Norm of the gradients before clipping."""
    learning_rate: float
    rows: Natural
    audio_seconds: float
    """Seconds of audio of the step, of all workers, according to the index."""
    seconds: float
    """Wall-clock seconds of the step, with the wait for its rows and the callbacks after the step before; without
    evaluations and commits."""
    waited: float
    """Seconds of it spent waiting for rows."""
    share: float
    """Share of the training that was done before the step, from 0 to 1."""
    evaluation: StepEvaluation | None = None
    """Evaluation after the step; None: it was not evaluated."""
    before: StepEvaluation | None = None
    """Evaluation before the step, which the first one has."""
    errors: tuple[ErrorRow, ...] = ()
    """Rows that failed since the step before, each once a run."""

    @property
    def json(self) -> dict[str, JsonValue]:
        """The record as it is stored, and as callbacks get it: without empty fields."""
        present = {name: value for name, value in asdict(self).items() if value not in (None, ())}
        # Ids of rows become texts unless JSON has their type.
        return cast("dict[str, JsonValue]", json.loads(json.dumps(present, default=str)))


@dataclass(eq=False, repr=False)
class StepLog:
    """Writer of the log of one run."""

    store: Store
    """The sink."""
    run_id: str
    _steps: list[StepRecord] = field(default_factory=list, init=False)

    def add(self, step: StepRecord) -> None:
        """Add a step."""
        self._steps.append(step)

    def take(self) -> Callable[[], None]:
        """Return a function that writes the steps up to now, which may run while more are added.

        It raises StoreError if they cannot be written.
        """
        steps, self._steps = self._steps, []
        return partial(self._write, steps)

    def _write(self, steps: Sequence[StepRecord]) -> None:
        if steps:
            content = "".join(f"{json.dumps(step.json)}\n" for step in steps)
            # Workers of a run that were started again may commit other steps: their files replace no other ones.
            path = f"{LOG}{self.run_id}-{steps[0].done:09}-{steps[-1].done:09}.jsonl"
            self.store.create(path, content.encode())


class Steps:
    """The steps of the recorded training, each once; their records are parsed as they are asked for.

    Args:
        store: the sink.
        until: number of the last step; None: all, also those after the last commit.
    """

    def __init__(self, store: Store, until: int | None = None) -> None:
        self.store = store
        files = {entry.path: match for entry in store.list(LOG) if (match := _FILE.fullmatch(entry.path))}
        # A run that was suspended while another one restarted the training may write a file when it wakes. It is not
        # in the record by then. Without any recorded run, as of a sink that another program filled, all files count.
        recorded = {run.run_id for run in training_record.runs(store)}
        paths = [path for path in sorted(files) if not recorded or files[path][1] in recorded]
        self._lines: dict[int, tuple[str, bytes]] = {}
        for path, data in zip(paths, for_each(store.read, paths), strict=True):
            lines = enumerate(data.splitlines(), int(files[path][2]))
            self._lines |= {done: (path, line) for done, line in lines if until is None or done <= until}
        self.last_run = files[paths[-1]][1] if paths else ""
        """Id of the last run with steps; empty without any."""

    def last(self, number: int | None = None, *, run_id: str = "") -> list[StepRecord]:
        """Return the records of the last steps in order.

        Args:
            number: number of steps; None: all.
            run_id: only steps of this run; empty: of any run.

        Raises:
            StoreError: a record cannot be parsed.
        """
        prefix = f"{LOG}{run_id}-" if run_id else LOG
        numbers = [done for done in sorted(self._lines) if self._lines[done][0].startswith(prefix)]
        return [self._parsed(done) for done in (numbers if number is None else numbers[-number:])]

    @property
    def evaluations(self) -> dict[int, StepEvaluation]:
        """The evaluations by the updates before them, in order."""
        evaluations: dict[int, StepEvaluation] = {}
        for done in sorted(self._lines):
            if b'"metric"' in self._lines[done][1]:
                step = self._parsed(done)
                evaluations |= {done - 1: step.before} if step.before else {}
                evaluations |= {done: step.evaluation} if step.evaluation else {}
        return evaluations

    def _parsed(self, done: int) -> StepRecord:
        path, line = self._lines[done]
        try:
            step = records.parse(line, StepRecord)
            if step.done != done:
                raise ValueError(f"found step {step.done}, expected {done}")
        except ValueError as error:
            raise StoreError(
                f"{self.store.url}/{path}: not the log of steps ({bounds.plain(error)}); remove this file"
            ) from error
        return step
