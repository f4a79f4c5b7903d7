"""Trackers with stand-ins for the packages: what they are called with, runs that are continued, and failures."""

import logging
import os
import sys
from types import SimpleNamespace
from unittest.mock import MagicMock, call

import pytest

from raysp import PlanError, SpecError
from raysp.training import trackers
from raysp.training.sink.training_record import TrainingRecord
from raysp.training.trackers import MOST_CHARACTERS, MOST_PARAMETERS, TRACKERS, check_tracker, open_tracker

RECORD = TrainingRecord("2026-01-01", {"name": "digits"}, "f00d", {"seed": 0, "objective.masks": {"layerdrop": 0.1}})
URL = "s3://models/digits-ctc"


@pytest.fixture
def package(request, monkeypatch) -> MagicMock:
    """The stand-in for the package that the parameter names."""
    made = MagicMock(__name__=request.param, run=None)
    made.active_run.return_value = None
    made.start_run.side_effect = lambda **_: setattr(made.active_run, "return_value", MagicMock())
    made.end_run.side_effect = lambda _: setattr(made.active_run, "return_value", None)
    made.search_runs.return_value = []
    made.entities.Metric = lambda key, value, timestamp, step: (key, value, step)
    monkeypatch.setattr(trackers, "PATIENCE", 30)
    monkeypatch.setitem(sys.modules, request.param, made)
    return made


both = pytest.mark.parametrize("package", TRACKERS, indirect=True)
mlflow = pytest.mark.parametrize("package", ["mlflow"], indirect=True)
wandb = pytest.mark.parametrize("package", ["wandb"], indirect=True)


def sent(package: MagicMock) -> list[tuple[str, float, int]]:
    requests = package.MlflowClient.return_value.log_batch.call_args_list
    return [metric for one in requests for metric in one.kwargs["metrics"]]


def tag_of(package: MagicMock) -> str:
    [begun] = package.start_run.call_args_list
    return begun.kwargs["tags"]["raysp.training"]


@mlflow
def test_a_new_training_is_a_run_of_mlflow_with_its_parameters(package):
    tracker = open_tracker("mlflow", URL, RECORD)
    assert package.start_run.call_args_list == [call(run_name="digits", tags={"raysp.training": tag_of(package)})]
    parameters = {"fingerprint": "f00d", "seed": "0", "objective.masks": "{'layerdrop': 0.1}"}
    assert package.log_params.call_args_list == [call(parameters)]
    tracker.log(3, {"train/loss": 2.0})
    tracker.finish()
    assert sent(package) == [("train/loss", 2.0, 3)]
    assert package.method_calls[-1] == call.end_run("FINISHED")


@mlflow
def test_a_training_that_goes_on_goes_on_in_its_run_of_mlflow(package):
    open_tracker("mlflow", URL, RECORD)
    tag = tag_of(package)
    assert package.search_runs.call_args.kwargs["filter_string"] == f"tags.`raysp.training` = '{tag}'"
    package.active_run.return_value = None
    package.reset_mock()
    package.search_runs.return_value = [SimpleNamespace(info=SimpleNamespace(run_id="r7"))]
    package.MlflowClient.return_value.get_metric_history.return_value = [SimpleNamespace(step=2)]
    tracker = open_tracker("mlflow", URL, RECORD)
    assert package.start_run.call_args_list == [call(run_id="r7")]
    assert not package.log_params.called
    for step in (1, 2, 3):
        tracker.log(step, {"train/loss": 2.0})
    tracker.finish()
    assert sent(package) == [("train/loss", 2.0, 3)]  # it has the others


@mlflow
def test_an_active_run_of_mlflow_is_used_and_not_ended(package):
    package.active_run.return_value = MagicMock()
    tracker = open_tracker("mlflow", URL, RECORD)
    tracker.log(1, {"x": 1.0})
    tracker.finish()
    assert (package.start_run.called, package.end_run.called, sent(package)) == (False, False, [("x", 1.0, 1)])


@wandb
def test_an_active_run_of_weights_and_biases_is_used_and_not_ended(package):
    package.run = MagicMock()
    tracker = open_tracker("wandb", URL, RECORD)
    tracker.log(1, {"x": 1.0})
    tracker.finish()
    assert (package.init.called, package.run.method_calls) == (False, [call.log({"x": 1.0}, step=1)])


@both
def test_the_run_of_a_training_that_fails_has_failed(package):
    open_tracker(package.__name__, URL, RECORD).finish(has_failed=True)
    ends = package.end_run.call_args_list + package.init.return_value.finish.call_args_list
    assert ends == [call("FAILED") if package.__name__ == "mlflow" else call(exit_code=1)]


@mlflow
def test_a_run_of_mlflow_whose_parameters_are_refused_is_not_left_active(package):
    package.log_params.side_effect = ValueError("too long")
    with pytest.raises(PlanError, match="too long"):
        open_tracker("mlflow", URL, RECORD)
    assert package.end_run.call_args_list == [call("FAILED")]


@mlflow
def test_mlflow_is_impatient_only_while_a_run_begins_and_ends(package, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "7")
    monkeypatch.delenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", raising=False)
    found = []

    def look(*_, **__):
        found.append([os.environ.get(f"MLFLOW_HTTP_REQUEST_{key}") for key in ("TIMEOUT", "MAX_RETRIES")])
        return []

    package.search_runs.side_effect = package.end_run.side_effect = look
    package.MlflowClient.return_value.log_batch.side_effect = look
    tracker = open_tracker("mlflow", URL, RECORD)
    tracker.log(1, {"x": 1.0})
    tracker.finish()
    assert found == [["7", "2"], ["7", None], ["7", "2"]]


@mlflow
def test_parameters_are_cut_to_what_servers_take(package):
    parts = {f"k{i}": "x" * 9000 for i in range(300)}
    open_tracker("mlflow", URL, TrainingRecord("", {}, "f00d", parts))
    [(found,)] = [one.args for one in package.log_params.call_args_list]
    assert (len(found), max(map(len, found.values()))) == (MOST_PARAMETERS, MOST_CHARACTERS)


@wandb
@pytest.mark.parametrize("project", [None, "speech"])
def test_a_training_is_one_run_of_weights_and_biases_however_often_it_is_continued(package, monkeypatch, project):
    if project:
        monkeypatch.setenv("WANDB_PROJECT", project)
    for _ in range(2):
        tracker = open_tracker("wandb", URL, RECORD)
    first, second = (one.kwargs for one in package.init.call_args_list)
    assert first == second
    assert (first["project"], first["name"], first["resume"]) == (project or "raysp", "digits", "allow")
    assert first["config"]["seed"] == "0"
    tracker.log(3, {"train/loss": 2.0})
    tracker.finish()
    assert package.init.return_value.method_calls == [call.log({"train/loss": 2.0}, step=3), call.finish(exit_code=0)]


@wandb
def test_trainings_begun_anew_and_other_sinks_are_other_runs(package):
    records = (RECORD, TrainingRecord("2026-01-02", {}, "f00d", {}))
    for url in (URL, "s3://models/other/"):
        for record in records:
            open_tracker("wandb", url, record)
    assert len({one.kwargs["id"] for one in package.init.call_args_list}) == 4
    assert [one.kwargs["name"] for one in package.init.call_args_list] == ["digits", "digits-ctc", "digits", "other"]


@both
def test_a_tracker_that_fails_ends_no_training(package, caplog, monkeypatch):
    monkeypatch.setattr(trackers, "PAUSE", 0.01)
    for method in (
        package.MlflowClient.return_value.log_batch,
        package.init.return_value.log,
        package.end_run,
        package.init.return_value.finish,
    ):
        method.side_effect = ConnectionError("server gone")
    tracker = open_tracker(package.__name__, URL, RECORD)
    with caplog.at_level(logging.WARNING):
        for step in (3, 4):
            tracker.log(step, {"x": 1.0})
        tracker.finish()
    messages = [record.getMessage().partition(": ")[2] for record in caplog.records]
    assert messages[-1] == "the run was not ended: server gone"
    if package.__name__ == "mlflow":
        assert messages[-2] == "values of 2 steps from 3 to 4 are lost there; the sink has them"
    else:
        assert messages[:-1] == ["values of step 3 and maybe later ones are lost: server gone"]


@both
def test_a_run_that_cannot_begin_is_refused(package):
    for method in (package.start_run, package.init):
        method.side_effect = ConnectionError("no server")
    with pytest.raises(PlanError, match=r"the run cannot begin \(ConnectionError: no server\); check its settings"):
        open_tracker(package.__name__, URL, RECORD)


@pytest.mark.parametrize("name", TRACKERS)
def test_a_package_that_is_not_installed_is_named_with_its_extra(monkeypatch, name):
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(SpecError, match=rf"needs the package {name}, .*; pip install 'raysp\[{name}\]', or leave"):
        check_tracker(name)


def test_an_unknown_tracker_is_refused():
    with pytest.raises(SpecError, match="found the tracker 'aim', expected one of mlflow, wandb"):
        check_tracker("aim")


def test_each_tracker_has_an_extra():
    import tomllib
    from pathlib import Path

    project = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())["project"]
    assert TRACKERS.keys() <= project["optional-dependencies"].keys()
