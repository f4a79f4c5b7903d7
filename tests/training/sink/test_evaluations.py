"""Evaluations of steps: read back as they were saved, that of the last run for a step, and the best of them."""

import json
from dataclasses import replace

import pytest

from raysp import StoreError
from raysp.evaluation.scores import ClassScores, Estimate, Group, Scores
from raysp.storage.store import LocalStore
from raysp.training.sink import evaluation_records
from raysp.training.sink.evaluation_records import StepEvaluation
from tests.evaluation.evaluated import an_evaluation


@pytest.fixture
def store(tmp_path) -> LocalStore:
    return LocalStore(tmp_path / "model")


def with_values(metric: str, *values: float | None) -> dict[int, StepEvaluation]:
    """Make evaluations after 10, 20, ... steps."""
    made = (Scores(1, {} if metric == "loss" else {metric: Estimate(value)}, {}) for value in values)
    loss = values if metric == "loss" else [None] * len(values)
    return {10 * i: StepEvaluation(metric, one, {}, loss=loss[i - 1]) for i, one in enumerate(made, 1)}


def test_an_evaluation_is_read_back_as_it_was_saved(store):
    classes = (ClassScores("a", 3, 2, None, 0.5, 0.4),)
    groups = tuple(Group(value, an_evaluation().scores) for value in (True, 1, 1.5, "1", None))
    made = an_evaluation(classes=classes, by={"mixed": groups})
    evaluation_records.save(store, 1200, made, run_id="r1")
    evaluation_records.save(store, 90, an_evaluation(loss=None), run_id="r1")
    found = evaluation_records.load(store)
    assert list(found) == [90, 1200]
    assert found == {90: an_evaluation(loss=None), 1200: made}
    assert [type(group.value) for group in found[1200].by["mixed"]] == [bool, int, float, str, type(None)]


def test_ids_without_a_type_in_json_become_texts(store):
    row = an_evaluation().worst[0]
    evaluation_records.save(store, 1, an_evaluation(worst=(replace(row, id=b"x"), replace(row, id=7))), run_id="r")
    assert [row.id for row in evaluation_records.load(store)[1].worst] == ["b'x'", 7]


def test_of_a_step_that_several_runs_evaluated_the_last_run_counts_and_a_run_never_overwrites(store):
    for run_id, loss in (("r2", 2.0), ("r1", 1.0), ("r2", 3.0)):
        evaluation_records.save(store, 10, an_evaluation(loss=loss), run_id=run_id)
    assert {done: one.loss for done, one in evaluation_records.load(store).items()} == {10: 2.0}


def test_metrics_are_those_of_all_rows_and_the_loss():
    found = an_evaluation()
    assert list(found.metrics) == ["wer", "cer", "loss"]
    assert found.estimate == found.scores.metrics["wer"]
    assert "loss" not in an_evaluation(loss=None).metrics


@pytest.mark.parametrize(
    ("metric", "values", "best"),
    [
        ("wer", [0.3, 0.2, 0.2, 0.4], 20),
        ("accuracy", [0.3, 0.9, 0.2], 20),
        ("loss", [3.0, None, 2.0], 30),
        ("loss", [3.0, float("nan")], 10),
        ("cer", [None, None], None),
        ("wer", [], None),
    ],
)
def test_the_best_step_is_that_of_the_best_value(metric, values, best):
    found = with_values(metric, *values)
    assert evaluation_records.best(found) == evaluation_records.best(found, metric) == best


def test_metrics_are_shown_by_their_usual_names_and_units():
    assert (evaluation_records.title("wer"), evaluation_records.text("wer", Estimate(0.1234))) == ("WER", "12.34%")
    assert evaluation_records.text("wer", Estimate(0.1234, 0.1, 0.2)) == "12.34% (10.00% to 20.00%)"
    assert (evaluation_records.title("loss"), evaluation_records.text("loss", Estimate(0.123456))) == ("loss", "0.1235")


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"{", r"not an evaluation \(Invalid JSON"), (b"{}", r"not an evaluation \(metric: Field required\)")],
)
def test_a_damaged_file_is_refused_by_its_name(store, content, message):
    store.create(".raysp/evaluations/000000010.r.json", content)
    with pytest.raises(StoreError, match=rf"evaluations/000000010\.r\.json: {message}.*; remove this file"):
        evaluation_records.load(store)


def test_fields_of_a_newer_version_are_ignored(store):
    evaluation_records.save(store, 1, an_evaluation(), run_id="r")
    path = next(store.list(".raysp/evaluations/")).path
    store.replace(path, json.dumps({**json.loads(store.read(path)), "more": 1}).encode())
    assert evaluation_records.load(store) == {1: an_evaluation()}


def test_the_weights_before_a_training_are_never_its_best():
    found = {done: an_evaluation(loss=loss) for done, loss in {0: 0.1, 5: 0.4, 9: 0.3}.items()}
    assert evaluation_records.best(found, "loss") == 9
    assert evaluation_records.best({0: found[0]}, "loss") is None
