"""Trackers with the real packages, where they are installed: MLflow in a folder, Weights & Biases without a server."""

import time

import pytest

from raysp import PlanError
from raysp.training import trackers
from raysp.training.sink.training_record import TrainingRecord
from raysp.training.trackers import open_tracker

RECORD = TrainingRecord("2026-01-01", {"name": "digits"}, "f00d", {"seed": 0})
URL = "s3://models/digits-ctc"


@pytest.fixture
def mlflow(tmp_path, monkeypatch):
    package = pytest.importorskip("mlflow", reason="mlflow is not installed: only its stand-in is tested")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "runs").as_uri())
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    yield package
    while package.active_run():
        package.end_run()


@pytest.fixture
def wandb(tmp_path, monkeypatch):
    package = pytest.importorskip("wandb", reason="wandb is not installed: only its stand-in is tested")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    monkeypatch.setenv("WANDB_SILENT", "true")
    yield package
    if package.run:
        package.finish()


def test_a_training_that_repeats_steps_is_one_run_of_mlflow_with_each_step_once(mlflow, capsys):
    for steps, has_failed in ((range(1, 5), True), (range(3, 8), False)):
        tracker = open_tracker("mlflow", URL, RECORD)
        for step in steps:
            tracker.log(step, {"train/loss": 10.0 * has_failed + step, "evaluation/wer": 0.5})
        tracker.finish(has_failed=has_failed)
        [run] = mlflow.search_runs(output_format="list")
        assert run.info.status == ("FAILED" if has_failed else "FINISHED")
    assert (run.info.run_name, run.data.params) == ("digits", {"fingerprint": "f00d", "seed": "0"})
    for name in ("train/loss", "evaluation/wer"):
        history = mlflow.MlflowClient().get_metric_history(run.info.run_id, name)
        assert sorted(one.step for one in history) == [1, 2, 3, 4, 5, 6, 7]
    assert run.data.metrics == {"train/loss": 7.0, "evaluation/wer": 0.5}
    assert (mlflow.active_run(), capsys.readouterr().out) == (None, "")


def test_an_active_run_of_mlflow_stays_active(mlflow):
    with mlflow.start_run() as active:
        tracker = open_tracker("mlflow", URL, RECORD)
        tracker.log(3, {"train/loss": 2.0})
        tracker.finish()
        assert mlflow.active_run().info.run_id == active.info.run_id
    assert mlflow.get_run(active.info.run_id).data.metrics == {"train/loss": 2.0}


def test_a_server_of_mlflow_that_does_not_answer_is_refused_in_seconds(mlflow, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setitem(trackers.IMPATIENT, "MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    begun = time.monotonic()
    with pytest.raises(PlanError, match=r"tracker 'mlflow': the run cannot begin \(.*127\.0\.0\.1.*; check its"):
        open_tracker("mlflow", URL, RECORD)
    assert time.monotonic() - begun < 30


def test_a_training_that_goes_on_without_a_server_is_another_folder_of_the_same_run_of_wandb(wandb, tmp_path):
    for step in (1, 2):
        tracker = open_tracker("wandb", URL, RECORD)
        tracker.log(step, {"train/loss": 1.0 / step})
        assert (wandb.run.project, wandb.run.name, wandb.run.config["seed"]) == ("raysp", "digits", "0")
        run_id = wandb.run.id
        tracker.finish()
        assert wandb.run is None
        time.sleep(1.1)  # names of folders have seconds
    assert len(files := [*tmp_path.glob("wandb/offline-run-*/*.wandb")]) == 2
    assert {file.name for file in files} == {f"run-{run_id}.wandb"}


def test_an_active_run_of_wandb_stays_active(wandb):
    with wandb.init(project="own") as active:
        tracker = open_tracker("wandb", URL, RECORD)
        tracker.log(3, {"train/loss": 2.0})
        tracker.finish()
        assert wandb.run is active
        active.log({"own": 1.0}, step=4)  # the values of a step are complete with those of the next one
        active.log({"own": 1.0}, step=5)
        assert (active.summary["train/loss"], active.summary["own"]) == (2.0, 1.0)
