"""Mutations of crossings, in a process of their own, since the stand-in device stays registered with torch."""

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.soak
@pytest.mark.parametrize("part", ["1/4", "2/4", "3/4", "4/4"])
def test_a_crossing_that_is_taken_away_or_a_read_that_is_added_is_noticed(part):
    ran = subprocess.run(
        [sys.executable, "-m", "tests.device.mutations", part],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stdout[-4000:] + ran.stderr[-4000:]
    assert int(ran.stdout.split()[0]) > 50
