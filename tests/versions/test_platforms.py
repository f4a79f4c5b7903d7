"""What macOS and Windows lack, taken away on Linux in a process of its own."""

import subprocess
import sys

import pytest

MACOS = "import fcntl, os\ndel os.sched_getaffinity, fcntl.F_SETPIPE_SZ\n"
WINDOWS = """import os, sys
sys.modules.update(fcntl=None, resource=None)
del os.sched_getaffinity, os.sysconf, os.getuid
"""
PLAN_AND_LABEL = """
import pyarrow.parquet as pq
import raysp

label = raysp.Label("pipelines/demo/unispeech-digits-ctc", outputs=[raysp.Transcript()])
pipeline = raysp.Pipeline(
    source=raysp.Shards("pipelines/demo/audio/*.parquet"), steps=[raysp.Decode(), label], sink=raysp.Parquet("none")
)
table = pq.read_table("pipelines/demo/audio/digits-00000-of-00002.parquet").slice(0, 2)
print(raysp.plan(pipeline).fingerprint, raysp.Labeller(pipeline.steps)(table)["pred_text"].to_pylist())
"""


@pytest.mark.slow
@pytest.mark.parametrize("absent", [MACOS, WINDOWS], ids=["macos", "windows"])
def test_plan_and_labels_are_the_same_without_what_other_systems_lack(absent):
    assert _printed(absent + PLAN_AND_LABEL) == _printed(PLAN_AND_LABEL)


@pytest.mark.parametrize("absent", [MACOS, WINDOWS], ids=["macos", "windows"])
def test_cpus_and_memory_are_counted_without_what_other_systems_lack(absent):
    counted = "from raysp import machine as m\nprint(m.num_cpus() >= 1, m.memory_bytes() > 0)"
    assert _printed(absent + counted) == "True True\n"


def test_a_checkpoint_copy_is_never_removed_without_locks(tmp_path):
    program = """
from pathlib import Path
from raysp.checkpoints import user_cache
user_cache.KEPT_COPIES = 0
copy = Path(sys.argv[1]) / "copy"
copy.mkdir()
user_cache.mark_used(copy)
user_cache.forget_used()
user_cache.remove_unused(copy.parent)
print(copy.is_dir())
"""
    assert _printed(WINDOWS + program, tmp_path) == "True\n"
    assert _printed("import sys\n" + program, tmp_path / "with-locks") == "False\n"


def _printed(program, *arguments):
    for folder in arguments:
        folder.mkdir(exist_ok=True)
    done = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout
