"""Starts of a local Ray that are noted, and start nothing: what a real one shows in no process, or only by chance."""

import json
import os
from collections.abc import Callable

import pytest
import ray

from tests.kit import run

SLOW = "The current node timed out during startup. This could happen because some of the raylet failed to startup"


class Starts:
    """What happens to a local Ray: "started" and "ended"."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.options: list[dict[str, object]] = []
        self.environments: list[dict[str, str]] = []
        self.failing = 0
        """Number of the first starts that fail."""
        self.look: Callable[[], object] = object
        """Called at each start."""
        self.at_end: Callable[[], object] = object
        """Called at each end."""

    def init(self, **options: object) -> None:
        self.seen.append("started")
        self.options.append(options)
        self.environments.append(dict(os.environ))
        self.look()
        if len(self.options) <= self.failing:
            raise Exception(SLOW)  # as Ray does

    def shutdown(self) -> None:
        self.seen.append("ended")
        self.at_end()


@pytest.fixture
def starts(monkeypatch) -> Starts:
    """Starts of Ray in this process, which is connected to none: no test of these files uses the shared Ray."""
    noted = Starts()
    monkeypatch.setattr(ray, "init", noted.init)
    monkeypatch.setattr(ray, "shutdown", noted.shutdown)
    for name in ("RAY_TMPDIR", "RAY_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    return noted


def findings(**variables: str) -> dict[str, dict[str, object]]:
    """Return what `raysp doctor` finds, by the names of its checks."""
    ran = run("doctor --json", **variables)
    found = {one["what"]: one for one in json.loads(ran.out)["findings"]}
    assert ran.code == (0 if all(one["ok"] for one in found.values()) else 1), ran.err
    return found
