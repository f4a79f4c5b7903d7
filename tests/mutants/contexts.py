"""Plugin of pytest: each test is a context of the coverage, and what passed is recorded with its seconds."""

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import coverage
import pytest

RECORD = "RAYSP_MUTANTS_RECORD"
"""Variable for the file of seconds by test; the coverage is measured by the process, started by `coverage run`."""
_seconds: dict[str, float] = {}
_failed: set[str] = set()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Measure a test, fixtures included."""
    measured = coverage.Coverage.current()
    if measured is not None:
        measured.switch_context(item.nodeid)
    began = time.perf_counter()
    try:
        return (yield)
    finally:
        _seconds[item.nodeid] = time.perf_counter() - began
        if measured is not None:
            measured.switch_context("")


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Leave out tests that fail or are skipped without any mutant."""
    if not report.passed:
        _failed.add(report.nodeid)


def pytest_sessionfinish() -> None:
    """Write the record."""
    kept = {name: seconds for name, seconds in _seconds.items() if name not in _failed}
    Path(os.environ[RECORD]).write_text(json.dumps(kept))
