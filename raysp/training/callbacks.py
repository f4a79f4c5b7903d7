"""Callbacks of a recipe: functions of the user that are called with every step of a training."""

import hashlib
import logging
from collections.abc import Callable, Iterable, Mapping
from typing import cast

from raysp import tracebacks
from raysp.specs.pipeline import load_function
from raysp.training.sink.training_record import TrainingRecord

logger = logging.getLogger(__name__)


class Callbacks:
    """Callbacks of one run. The first error of each is logged, and none ends the training.

    Args:
        names: functions, as "module:function".

    Raises:
        SpecError: a function cannot be imported.
    """

    def __init__(self, names: Iterable[object] = ()) -> None:
        self._functions: dict[str, Callable[..., object]] = {
            name: load_function(name) for name in cast("Iterable[str]", names)
        }
        self._training: Mapping[str, str] = {}
        self._failed: set[str] = set()

    def begin(self, url: str, record: TrainingRecord) -> None:
        """Add the sink and the id of a training, which stays until a restart, to the dict of each call."""
        identity = hashlib.sha256(f"{url} {record.created}".encode()).hexdigest()[:16]
        self._training = {"sink": url, "training": identity}

    def __call__(self, record: Mapping[str, object]) -> None:
        """Call all functions with a record."""
        for name, function in self._functions.items():
            try:
                function({**record, **self._training})
            except (Exception, SystemExit) as error:
                tracebacks.raise_if_stopped(error)
                tracebacks.note(error)
                if name not in self._failed:
                    where = tracebacks.described(error, name.partition(":")[0])
                    logger.warning("callback %r failed, and the training goes on: %s", name, where)
                self._failed.add(name)
