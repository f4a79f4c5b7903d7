"""Trackers of experiments that are not part of raysp: MLflow, Weights & Biases.

A training that is continued continues its run there. Credentials and servers come from the environment, as their
documentation says. Errors after the beginning are logged: a tracker that fails ends no training. Values that a server
of MLflow takes are sent by a thread, so that a server that is away holds up no step.
"""

import contextlib
import hashlib
import logging
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import import_module
from typing import Any, NamedTuple, Protocol

from raysp.errors import PlanError, SpecError
from raysp.training.sink.training_record import TrainingRecord

logger = logging.getLogger(__name__)

PAUSE = 30.0
"""Seconds from a failure until values are sent again."""


class Sent(NamedTuple):
    """The values of a step."""

    step: int
    milliseconds: int
    """When they were received, since 1970."""
    values: Mapping[str, float]


class Sender:
    """Thread that sends values in the order of their steps; values that cannot be sent are kept and sent again.

    Args:
        name: name of the receiver, for messages.
        send: sends the values of some steps, all or nothing.
        most: values that are sent at once, unless one step has more.
    """

    def __init__(self, name: str, send: Callable[[Sequence[Sent]], None], most: int) -> None:
        self._name = name
        self._send = send
        self._most = most
        self._waiting: deque[Sent] = deque()
        self._changed = threading.Condition()
        self._is_ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"values for {name}", daemon=True)
        self._thread.start()

    def add(self, step: int, values: Mapping[str, float]) -> None:
        """Add the values of a step."""
        with self._changed:
            self._waiting.append(Sent(step, time.time_ns() // 1_000_000, dict(values)))
            self._changed.notify()

    def finish(self, seconds: float) -> None:
        """Wait until all values are sent, or one more try has failed, for at most `seconds`."""
        self._is_ending.set()
        with self._changed:
            self._changed.notify()
        self._thread.join(seconds)
        with self._changed:
            left = [step.step for step in self._waiting]
        if left:
            steps = f"step {left[0]}" if len(left) == 1 else f"{len(left)} steps from {left[0]} to {left[-1]}"
            logger.warning("tracker %r: values of %s are lost there; the sink has them", self._name, steps)

    def _run(self) -> None:
        has_failed = False
        while steps := self._next():
            try:
                self._send(steps)
            except Exception as error:
                if self._is_ending.is_set():
                    return
                if not has_failed:
                    logger.warning(
                        "tracker %r: values from step %d on wait until the server takes them: %s",
                        self._name,
                        steps[0].step,
                        error,
                    )
                has_failed = True
                self._is_ending.wait(PAUSE)
                continue
            has_failed = False
            with self._changed:
                for _ in steps:
                    self._waiting.popleft()

    def _next(self) -> list[Sent]:
        """Return the next steps, once there are any; none at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._is_ending.is_set())
            steps: list[Sent] = []
            num_values = 0
            for step in self._waiting:
                num_values += len(step.values)
                if steps and num_values > self._most:
                    break
                steps.append(step)
            return steps


MOST_PARAMETERS, MOST_CHARACTERS = 100, 500
"""Parameters of a run of MLflow, and characters of each, that all of its servers take."""
MOST_METRICS = 1000
"""Metrics of a request that servers of MLflow take."""
TAG = "raysp.training"
"""Tag of a run of MLflow with the id of its training."""
OF_EACH_STEP = "train/loss"
"""A value that each step has."""
PATIENCE = 60.0
"""Seconds that the end of a training waits for a server of MLflow."""
IMPATIENT = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2", "MLFLOW_HTTP_REQUEST_TIMEOUT": "20"}
"""Settings of MLflow while a run begins and ends, unless the environment has them: by default it tries for minutes."""


class Tracker(Protocol):
    """Receiver of the values of a training."""

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Receive values by name, such as `StepMetrics.tracked` or `StepEvaluation.tracked`.

        Args:
            step: updates of the weights so far; it never decreases within a run.
            values: values by name.
        """
        ...

    def finish(self, *, has_failed: bool = False) -> None:
        """Send the values that are left, and end the run.

        Args:
            has_failed: whether an error has ended the training.
        """
        ...


class MLflow:
    """Tracker that logs to MLflow, into the active run of the process if there is one.

    Values of steps that the run of an earlier process has already are ignored.

    Args:
        mlflow: the package.
        name: name of a new run.
        training: id of the training, of which an earlier run is continued.
        parameters: parameters of a new run.
    """

    def __init__(self, mlflow: Any, name: str, training: str, parameters: Mapping[str, str]) -> None:  # noqa: ANN401
        self._mlflow = mlflow
        self._is_own = mlflow.active_run() is None
        self._last = 0
        with _impatient():
            self._client = mlflow.MlflowClient()
            if self._is_own:
                self._begin(name, training, parameters)
        self._run_id = mlflow.active_run().info.run_id
        self._sender = Sender("mlflow", self._send, MOST_METRICS)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Send values in a thread, which MLflow's own cannot do: it waits at the end for each request by itself."""
        if step > self._last:
            self._sender.add(step, values)

    def finish(self, *, has_failed: bool = False) -> None:
        """Wait until all values are sent, and end the run, unless it was active before."""
        self._sender.finish(PATIENCE)
        if self._is_own:
            with _impatient(), contextlib.redirect_stdout(sys.stderr):  # it prints links, and stdout may be JSON
                self._mlflow.end_run("FAILED" if has_failed else "FINISHED")

    def _begin(self, name: str, training: str, parameters: Mapping[str, str]) -> None:
        tag = f"tags.`{TAG}` = '{training}'"
        if runs := self._mlflow.search_runs(filter_string=tag, max_results=1, output_format="list"):
            run_id = runs[0].info.run_id
            self._last = max((value.step for value in self._client.get_metric_history(run_id, OF_EACH_STEP)), default=0)
            self._mlflow.start_run(run_id=run_id)
            return
        self._mlflow.start_run(run_name=name, tags={TAG: training})
        try:
            self._mlflow.log_params({key: parameters[key][:MOST_CHARACTERS] for key in [*parameters][:MOST_PARAMETERS]})
        except Exception:
            with contextlib.suppress(Exception), contextlib.redirect_stdout(sys.stderr):
                self._mlflow.end_run("FAILED")  # else it would stay the active run of the process
            raise

    def _send(self, steps: Sequence[Sent]) -> None:
        metric = self._mlflow.entities.Metric
        metrics = [metric(*item, step.milliseconds, step.step) for step in steps for item in step.values.items()]
        self._client.log_batch(self._run_id, metrics=metrics, synchronous=True)


class WeightsAndBiases:
    """Tracker that logs to Weights & Biases, into the active run of the process if there is one.

    A new run is in the project of WANDB_PROJECT, or "raysp".

    Args:
        wandb: the package.
        name: name of a new run.
        training: id of the training and of its run, which is continued if it exists.
        parameters: configuration of the run.
    """

    def __init__(self, wandb: Any, name: str, training: str, parameters: Mapping[str, str]) -> None:  # noqa: ANN401
        self._is_own = wandb.run is None
        if not self._is_own:
            self._run = wandb.run
            return
        project = os.environ.get("WANDB_PROJECT", "raysp")
        self._run = wandb.init(project=project, id=training, name=name, config=dict(parameters), resume="allow")

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Send values; steps that the run already has are ignored."""
        self._run.log(dict(values), step=step)

    def finish(self, *, has_failed: bool = False) -> None:
        """Wait until all values are sent, and end the run, unless it was active before."""
        if self._is_own:
            self._run.finish(exit_code=int(has_failed))


TRACKERS: Mapping[str, Callable[[Any, str, str, Mapping[str, str]], Tracker]] = {
    "mlflow": MLflow,
    "wandb": WeightsAndBiases,
}
"""Trackers by the names of their packages and extras."""


def check_tracker(name: str) -> None:
    """Raise if a tracker cannot be used.

    Raises:
        SpecError: the name is unknown, or its package is not installed.
    """
    _package(name)


def open_tracker(name: str, url: str, record: TrainingRecord) -> Tracker:
    """Begin the run of a training, or continue it.

    Args:
        name: one of `TRACKERS`.
        url: sink of the training.
        record: record of the training.

    Raises:
        SpecError: as `check_tracker`.
        PlanError: the run cannot begin, for example because the server does not answer.
    """
    package = _package(name)
    training = hashlib.sha256(f"{url} {record.created}".encode()).hexdigest()[:16]
    title = str(record.value("name") or url.rstrip("/").rpartition("/")[2])
    parameters = {"fingerprint": record.fingerprint, **{key: str(value) for key, value in record.parts.items()}}
    try:
        return _Tolerant(name, TRACKERS[name](package, title, training, parameters))
    except Exception as error:
        raise PlanError(
            f"tracker {name!r}: the run cannot begin ({type(error).__name__}: {error}); check its settings in the "
            "environment, or leave the tracker out"
        ) from error


@contextlib.contextmanager
def _impatient() -> Iterator[None]:
    added = {key: value for key, value in IMPATIENT.items() if key not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for key in added:
            os.environ.pop(key, None)


def _package(name: str) -> Any:  # noqa: ANN401
    if name not in TRACKERS:
        raise SpecError(f"found the tracker {name!r}, expected one of {', '.join(TRACKERS)}")
    try:
        return import_module(name)
    except ImportError:
        raise SpecError(
            f"the tracker {name!r} needs the package {name}, which is not installed; pip install 'raysp[{name}]', or "
            "leave the tracker out"
        ) from None


class _Tolerant:
    """A tracker whose errors are logged.

    Args:
        name: name of the tracker.
        tracker: the tracker.
    """

    def __init__(self, name: str, tracker: Tracker) -> None:
        self._name = name
        self._tracker = tracker
        self._has_failed = False

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Log values; a failure is logged once."""
        try:
            self._tracker.log(step, values)
        except Exception as error:
            if not self._has_failed:
                logger.warning(
                    "tracker %r: values of step %d and maybe later ones are lost: %s", self._name, step, error
                )
            self._has_failed = True

    def finish(self, *, has_failed: bool = False) -> None:
        """End the run; a failure is logged."""
        try:
            self._tracker.finish(has_failed=has_failed)
        except Exception as error:
            logger.warning("tracker %r: the run was not ended: %s", self._name, error)
