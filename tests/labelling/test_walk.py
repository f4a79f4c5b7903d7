"""The walk of a pipeline from the command line to a model: planning is entered a few times, and opens things once."""

import json
import subprocess
import sys

import pytest

from tests.corpora import DEMO

MOST_ENTRIES = 7
WALK = """
import json, sys, threading
import torch  # before calls are noted: its import has very many
entries, opened, planning = set(), [], "/raysp/labelling/planning/"
def note(frame, event, _):
    file = frame.f_code.co_filename
    if event != "call" or frame.f_back is None or not (planning in file or file.endswith("/raysp/storage/stores.py")):
        return
    caller, place, name = (one.rpartition("/raysp/")[2] for one in (
        frame.f_back.f_code.co_filename, frame.f_code.co_filename, frame.f_code.co_name))
    if (place, name) == ("storage/stores.py", "open_store"):
        opened.append(frame.f_locals["url"])
    is_entry = "/raysp/" in frame.f_back.f_code.co_filename and planning not in frame.f_back.f_code.co_filename
    given = {type(one).__name__ for name, one in frame.f_locals.items() if name != "self"}
    if is_entry and planning in frame.f_code.co_filename and given & {"Pipeline", "Opened", "Plan", "Job"}:
        entries.add((caller, name))
sys.argv = ["raysp", "run", sys.argv[1], "--rows", "3", "--json"]
threading.setprofile(note)
sys.setprofile(note)
from raysp.cli.entry import application
try:
    application()()
except SystemExit as end:
    sys.setprofile(None)
    print(json.dumps([end.code, sorted(entries), opened]), file=sys.stderr)
"""


@pytest.fixture(scope="module")
def walked():
    """Entries into planning with a pipeline or a value that holds one, and the opened urls of the sink."""
    command = [sys.executable, "-c", WALK, str(DEMO.parent / "label_digits.py")]
    ran = subprocess.run(command, capture_output=True, text=True, cwd=DEMO.parents[1])
    code, entries, opened = json.loads(ran.stderr.splitlines()[-1])
    assert code == 0, ran.stderr
    sink = json.loads(ran.stdout)["sink"]
    return entries, [url for url in opened if url == sink]


@pytest.mark.slow
def test_a_pipeline_enters_planning_at_most_seven_times(walked):
    entries, _ = walked
    assert {("labelling/engine/running.py", name) for name in ("read_source", "plan_run")} <= {*map(tuple, entries)}
    assert len(entries) <= MOST_ENTRIES, entries


@pytest.mark.slow
def test_the_sink_is_opened_once_for_the_run_and_once_for_each_worker(walked):
    _, opened = walked
    assert len(opened) == 2, opened  # by the plan, and by the process that labels and commits
