"""The report of a training: one HTML file without scripts or links: facts, curves, evaluations, recipe and versions."""

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import TypeVar

import numpy as np

from raysp.evaluation.scores import TITLES
from raysp.pages import rendering
from raysp.pages.page_charts import Chart
from raysp.pages.page_tables import classes_table, groups_table, runs_table, shown_row
from raysp.sink import records
from raysp.sink.lease import Running
from raysp.sink.run_record import objects_in
from raysp.storage.store import Store
from raysp.training.reading.training_charts import curve, metric_chart
from raysp.training.reading.training_status import Exported, TrainingStatus, read_training
from raysp.training.sink import step_evaluation
from raysp.training.sink.step_evaluation import StepEvaluation
from raysp.training.sink.step_log import StepRecord
from raysp.training.sink.training_record import TrainingRecord
from raysp.words import count, duration, printable

T = TypeVar("T")
MOST_URLS = 3


def render(store: Store) -> str:
    """Return the report of a training as HTML.

    Raises:
        PlanError: the store is not the sink of a training.
    """
    record, log, status, exported = read_training(store)
    steps, evaluations = log.last(), log.evaluations
    best = step_evaluation.best(evaluations)
    shown = []
    if best is not None:
        corpora = {"": evaluations[best], **evaluations[best].others}
        shown = [_in_detail(best, evaluation, corpus) for corpus, evaluation in corpora.items()]
    name = record.value("name")
    return rendering.render(
        "training.html",
        title=printable(str(name) if name else status.sink.rstrip("/").rpartition("/")[2]),
        subtitle=_subtitle(status),
        facts=_facts(record, status, exported, steps),
        metrics=_metric_charts(evaluations, status.steps),
        curves=_curves(steps),
        evaluations=shown,
        runs=runs_table(record.runs),
        recipe=json.dumps(record.recipe, indent=1, ensure_ascii=False),
    )


def _facts(
    record: TrainingRecord, status: TrainingStatus, exported: Exported | None, steps: Sequence[StepRecord]
) -> dict[str, str]:
    """Return the facts of a training, as text by name."""
    texts, numbers = partial(_values, record, str), partial(_values, record, float)
    others = record.value("evaluation.others")
    further = [
        f"{name}: {_corpus(record, f'evaluation.others.{name}')}"
        for name in (others if isinstance(others, dict) else ())
    ]
    audio, seconds = sum(step.audio_seconds for step in steps), sum(step.seconds for step in steps)
    reasons = exported.left_out if exported else {}
    left_out = "".join(f"; {number:,} left out ({reason})" for reason, number in reasons.items())
    facts = {
        "Begun with": [*texts("objective.checkpoint"), *texts("objective.decoder")],
        "Trained for": [
            *texts("objective.type"),
            *(f"vocabulary: {name}" for name in texts("objective.vocabulary")),
            *(f"not trained: {name}" for name in texts("objective.freeze")),
        ],
        "Corpus": [_corpus(record, "source")],
        "Rows": [f"{count(exported.rows, 'row')}, {duration(exported.audio_seconds)} of audio{left_out}"]
        if exported
        else [],
        "Augmentation": [str(step.get("type")) for step in objects_in(record.recipe, "augment")],
        "Evaluated on": ["; ".join(filter(None, [_corpus(record, "evaluation.source"), *further]))],
        "Length": [
            f"{status.steps_done} steps",
            f"{status.epochs_done} epochs; {duration(audio)} of audio in {duration(seconds)}",
        ],
        "Batches": [
            *(f"at most {seconds:g} padded seconds a step" for seconds in numbers("batching.seconds")),
            *(count(number, "micro-batch") for number in _values(record, int, "batching.micro_batches")),
        ],
        "Learning rate": [
            *(f"at most {rate:g}" for rate in numbers("schedule.learning_rate")),
            *(shape.replace("_", " ") for shape in texts("schedule.shape")),
            *(f"warm-up over {share:.0%}" for share in numbers("schedule.warmup")),
        ],
        "Checkpoint": [
            f"not exported yet to {status.sink}"
            if status.steps_exported is None
            else f"{status.sink}, with the weights of step {status.steps_exported:,}"
        ],
        "Fingerprint": [status.fingerprint],
    }
    return {name: printable(text) for name, parts in facts.items() if (text := ", ".join(parts))}


def _values(record: TrainingRecord, kind: type[T], path: str) -> list[T]:
    """Return the value of a recipe at a dotted path; none of another type."""
    try:
        return [records.checked(record.value(path), kind)]
    except ValueError:
        return []


def _corpus(record: TrainingRecord, source: str) -> str:
    value = record.value(f"{source}.url")
    urls = [str(name) for name in (value if isinstance(value, list) else [value]) if name is not None]
    more = [f"and {count(len(urls) - MOST_URLS, 'more url')}"] if len(urls) > MOST_URLS else []
    columns = [f"texts in the column {name}" for name in _values(record, str, f"{source}.text")]
    return ", ".join([*urls[:MOST_URLS], *more, *columns])


def _in_detail(done: int, evaluation: StepEvaluation, corpus: str) -> dict[str, object]:
    """Return the tables and the worst rows of an evaluation; `corpus` is the name of a further corpus."""
    values = [
        f"{TITLES.get(name, name)} {step_evaluation.text(name, value)}" for name, value in evaluation.metrics.items()
    ]
    seconds = evaluation.scores.seconds
    audio = f", {duration(seconds)} of audio" if seconds is not None else ""
    rules = f"; both texts normalised by {evaluation.normalisation}" if evaluation.normalisation else ""
    tables = [groups_table(column, groups) for column, groups in evaluation.by.items() if groups]
    return {
        "title": f"Evaluation at step {done:,}" + (f": {corpus}" if corpus else ""),
        "about": printable(f"{', '.join(values)}; {count(evaluation.scores.rows, 'row')}{audio}{rules}"),
        "tables": tables + ([classes_table(evaluation.classes)] if evaluation.classes else []),
        "worst": [shown_row(row) for row in evaluation.worst],
    }


def _subtitle(status: TrainingStatus) -> str:
    """Return the progress of the training, with the time of its last commit."""
    share = f"{status.share:.0%} done"
    if status.is_done:
        state = f"Training ended early, {share}" if status.has_given_up else "Training is done"
    else:
        is_active = status.running in (Running.YES, Running.ELSEWHERE)
        state = f"Training {'is' if is_active else 'has stopped,'} {share}"
    if status.last_commit is None:
        return state
    return f"{state}. Last commit {datetime.fromtimestamp(status.last_commit, UTC):%Y-%m-%d %H:%M} UTC"


def _metric_charts(evaluations: Mapping[int, StepEvaluation], last_step: int) -> list[Chart]:
    """Return a chart of each metric, the deciding metric first and further corpora last."""
    names = dict.fromkeys(name for step in evaluations.values() for name in (step.metric, *step.metrics))
    charts = [metric_chart(name, evaluations, last_step) for name in names]
    for corpus in dict.fromkeys(name for step in evaluations.values() for name in step.others):
        of_corpus = {done: step.others[corpus] for done, step in evaluations.items() if corpus in step.others}
        charts.append(metric_chart(next(reversed(of_corpus.values())).metric, of_corpus, last_step, corpus))
    return [chart for chart in charts if chart]


def _curves(steps: Sequence[StepRecord]) -> list[Chart]:
    if not steps:
        return []
    names = ("done", "seconds", "loss", "learning_rate", "norm", "audio_seconds", "waited", "rows")
    columns = (np.array([getattr(step, name) for step in steps], np.float64) for name in names)
    done, wall, loss, rate, norm, audio, waited, rows = columns
    seconds, weights = np.maximum(wall, 1e-9), np.ones(len(steps))
    return [
        curve("Loss", "", done, np.where(rows > 0, loss, np.nan), weights),
        curve("Learning rate", "", done, rate, weights),
        curve("Gradient norm", "before clipping", done, norm, weights),
        curve("Speed", "seconds of audio a second", done, audio, seconds),
        curve("Waiting for rows", "share of the time", done, waited, seconds, is_share=True),
    ]
