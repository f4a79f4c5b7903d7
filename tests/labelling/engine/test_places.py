"""Paths on a Ray whose workers run elsewhere: in another working directory than the driver."""

import dataclasses
from pathlib import Path

import pytest

import raysp
from raysp import run
from tests import kit
from tests.corpora import a_pipeline
from tests.runs import CHECKPOINT
from tests.text.beams.arpa_files import write_arpa

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("local_ray")]

ELSEWHERE = "/proc/self/cwd"
"""A folder that each process sees as its own working directory."""


@pytest.fixture
def pipeline(tmp_path, monkeypatch) -> raysp.Pipeline:
    """A pipeline of relative paths in the folder of this process, which is not that of the workers."""
    monkeypatch.chdir(tmp_path)
    kit.corpus(tmp_path / "corpus", 5)
    Path("model").symlink_to(CHECKPOINT)
    write_arpa(tmp_path / "words", [["ONE"]], 1)
    label = raysp.Label("model", outputs=[raysp.Transcript()])
    times = raysp.Label("model", outputs=[raysp.Align("pred_text")])
    return a_pipeline("corpus/part-0.parquet", "labels", steps=[raysp.Decode(), label, times])


def test_places_that_workers_do_not_see_are_refused_before_any_work(pipeline, tmp_path):
    """Each is absolute and there for this process, as /home is on machines that do not share it."""
    file = kit.pipeline_file(tmp_path / "label.py", pipeline)
    places = {
        "source.url": ["source.url=" + ELSEWHERE + "/corpus"],
        "source.audio_root": ["source.audio_root=" + ELSEWHERE + "/corpus"],
        "steps.1.checkpoint": ["steps.1.checkpoint=" + ELSEWHERE + "/model"],
        "steps.1.outputs.0.lm": ["steps.1.outputs.0.beams=2", "steps.1.outputs.0.lm=" + ELSEWHERE + "/words"],
        "steps.2.checkpoint": ["steps.2.checkpoint=" + ELSEWHERE + "/model"],
        "sink.url": ["sink.url=" + ELSEWHERE + "/labels"],
    }
    for field, changes in places.items():
        settings = [part for change in changes for part in ("--set", change)]
        for options in ([], ["--rows", "3"]):
            ran = kit.run(["run", file, *settings, *options], RAYSP_ENGINE="ray")
            said = f"raysp: {field}: 1 of 1 node of the cluster cannot see the files of this process in '{ELSEWHERE}/"
            assert (ran.code, said in ran.err, "Use a location " in ran.err) == (2, True, True), ran.err
    assert not (tmp_path / "labels").exists()
    source = raysp.Shards(f"{ELSEWHERE}/corpus/part-0.parquet", shared=True)
    with pytest.raises(raysp.RunError, match=r"no shard was committed: part-0\.parquet: /proc/self/cwd/"):
        run(dataclasses.replace(pipeline, source=source))  # the workers fail on it, with the reason
