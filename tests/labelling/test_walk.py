"""The walk of a pipeline from the command line to a model: planning is entered a few times, and opens things once."""

import json
import subprocess
import sys

import pytest

from tests.corpora import DEMO

MOST_ENTRIES = 8
WALK = """
import json, sys, threading
entries, planning = set(), "/raysp/labelling/planning/"
def note(frame, event, _):
    if event == "call" and planning in frame.f_code.co_filename and frame.f_back is not None:
        caller = frame.f_back.f_code.co_filename
        is_entry = "/raysp/" in caller and planning not in caller
        if is_entry and any(type(one).__name__ == "Pipeline" for one in frame.f_locals.values()):
            entries.add((caller.rpartition("/raysp/")[2], frame.f_code.co_name))
sys.argv = ["raysp", "run", sys.argv[1], "--rows", "3", "--json"]
threading.setprofile(note)
sys.setprofile(note)
from raysp.cli.entry import application
try:
    application()()
except SystemExit as end:
    sys.setprofile(None)
    print(json.dumps([end.code, sorted(entries)]), file=sys.stderr)
"""


@pytest.mark.slow
def test_a_pipeline_enters_planning_at_most_eight_times():
    command = [sys.executable, "-c", WALK, str(DEMO.parent / "label_digits.py")]
    ran = subprocess.run(command, capture_output=True, text=True, cwd=DEMO.parents[1])
    code, entries = json.loads(ran.stderr.splitlines()[-1])
    assert code == 0, ran.stderr
    assert ["labelling/engine/running.py", "make_plan"] in entries
    assert len(entries) <= MOST_ENTRIES, entries
