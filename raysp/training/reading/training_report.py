"""The report of a training: one HTML file without scripts or links: facts, curves, evaluations, recipe and versions."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np

from raysp.pages import rendering
from raysp.pages.axes import Floats
from raysp.pages.page_charts import Chart
from raysp.pages.page_tables import ShownRow, Table, classes_table, groups_table, runs_table, shown_row
from raysp.sink import records
from raysp.sink.lease import Running
from raysp.sink.records import Natural
from raysp.specs.values import JsonValue
from raysp.storage.store import Store
from raysp.training.reading.training_charts import curve, metric_chart
from raysp.training.reading.training_status import FIGURES, TrainingStatus, training_status
from raysp.training.sink import step_evaluation
from raysp.training.sink.step_evaluation import StepEvaluation
from raysp.training.sink.step_log import StepRecord, Steps
from raysp.training.sink.training_record import TrainingRecord
from raysp.words import count, duration, printable

MOST_URLS = 3


@dataclass(frozen=True)
class ShownEvaluation:
    """One evaluation in detail."""

    title: str
    about: str
    tables: tuple[Table, ...]
    worst: tuple[ShownRow, ...]


def _facts(store: Store, record: TrainingRecord, status: TrainingStatus, steps: Sequence[StepRecord]) -> dict[str, str]:
    """Return the facts of a training, as text by name."""
    facts = {
        "Begun with": ", ".join(_texts(record, "objective.checkpoint", "objective.decoder")),
        "Trained for": _objective(record),
        "Corpus": _corpus(record, "source"),
        "Rows": _rows(store),
        "Augmentation": _augmentation(record),
        "Evaluated on": _evaluated_on(record),
        "Length": _length(status, steps),
        "Batches": _batches(record),
        "Learning rate": _rate(record),
        "Checkpoint": _checkpoint(status),
        "Fingerprint": status.fingerprint,
    }
    return {name: printable(fact) for name, fact in facts.items() if fact}


def evaluation_in_detail(done: int, evaluation: StepEvaluation, corpus: str = "") -> ShownEvaluation:
    """Return the tables and the worst rows of an evaluation; `corpus` is the name of a further corpus."""
    values = [
        f"{step_evaluation.title(name)} {step_evaluation.text(name, value)}"
        for name, value in evaluation.metrics.items()
    ]
    seconds = evaluation.scores.seconds
    audio = f", {duration(seconds)} of audio" if seconds is not None else ""
    rules = f"; both texts normalised by {evaluation.normalisation}" if evaluation.normalisation else ""
    tables = [groups_table(column, groups) for column, groups in evaluation.by.items() if groups]
    return ShownEvaluation(
        title=f"Evaluation at step {done:,}" + (f": {corpus}" if corpus else ""),
        about=printable(f"{', '.join(values)}; {count(evaluation.scores.rows, 'row')}{audio}{rules}"),
        tables=(*tables, *([classes_table(evaluation.classes)] if evaluation.classes else [])),
        worst=tuple(shown_row(row) for row in evaluation.worst),
    )


def _objective(record: TrainingRecord) -> str:
    vocabulary, freeze = _texts(record, "objective.vocabulary"), _texts(record, "objective.freeze")
    parts = [*_texts(record, "objective.type")]
    parts += [f"vocabulary: {name}" for name in vocabulary] + [f"not trained: {name}" for name in freeze]
    return ", ".join(parts)


def _augmentation(record: TrainingRecord) -> str:
    steps = record.value("augment")
    types = (step.get("type") for step in (steps if isinstance(steps, list) else []) if isinstance(step, dict))
    return ", ".join(step for step in types if isinstance(step, str))


def _corpus(record: TrainingRecord, source: str) -> str:
    value = record.value(f"{source}.url")
    urls = [str(name) for name in (value if isinstance(value, list) else [value]) if name is not None]
    more = [f"and {count(len(urls) - MOST_URLS, 'more url')}"] if len(urls) > MOST_URLS else []
    columns = [f"texts in the column {name}" for name in _texts(record, f"{source}.text")]
    return ", ".join([*urls[:MOST_URLS], *more, *columns])


def _evaluated_on(record: TrainingRecord) -> str:
    sources = record.value("evaluation.others")
    names = sources if isinstance(sources, dict) else {}
    further = [f"{name}: {_corpus(record, f'evaluation.others.{name}')}" for name in names]
    return "; ".join(filter(None, [_corpus(record, "evaluation.source"), *further]))


def _rows(store: Store) -> str:
    """Return the rows by the figures of the exported checkpoint; empty before the export."""
    if store.stat(FIGURES) is None:
        return ""
    try:
        figures = records.parse(store.read(FIGURES), dict[str, object])
        reasons = records.checked(figures["left_out"], dict[str, Natural]).items()
        rows, seconds = records.checked(figures["rows"], int), records.checked(figures["audio_seconds"], float)
    except (ValueError, KeyError):
        return ""
    left_out = "".join(f"; {number:,} left out ({reason})" for reason, number in reasons)
    return f"{count(rows, 'row')}, {duration(seconds)} of audio{left_out}"


def _length(status: TrainingStatus, steps: Sequence[StepRecord]) -> str:
    of_steps = f" of {status.steps_planned:,}" if status.steps_planned else ""
    of_epochs = f" of {status.epochs_planned:,}" if status.epochs_planned else ""
    audio, seconds = sum(step.audio_seconds for step in steps), sum(step.seconds for step in steps)
    return (
        f"{status.steps:,}{of_steps} steps, {status.epochs:,}{of_epochs} epochs; {duration(audio)} of audio in "
        f"{duration(seconds)}"
    )


def _batches(record: TrainingRecord) -> str:
    number = record.value("batching.micro_batches")
    audio = [f"at most {seconds:g} padded seconds a step" for seconds in _numbers(record, "batching.seconds")]
    return ", ".join([*audio, *([count(number, "micro-batch")] if isinstance(number, int) else [])])


def _rate(record: TrainingRecord) -> str:
    parts = [f"at most {rate:g}" for rate in _numbers(record, "schedule.learning_rate")]
    parts += [word.replace("_", " ") for word in _texts(record, "schedule.shape")]
    return ", ".join([*parts, *(f"warm-up over {share:.0%}" for share in _numbers(record, "schedule.warmup"))])


def _checkpoint(status: TrainingStatus) -> str:
    if status.steps_exported is None:
        return f"not exported yet to {status.sink}"
    return f"{status.sink}, with the weights of step {status.steps_exported:,}"


def _texts(record: TrainingRecord, *paths: str) -> list[str]:
    """Return the values of a recipe that are texts."""
    values: list[JsonValue] = [record.value(path) for path in paths]
    return [value for value in values if isinstance(value, str)]


def _numbers(record: TrainingRecord, path: str) -> list[float]:
    """Return a value of a recipe if it is a finite number."""
    try:
        return [records.checked(record.value(path), float)]
    except ValueError:
        return []


def render(store: Store) -> str:
    """Return the report of a training as HTML.

    Raises:
        PlanError: the store is not the sink of a training.
    """
    record, status = TrainingRecord.existing(store), training_status(store)
    log = Steps(store, status.steps)
    steps, evaluations = log.last(), log.evaluations
    best = step_evaluation.best(evaluations)
    name = record.value("name")
    return rendering.render(
        "training.html",
        title=printable(str(name) if name else status.sink.rstrip("/").rpartition("/")[2]),
        subtitle=_subtitle(status),
        facts=_facts(store, record, status, steps),
        metrics=_metric_charts(evaluations, status.steps),
        curves=_curves(steps),
        evaluations=[] if best is None else _in_detail(best, evaluations[best]),
        runs=runs_table(record.runs),
        recipe=json.dumps(record.recipe, indent=1, ensure_ascii=False),
    )


def _in_detail(done: int, evaluation: StepEvaluation) -> list[ShownEvaluation]:
    corpora = {"": evaluation, **evaluation.others}
    return [evaluation_in_detail(done, of_corpus, name) for name, of_corpus in corpora.items()]


def _subtitle(status: TrainingStatus) -> str:
    """Return the progress of the training, with the time of its last commit."""
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

    def values(name: str) -> Floats:
        return np.array([getattr(step, name) for step in steps], np.float64)

    done, seconds, weights = values("done"), np.maximum(values("seconds"), 1e-9), np.ones(len(steps))
    return [
        curve("Loss", "", done, values("loss"), weights),
        curve("Learning rate", "", done, values("learning_rate"), weights),
        curve("Gradient norm", "before clipping", done, values("norm"), weights),
        curve("Speed", "seconds of audio a second", done, values("audio_seconds"), seconds),
        curve("Waiting for rows", "share of the time", done, values("waited"), seconds, is_share=True),
    ]
