"""Fault injection for tests: RAYSP_FAIL_AT=<before_|after_><phase>:<n> kills a run at the n-th passing of a phase.

SIGKILL ends the driver and the process that reaches the phase, as a failing machine would. The passings of all
processes are counted together, by files in a folder. Without the variable a passing costs one dictionary lookup.
"""

import os
import re
import signal
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from raysp.errors import PlanError

FAIL_AT = "RAYSP_FAIL_AT"
DRIVER = "RAYSP_DRIVER_PID"
FOLDER = "RAYSP_FAIL_FOLDER"
"""Variable for the folder in which passings are counted; by default a new temporary folder."""
PHASES = ("plan_written", "piece_staged", "shard_committed", "stage_removed", "run_finished")
"""Phases of a run."""
TRAINING_PHASES = ("step_written", "step_committed", "step_removed", "exported")
"""Phases of a training."""

_SETTING = re.compile(rf"((?:before|after)_(?:{'|'.join(PHASES + TRAINING_PHASES)})):([1-9]\d*)")


def arm() -> dict[str, str]:
    """Make this process the driver to kill, and return the variables for its workers; empty without fault injection.

    Raises:
        PlanError: the variable has an invalid value.
    """
    setting = os.environ.get(FAIL_AT)
    if not setting:
        return {}
    if _SETTING.fullmatch(setting) is None:
        raise PlanError(
            f"{FAIL_AT}={setting!r}: expected before_ or after_, one of {', '.join(PHASES + TRAINING_PHASES)}, and "
            "a count from 1, such as after_shard_committed:2"
        )
    os.environ[DRIVER] = str(os.getpid())
    os.environ[FOLDER] = os.environ.get(FOLDER) or tempfile.mkdtemp(prefix="raysp-fail-")
    return {name: os.environ[name] for name in (FAIL_AT, DRIVER, FOLDER)}


def adopt(settings: Mapping[str, str]) -> None:
    """Set in a worker the variables that `arm` returned in its driver."""
    for name in (FAIL_AT, DRIVER, FOLDER):
        os.environ.pop(name, None)
    os.environ.update(settings)


@contextmanager
def passing(phase: str) -> Iterator[None]:
    """Run the body as one passing of a phase; the process may be killed before or after it."""
    if FAIL_AT not in os.environ:
        yield
        return
    _reach(f"before_{phase}")
    yield
    # Not in a `finally`: a phase that failed was not passed.
    _reach(f"after_{phase}")


def _reach(place: str) -> None:
    setting = _SETTING.fullmatch(os.environ[FAIL_AT])
    if setting is None or setting[1] != place or DRIVER not in os.environ:
        return
    folder = Path(os.environ[FOLDER])
    if not folder.is_dir():  # not the driver's machine: its pid is another process here
        return
    if _count(folder, place) == int(setting[2]):
        # The driver first, since nothing runs after the second call.
        os.kill(int(os.environ[DRIVER]), signal.SIGKILL)
        os.kill(os.getpid(), signal.SIGKILL)


def _count(folder: Path, place: str) -> int:
    number = 1
    while True:
        try:
            # O_EXCL: processes that pass at the same time get different numbers.
            os.close(os.open(folder / f"{place}.{number}", os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        except FileExistsError:
            number += 1
        else:
            return number
