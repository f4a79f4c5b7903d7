"""The tests of `tests/device` in a process of their own, since the stand-in device stays registered with torch."""

import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.drivers
def test_what_runs_on_a_gpu_runs_on_the_stand_in_and_equals_the_cpu():
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/device"],
        cwd=Path(__file__).parents[2],
        env={name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")},
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stdout[-12_000:] + ran.stderr[-2_000:]
