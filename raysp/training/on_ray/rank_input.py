"""Rows for several workers: each piece is read once, by a task with an output for each worker."""

from collections.abc import Sequence
from typing import Any

import ray

from raysp.labelling.engine.piece_reading import process_decoder
from raysp.specs.code import UserCode
from raysp.training.data.micro_batches import TrainingRow
from raysp.training.data.row_windows import Failures, PieceRows, rows_of, wanted_rows
from raysp.training.planning.ordering import Window
from raysp.training.preparing import Prepared

SharedTraining = tuple["ray.ObjectRef[UserCode]", "ray.ObjectRef[Prepared]"]
"""Code of users, and the training, which is read after it. In a tuple, since Ray replaces a bare reference."""

READER_CPUS = 0.5
"""CPUs of a task that reads a piece."""


def prepared_of(shared: SharedTraining) -> Prepared:
    """Return a training in a process of Ray, which from then on imports the code of users as it was planned."""
    code, prepared = shared
    ray.get(code).install()
    return ray.get(prepared)


class Feeder:
    """Actor that starts the tasks of a window when the first worker asks for it, and forgets it a window later.

    It holds nothing that is not computed again: if it ends, workers begin again from the last commit.

    Args:
        shared: the training.
    """

    def __init__(self, shared: SharedTraining) -> None:
        self.shared = shared
        self.prepared = prepared_of(shared)
        self.begun: dict[tuple[int, int, int], list[list[Any]]] = {}

    def rows(self, window: Window, worker: int, num_workers: int) -> list[Any]:
        """Return references to the rows of a worker, a `PieceRows` for each piece of a window."""
        key = (window.epoch, window.number, num_workers)
        if key not in self.begun:
            before = max((old for old in self.begun if old < key), default=key)  # workers may still train on it
            for old in [old for old in self.begun if old[2] != num_workers or old < before]:
                del self.begun[old]
            self.begun[key] = self._begin(window, num_workers)
        return [outputs[worker] for outputs in self.begun[key]]

    def _begin(self, window: Window, num_workers: int) -> list[list[Any]]:
        by_worker = [wanted_rows(window, self.prepared.corpus, worker, num_workers) for worker in range(num_workers)]
        task: Any = ray.remote(_read).options(num_cpus=READER_CPUS, num_returns=num_workers, max_retries=3)
        outputs = []
        for number in window.pieces.tolist():
            refs = task.remote(self.shared, number, [worker.get(number, []) for worker in by_worker])
            outputs.append([refs] if num_workers == 1 else list(refs))
        return outputs


def _read(shared: SharedTraining, number: int, by_worker: Sequence[Sequence[int]]) -> Any:  # noqa: ANN401 - a value, or several
    """Return the rows of a piece for each worker; the first one gets the failed rows of all of them."""
    prepared = prepared_of(shared)
    every = sorted(row for rows in by_worker for row in rows)
    piece = prepared.reader(process_decoder())(number, every) if every else PieceRows({}, [], 0)
    parts = [PieceRows({row: piece.rows[row] for row in rows if row in piece.rows}, [], 0) for rows in by_worker]
    parts[0] = parts[0]._replace(failed=piece.failed, num_read=piece.num_read)
    return parts if len(parts) > 1 else parts[0]


def fed_rows(feeder: Any, failures: Failures, worker: int, num_workers: int, window: Window) -> dict[int, TrainingRow]:  # noqa: ANN401 - handle of an actor
    """Return a worker's rows of a window by their numbers, without rows that cannot be decoded.

    Args:
        feeder: handle of the feeder.
        failures: counts rows that fail: for the first worker, of all workers.
        worker: number of the worker.
        num_workers: number of all workers.
        window: the window.

    Raises:
        RunError: too many rows cannot be decoded.
    """
    pieces: list[PieceRows] = ray.get(ray.get(feeder.rows.remote(window, worker, num_workers)))
    return rows_of(pieces, failures)
