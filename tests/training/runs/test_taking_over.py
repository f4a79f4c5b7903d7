"""Trainings whose lease another run takes over, whose commits are damaged, and checkpoints that are in use."""

import dataclasses
import json
import logging
import shutil
import time
from pathlib import Path

import pytest

import raysp
from raysp import Evaluation, RunError, Schedule, finetune
from raysp.sink import lease
from raysp.sink.run_record import RunEntry
from raysp.storage.store import LocalStore, Store
from raysp.storage.stores import open_store
from raysp.training.sink import committed_steps, exports, step_metrics, training_record
from raysp.training.sink.committed_steps import Position
from raysp.training.sink.fencing import FencedStore
from tests.recipes import a_recipe, second_shard
from tests.s3_servers import SECRET_VARIABLE
from tests.training.runs.test_finetuning import again, same, steps_until, weights

pytestmark = pytest.mark.slow


@pytest.fixture(params=["disk", "s3"])
def sink(request, tmp_path) -> tuple[Store, raysp.Checkpoint]:
    if request.param == "disk":
        return LocalStore(tmp_path / "out"), raysp.Checkpoint(str(tmp_path / "out"), every=2)
    s3 = request.getfixturevalue("s3")
    url = f"s3://{s3.bucket()}/out"
    options = {"key": s3.key, "secret": raysp.Env(SECRET_VARIABLE), "endpoint_url": s3.endpoint}
    return open_store(url, s3.options), raysp.Checkpoint(url, every=2, storage_options=options)


def take_over(store: Store) -> dict[str, str]:
    """Begin another training in a sink, and export it; return the versions of its files."""
    [holder] = lease.holders(store)
    lease._ended.add(holder.owner)  # its beats have stopped for long enough
    mine = FencedStore(store, lease.acquire(store).epoch)
    training_record.remove(mine)
    training_record.begin(mine, RunEntry.now(), recipe={}, fingerprint="other", parts={}, epoch=mine.epoch)
    writers = {"model.safetensors": lambda path: path.write_bytes(b"theirs") and None}
    facts = {"fingerprint": "other", "index": "i", "num_workers": 1, "metrics": {}, "epoch": mine.epoch}
    committed_steps.commit(mine, Position(4, 0, 4), writers, **facts)
    files = {"config.json": b"{}", "model.safetensors": b"theirs", "vocab.json": b"[]"}
    sizes = {name: len(data) for name, data in files.items()}
    put = {"fingerprint": "other", "state": "s", "epoch": mine.epoch}
    exports.publish(mine, sizes, lambda name: mine.replace(name, files[name]), **put)
    return versions(store)


def wait_for_commit(store: Store, done: int) -> None:
    """Wait until a step is committed, so that no thread is writing."""
    deadline = time.monotonic() + 60
    while done and store.stat(f"{committed_steps.STEPS}{done}.json") is None:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def versions(store: Store) -> dict[str, str]:
    """Return the versions of all files but those of the lease."""
    return {one.path: one.version for one in store.list() if not one.path.startswith((".raysp/lease", ".raysp/tmp"))}


@pytest.mark.parametrize("at", [1, 3, 4])
def test_a_training_that_wakes_after_another_took_over_ends_and_replaces_nothing(words, tiny, sink, at):
    """After the commit of the last step nothing is left to it but the export."""
    store, checkpoint = sink
    recipe = a_recipe(words, tiny, "unused", schedule=Schedule(steps=4, learning_rate=1e-3))
    recipe, theirs = dataclasses.replace(recipe, sink=checkpoint), {}

    def suspend(progress):
        if progress.done == at:
            wait_for_commit(store, at // 2 * 2)
            theirs.update(take_over(store))

    with pytest.raises(
        RunError, match=r"another run took over: .* This run ends, and has replaced no file of the other one"
    ):
        finetune(recipe, on_progress=suspend)
    assert versions(store) == theirs


def test_every_committed_step_has_its_metrics_whenever_a_training_is_killed(words, tiny, tmp_path, monkeypatch):
    sink, seen, publish = tmp_path / "out", [], LocalStore.publish

    def published(self, scratch, path, **options):
        if (path.startswith(committed_steps.STEPS)) and path.endswith(".json"):
            done = json.loads(scratch.read_text())["position"]["done"]
            seen.append(done)
            assert [step.done for step in step_metrics.load(self)] == [*range(1, done + 1)]
        return publish(self, scratch, path, **options)

    monkeypatch.setattr(LocalStore, "publish", published)
    evaluation = Evaluation(second_shard(words), every=3, best="loss")
    recipe = again(words, tiny, sink, evaluation=evaluation)
    finetune(recipe, should_stop=steps_until(3))
    finetune(recipe)
    assert len(seen) > 3


@pytest.fixture(scope="module")
def whole(words, tiny, tmp_path_factory) -> Path:
    """The sink of a training without a stop."""
    sink = tmp_path_factory.mktemp("trained") / "whole"
    finetune(again(words, tiny, sink))
    return sink


@pytest.mark.parametrize("damage", ["shorter", "changed"])
def test_a_damaged_commit_is_trained_again_and_made_whole(words, tiny, tmp_path, whole, damage):
    recipe, store = again(words, tiny, tmp_path / "out"), LocalStore(tmp_path / "out")
    finetune(recipe, should_stop=steps_until(4))
    last = committed_steps.latest(store)
    path = tmp_path / "out" / last.files["model.safetensors"].path
    data = path.read_bytes()
    path.write_bytes(data[:1000] if damage == "shorter" else data[:-100] + bytes(100))
    finetune(recipe, should_stop=steps_until(last.position.done))
    if store.stat(f"{committed_steps.STEPS}{last.position.done}.json"):
        assert committed_steps.is_whole(store, committed_steps.load(store, last.position.done))
    finetune(recipe)
    assert same(weights(tmp_path / "out"), weights(whole))


def test_a_checkpoint_that_is_in_use_is_not_exported_again(words, tiny, whole, tmp_path):
    recipe, sink = again(words, tiny, tmp_path / "out"), Path(shutil.copytree(whole, tmp_path / "out"))
    (sink / "README.md").write_text("by the user")
    before = files_of(sink)
    assert finetune(recipe).is_done
    assert files_of(sink) == before
    (sink / "vocab.json").unlink()
    assert finetune(recipe).is_done
    assert (sink / "vocab.json").exists()


def files_of(sink: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in sink.iterdir() if path.is_file()}


def test_a_restart_says_that_the_checkpoint_stays_and_replaces_it_when_it_is_done(words, tiny, whole, tmp_path, caplog):
    recipe, sink = again(words, tiny, tmp_path / "out"), Path(shutil.copytree(whole, tmp_path / "out"))
    before = files_of(sink)
    changed = dataclasses.replace(recipe, seed=1)
    with caplog.at_level(logging.WARNING):
        finetune(changed, restart=True, should_stop=steps_until(2))
    assert "the checkpoint of the earlier training stays until this training is done" in caplog.text
    assert files_of(sink) == before
    assert raysp.status(str(sink)).steps_exported is None
    finetune(changed)
    assert json.loads((sink / "metrics.json").read_text())["fingerprint"] == finetune(changed).fingerprint


def test_a_training_begins_anew_after_a_restart_that_was_killed(words, tiny, whole, tmp_path):
    """The record is removed first, so what was not removed yet has no record."""
    recipe, store = again(words, tiny, tmp_path / "out"), LocalStore(shutil.copytree(whole, tmp_path / "out"))
    store.delete(training_record.RECIPE)
    changed = dataclasses.replace(recipe, seed=1)
    finetune(changed, should_stop=steps_until(2))
    assert [step.done for step in step_metrics.load(store)] == [1, 2]
    assert committed_steps.newest(store, 9, until=100) == [2]
