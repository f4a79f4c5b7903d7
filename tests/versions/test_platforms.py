"""What macOS lacks, taken away from raysp on Linux in processes of their own (`lacking`)."""

import os
from pathlib import Path

import pytest

import raysp
from tests import kit
from tests.commands import run_together
from tests.runs import row_hash
from tests.versions.lacking.lacking_calls import VARIABLE

LACKING = Path(__file__).with_name("lacking")


LACKED = """
from raysp import bounds, devices
from raysp.labelling.engine import process_clock

import os
print(devices.system(), hasattr(devices.os, "sched_getaffinity"))
print(bounds.has_memory_limit())
print(process_clock.read_times(os.getpid()), devices.num_cpus() >= 1, devices.memory_bytes() > 0)
"""


FINETUNE = f"finetune {kit.CHECKOUT}/pipelines/finetune_ctc.py"
A_CLUSTER = "run label.py --address 127.0.0.1:1"
SEVERAL_WORKERS = f"{FINETUNE} --set sink.url=trained --set pool.actors=2"


@pytest.mark.drivers
def test_macos_labels_as_linux_does_trains_and_refuses_what_it_lacks(tmp_path):
    corpus = kit.corpus(tmp_path / "in", rows=3, faults=["not_audio"])
    outputs = [raysp.Transcript(words=True)]
    raysp.run(corpus.pipeline(tmp_path / "out", outputs=outputs), engine="here", progress=False)
    corpus.file(tmp_path / "label.py", tmp_path / "new", outputs=outputs)
    training = f"{FINETUNE} --steps 1 --set batching.seconds=8"
    commands = ["run label.py", training, A_CLUSTER, SEVERAL_WORKERS, LACKED]
    variables = {VARIABLE: "macos", "PYTHONPATH": f"{LACKING}{os.pathsep}{kit.CHECKOUT}"}
    done = dict(zip(commands, run_together(commands, tmp_path, **variables), strict=True))
    assert {words: done[words].err for words in ("run label.py", training, LACKED) if done[words].code} == {}
    assert row_hash(tmp_path / "new") == row_hash(tmp_path / "out")
    assert done[LACKED].out.splitlines()[:2] == ["macOS False", "False"]
    assert done[LACKED].out.endswith("None True True\n")
    refused = {A_CLUSTER: "macOS: a cluster (127.0.0.1:1) is used from Linux alone; raysp submit"}
    refused[SEVERAL_WORKERS] = "macOS: training by several workers or on a cluster needs Linux; use one worker here"
    for words, said in refused.items():
        assert (done[words].code, done[words].out) == (2, "")
        assert done[words].err.splitlines()[-1].startswith(f"raysp: {said}")
