"""Trainings whose lease another run takes over, whose commits are damaged, and checkpoints that are in use."""

import dataclasses
import json
import logging
import shutil
import time
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from types import MappingProxyType

import pytest

import raysp
from raysp import RunError, Schedule, finetune
from tests.recipes import a_recipe
from tests.training.runs.test_finetuning import again
from tests.training.trained import commits_of, committed_file, record_of, same, steps_of, stopping_after, weights
from tests.trainings import Files, Sink, commit

pytestmark = pytest.mark.slow


def sink_on(place: str, request, folder: Path) -> raysp.Checkpoint:
    if place == "disk":
        return raysp.Checkpoint(str(folder / "out"), every=2)
    s3 = request.getfixturevalue("s3")
    return raysp.Checkpoint(f"s3://{s3.bucket()}/out", every=2, storage_options=s3.options)


def take_over(sink: str, options: Mapping[str, object] = MappingProxyType({})) -> dict[str, str]:
    """Write what another training leaves that takes the lease, begins anew and exports; return its versions."""
    files = Files(sink, options)
    [lease] = files.paths(".raysp/lease/")
    epoch, process = int(lease.rpartition("/")[2]) + 1, {"host": "another", "boot": "b", "pid": 1, "start": "1"}
    holder = {"owner": "ann-1", "process": process, "since": "2026-01-01", "beat": 0, "released": False}
    files.write(f".raysp/lease/{epoch:08}", holder)
    for path in files.paths(".raysp/"):
        if not path.startswith((".raysp/tmp", f".raysp/lease/{epoch:08}")):
            files.remove(path)
    theirs = Sink(sink, options)
    theirs.commit(4)
    theirs.export(4)
    for name in ("model.safetensors", "vocab.json"):
        files.write(name, b"theirs")
    return files.versions()


def wait_for_commit(files: Files, done: int) -> None:
    """Wait until a step is committed, so that no thread is writing."""
    deadline = time.monotonic() + 60
    while done and f".raysp/steps/{done}.json" not in files.paths():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize(("place", "at"), [("disk", 4), ("s3", 3)])
def test_a_training_that_wakes_after_another_took_over_ends_and_replaces_nothing(
    words, tiny, request, tmp_path, place, at
):
    """After the commit of the last step nothing is left to it but the export."""
    sink = sink_on(place, request, tmp_path)
    recipe = a_recipe(words, tiny, sink, schedule=Schedule(steps=4, learning_rate=1e-3))
    files, theirs = Files(sink.url, sink.storage_options), {}

    def suspend(progress):
        if progress.done == at:
            wait_for_commit(files, at // 2 * 2)
            theirs.update(take_over(sink.url, sink.storage_options))

    with pytest.raises(
        RunError, match=r"another run took over: .* This run ends, and has replaced no file of the other one"
    ):
        finetune(recipe, on_progress=suspend)
    assert files.versions() == theirs


def test_a_commit_that_a_suspended_process_adds_after_a_restart_is_replaced(words, tiny, tmp_path, caplog):
    sink = tmp_path / "out"

    def add(progress):
        if progress.done == 1:
            commit(Files(sink), 2)

    assert finetune(a_recipe(words, tiny, sink), on_progress=add).is_done
    assert commits_of(sink)[2]["fingerprint"] == record_of(sink)["fingerprint"]
    assert "2.json was damaged or of an earlier training; it was replaced" in caplog.text


@pytest.fixture(scope="module")
def whole(words, tiny, tmp_path_factory) -> Path:
    """The sink of a training without a stop."""
    sink = tmp_path_factory.mktemp("trained") / "whole"
    finetune(again(words, tiny, sink))
    return sink


def test_a_damaged_commit_is_trained_again_and_made_whole(words, tiny, tmp_path, whole):
    recipe, sink = again(words, tiny, tmp_path / "out"), tmp_path / "out"
    finetune(recipe, should_stop=stopping_after(4))
    last = max(commits_of(sink))
    path = committed_file(sink, last, "model.safetensors")
    data = path.read_bytes()
    path.write_bytes(data[:-100] + bytes(100))
    finetune(recipe, should_stop=stopping_after(last))
    for file in commits_of(sink).get(last, {"files": {}})["files"].values():
        assert sha256((sink / file["path"]).read_bytes()).hexdigest() == file["sha256"]
    finetune(recipe)
    assert same(weights(tmp_path / "out"), weights(whole))


def files_of(sink: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in sink.iterdir() if path.is_file()}


def test_a_restart_says_that_the_checkpoint_stays_and_replaces_it_when_it_is_done(words, tiny, whole, tmp_path, caplog):
    recipe, sink = again(words, tiny, tmp_path / "out"), Path(shutil.copytree(whole, tmp_path / "out"))
    before = files_of(sink)
    changed = dataclasses.replace(recipe, seed=1)
    with caplog.at_level(logging.WARNING):
        finetune(changed, restart=True, should_stop=stopping_after(2))
    assert "the checkpoint of the earlier training stays until this training is done" in caplog.text
    assert files_of(sink) == before
    assert raysp.status(str(sink)).steps_exported is None
    finetune(changed)
    assert json.loads((sink / "metrics.json").read_text())["fingerprint"] == finetune(changed).fingerprint


def test_a_restart_needs_no_record_that_can_be_read(words, tiny, whole, tmp_path):
    recipe, sink = again(words, tiny, tmp_path / "out"), Path(shutil.copytree(whole, tmp_path / "out"))
    (sink / ".raysp" / "recipe.json").write_text("{")
    with pytest.raises(raysp.PlanError, match=r"recipe\.json: not a run record"):
        finetune(recipe)
    finetune(recipe, restart=True, should_stop=stopping_after(2))
    assert [step["done"] for step in steps_of(sink)] == [1, 2]
