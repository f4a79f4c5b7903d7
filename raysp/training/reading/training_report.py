"""The report of a training: one HTML file without scripts or links: curves, evaluations, recipe and versions."""

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

import numpy as np

from raysp.pages import rendering
from raysp.pages.axes import Floats
from raysp.pages.page_charts import Chart
from raysp.pages.page_tables import runs_table
from raysp.sink import run_record
from raysp.sink.lease import Running
from raysp.storage.store import Store
from raysp.training.reading.training_charts import Curve, metric_chart
from raysp.training.reading.training_status import TrainingStatus, training_status
from raysp.training.reading.training_tables import evaluation_in_detail, facts
from raysp.training.sink import evaluation_records, step_metrics
from raysp.training.sink.evaluation_records import StepEvaluation
from raysp.training.sink.step_metrics import StepMetrics
from raysp.training.sink.training_record import TrainingRecord
from raysp.words import printable


def render(store: Store) -> str:
    """Return the report of a training as HTML.

    Raises:
        PlanError: the store is not the sink of a training.
    """
    record, status = TrainingRecord.existing(store), training_status(store)
    steps = [step for step in step_metrics.load(store) if step.done <= status.steps]
    found = evaluation_records.load(store)
    best = evaluation_records.best(found)
    name = record.value("name")
    return rendering.render(
        "training.html",
        title=printable(str(name) if name else status.sink.rstrip("/").rpartition("/")[2]),
        subtitle=_subtitle(status),
        facts=facts(store, record, status, steps),
        metrics=_metric_charts(found, status.steps),
        curves=_curves(steps),
        evaluation=best and evaluation_in_detail(best, found[best]),
        runs=runs_table(run_record.runs_with_files(store)),
        recipe=json.dumps(record.recipe, indent=1, ensure_ascii=False),
    )


def _subtitle(status: TrainingStatus) -> str:
    """Return how far the training is, and when it was."""
    match status.running:
        case _ if status.is_done:
            state = f"Training ended early, {status.share:.0%} done" if status.has_given_up else "Training is done"
        case Running.YES | Running.ELSEWHERE:
            state = f"Training is {status.share:.0%} done"
        case _:
            state = f"Training has stopped, {status.share:.0%} done"
    if status.last_commit is None:
        return state
    return f"{state}. Last commit {datetime.fromtimestamp(status.last_commit, UTC):%Y-%m-%d %H:%M} UTC"


def _metric_charts(found: Mapping[int, StepEvaluation], last_step: int) -> list[Chart]:
    """Return a chart of each metric, that which decides first."""
    names = dict.fromkeys(name for one in found.values() for name in (one.metric, *one.metrics))
    charts = (metric_chart(name, found, last_step) for name in names)
    return [chart for chart in charts if chart]


def _curves(steps: Sequence[StepMetrics]) -> list[Chart]:
    if not steps:
        return []

    def values(name: str) -> Floats:
        return np.array([getattr(step, name) for step in steps], np.float64)

    done, seconds = values("done"), values("seconds")
    curves = (
        Curve("Loss", "", done, values("loss"), may_be_log=True),
        Curve("Learning rate", "", done, values("learning_rate"), is_smoothed=False, from_zero=True),
        Curve("Gradient norm", "before clipping", done, values("norm"), may_be_log=True),
        Curve("Speed", "seconds of audio a second", done, values("audio_seconds"), seconds, from_zero=True),
        Curve("Waiting for rows", "share of the time", done, values("waited"), seconds, from_zero=True, is_share=True),
    )
    return [curve.chart() for curve in curves]
