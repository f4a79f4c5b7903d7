"""Evaluations of steps: read back as they were saved, that of the last run for a step, and the best of them."""

from pathlib import Path

import pytest

import raysp
from tests.pages import Page
from tests.trainings import EVALUATION, Sink


@pytest.fixture
def sink(tmp_path) -> Sink:
    sink = Sink(tmp_path / "model")
    sink.train(range(1, 31))
    return sink


def best(sink: Sink):
    return raysp.status(sink.url).best


def shown(sink: Sink) -> str:
    return str(raysp.status(sink.url).facts["evaluation"])


def with_values(sink: Sink, metric: str, *values: float | None) -> None:
    """Record evaluations after 10, 20, ... steps with the values of a metric alone."""
    for done, value in enumerate(values, 1):
        metrics = {} if metric == "loss" else {metric: {"value": value, "low": None, "high": None}}
        scores = {"rows": 1, "metrics": metrics, "counts": {}, "seconds": None}
        loss = value if metric == "loss" else None
        sink.evaluate(10 * done, metric=metric, scores=scores, by={}, worst=[], loss=loss)


def test_values_of_groups_keep_their_types(sink):
    """Numbers and texts that look alike are groups of their own."""
    values = (True, 1, 1.5, "1", None)
    groups = [{"value": value, "scores": EVALUATION["scores"]} for value in values]
    sink.evaluate(30, by={"mixed": groups}, worst=[])
    page = Page(Path(raysp.report(sink.url)).read_text())
    first = page.texts.index("By mixed")
    assert page.texts[first + 7 : first + 37 : 6] == ["True", "1", "1.5", "1", "-"]


def test_of_a_step_that_several_runs_evaluated_the_last_run_counts(sink):
    for run_id, wer in (("20260103", 0.2), ("20260102", 0.1)):
        sink.begin(run_id)
        sink.evaluate(10, run_id=run_id, wer=wer)
    assert (best(sink).estimate.value, best(sink).evaluations) == (0.2, 1)


@pytest.mark.parametrize(
    ("metric", "values", "step"),
    [
        ("wer", [0.3, 0.2, 0.2, 0.4], 20),
        ("accuracy", [0.3, 0.9, 0.2], 20),
        ("loss", [3.0, None, 2.0], 30),
        ("loss", [3.0, float("nan")], 10),
        ("cer", [None, None], None),
        ("wer", [], None),
    ],
)
def test_the_best_step_is_that_of_the_best_value(sink, metric, values, step):
    with_values(sink, metric, *values)
    found = best(sink)
    assert (found and found.steps) == step
    assert found is None or found.metric == metric


def test_metrics_are_shown_by_their_usual_names_and_units(sink):
    interval = {"wer": {"value": 0.1234, "low": 0.1, "high": 0.2}}
    sink.evaluate(10, scores={**EVALUATION["scores"], "metrics": interval})
    assert shown(sink).startswith("WER 12.34% (10.00% to 20.00%) at step 10")
    sink.evaluate(10, metric="loss", loss=0.123456)
    assert shown(sink).startswith("loss 0.1235 at step 10")


def test_the_weights_before_a_training_are_never_its_best(sink):
    sink.evaluate(0, metric="loss", loss=0.1)
    assert best(sink) is None
    for done, loss in {5: 0.4, 9: 0.3}.items():
        sink.evaluate(done, metric="loss", loss=loss)
    assert (best(sink).steps, best(sink).before.value) == (9, 0.1)
