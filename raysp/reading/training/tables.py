"""Contents of a report besides charts: facts of the recipe, tables of evaluations and runs, rows with differences."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from raysp.evaluation.scores import SECONDS, UNDEFINED, Group, WorstRow
from raysp.reading.training.status import FIGURES, TrainingStatus
from raysp.sink.run_record import RunEntry
from raysp.sink.training import evaluations
from raysp.sink.training.evaluations import StepEvaluation
from raysp.sink.training.metrics import StepMetrics
from raysp.sink.training.record import TrainingRecord
from raysp.specs.values import JsonValue
from raysp.storage.store import Store
from raysp.words import count, duration, printable

MOST_GROUPS = 20
"""Rows of a table of groups or classes."""
MOST_RUNS = 10
MOST_URLS = 3


@dataclass(frozen=True)
class Table:
    """A table of texts."""

    title: str
    names: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    left_out: str = ""
    """Number of the rows that are not shown, with their noun; empty for none."""


@dataclass(frozen=True)
class Part:
    """Some words of a row."""

    kind: Literal["same", "removed", "added"]
    text: str


@dataclass(frozen=True)
class ShownRow:
    """A row with differences."""

    id: str
    about: str
    parts: tuple[Part, ...]


@dataclass(frozen=True)
class ShownEvaluation:
    """One evaluation in detail."""

    title: str
    about: str
    tables: tuple[Table, ...]
    worst: tuple[ShownRow, ...]


def facts(store: Store, record: TrainingRecord, status: TrainingStatus, steps: Sequence[StepMetrics]) -> dict[str, str]:
    """Return what was trained on what, as text by name."""
    found = {
        "Begun with": ", ".join(_texts(record, "objective.checkpoint", "objective.decoder")),
        "Trained for": _objective(record),
        "Corpus": _corpus(record, "source"),
        "Rows": _rows(store),
        "Augmentation": _augmentation(record),
        "Evaluated on": _corpus(record, "evaluation.source"),
        "Length": _length(status, steps),
        "Batches": _batches(record),
        "Learning rate": _rate(record),
        "Checkpoint": _checkpoint(status),
        "Fingerprint": status.fingerprint,
    }
    return {name: printable(fact) for name, fact in found.items() if fact}


def evaluation_in_detail(done: int, found: StepEvaluation) -> ShownEvaluation:
    """Return the tables and the worst rows of an evaluation."""
    values = [f"{evaluations.title(name)} {evaluations.text(name, one)}" for name, one in found.metrics.items()]
    seconds = found.scores.seconds
    audio = f", {duration(seconds)} of audio" if seconds is not None else ""
    rules = f"; both texts normalised by {found.normalisation}" if found.normalisation else ""
    tables = [_groups(column, groups) for column, groups in found.by.items() if groups]
    return ShownEvaluation(
        title=f"Evaluation at step {done:,}",
        about=printable(f"{', '.join(values)}; {count(found.scores.rows, 'row')}{audio}{rules}"),
        tables=(*tables, *([_classes(found)] if found.classes else [])),
        worst=tuple(_shown(row) for row in found.worst),
    )


def runs_table(runs: Sequence[RunEntry]) -> Table:
    """Return a table of the last runs."""
    packages = list(dict.fromkeys(name for run in runs for name in run.versions))
    shown = [
        (run.started, printable(run.host), *(printable(run.versions.get(name, UNDEFINED)) for name in packages))
        for run in runs
    ]
    more = len(runs) - MOST_RUNS
    return Table(
        "Runs", ("began", "host", *packages), shown[-MOST_RUNS:][::-1], count(more, "earlier run") if more > 0 else ""
    )


def _objective(record: TrainingRecord) -> str:
    vocabulary, freeze = _texts(record, "objective.vocabulary"), _texts(record, "objective.freeze")
    parts = [*_texts(record, "objective.type")]
    parts += [f"vocabulary: {one}" for one in vocabulary] + [f"not trained: {one}" for one in freeze]
    return ", ".join(parts)


def _augmentation(record: TrainingRecord) -> str:
    given = record.value("augment")
    types = (one.get("type") for one in (given if isinstance(given, list) else []) if isinstance(one, dict))
    return ", ".join(one for one in types if isinstance(one, str))


def _corpus(record: TrainingRecord, source: str) -> str:
    given = record.value(f"{source}.url")
    urls = [str(one) for one in (given if isinstance(given, list) else [given]) if one is not None]
    more = [f"and {count(len(urls) - MOST_URLS, 'more url')}"] if len(urls) > MOST_URLS else []
    columns = [f"texts in the column {one}" for one in _texts(record, f"{source}.text")]
    return ", ".join([*urls[:MOST_URLS], *more, *columns])


def _rows(store: Store) -> str:
    """Return the rows by the figures of the exported checkpoint; empty before the export."""
    if store.stat(FIGURES) is None:
        return ""
    try:
        found = json.loads(store.read(FIGURES))
        left_out = "".join(f"; {number:,} left out ({reason})" for reason, number in found["left_out"].items())
        return f"{count(found['rows'], 'row')}, {duration(found['audio_seconds'])} of audio{left_out}"
    except (ValueError, TypeError, KeyError, AttributeError):
        return ""


def _length(status: TrainingStatus, steps: Sequence[StepMetrics]) -> str:
    of_steps = f" of {status.steps_planned:,}" if status.steps_planned else ""
    of_epochs = f" of {status.epochs_planned:,}" if status.epochs_planned else ""
    audio, seconds = sum(step.audio_seconds for step in steps), sum(step.seconds for step in steps)
    return (
        f"{status.steps:,}{of_steps} steps, {status.epochs:,}{of_epochs} epochs; {duration(audio)} of audio in "
        f"{duration(seconds)}"
    )


def _batches(record: TrainingRecord) -> str:
    seconds, number = record.value("batching.seconds"), record.value("batching.micro_batches")
    audio = [f"at most {seconds:g} padded seconds a step"] if isinstance(seconds, int | float) else []
    return ", ".join([*audio, *([count(number, "micro-batch")] if isinstance(number, int) else [])])


def _rate(record: TrainingRecord) -> str:
    rate, warmup = record.value("schedule.learning_rate"), record.value("schedule.warmup")
    parts = [f"at most {rate:g}"] if isinstance(rate, int | float) else []
    parts += [one.replace("_", " ") for one in _texts(record, "schedule.shape")]
    return ", ".join([*parts, *([f"warm-up over {warmup:.0%}"] if isinstance(warmup, int | float) else [])])


def _checkpoint(status: TrainingStatus) -> str:
    if status.steps_exported is None:
        return f"not exported yet to {status.sink}"
    return f"{status.sink}, with the weights of step {status.steps_exported:,}"


def _texts(record: TrainingRecord, *paths: str) -> list[str]:
    """Return the values of a recipe that are texts."""
    values: list[JsonValue] = [record.value(path) for path in paths]
    return [value for value in values if isinstance(value, str)]


def _groups(column: str, groups: Sequence[Group]) -> Table:
    first, *others = groups[0].scores.metrics
    has_words = "words" in groups[0].scores.counts
    names = [
        "rows",
        *(["words"] if has_words else []),
        evaluations.title(first),
        "95% interval",
        *map(evaluations.title, others),
    ]
    rows = []
    for group in groups[:MOST_GROUPS]:
        scores = group.scores
        words = [f"{scores.counts['words']:,}"] if has_words else []
        estimate = scores.metrics[first]
        more = [scores.metrics[name].percentage for name in others]
        rows.append((_value(group.value), f"{scores.rows:,}", *words, estimate.percentage, estimate.interval, *more))
    title, name = ("By duration", "seconds") if column == SECONDS else (f"By {printable(column)}", printable(column))
    return Table(title, (name, *names), rows, _left_out(groups, "group"))


def _classes(found: StepEvaluation) -> Table:
    rows = []
    for one in found.classes[:MOST_GROUPS]:
        shares = (UNDEFINED if share is None else f"{share:.2%}" for share in (one.precision, one.recall, one.f1))
        rows.append((printable(one.name), f"{one.rows:,}", f"{one.predicted:,}", *shares))
    unit = "frames" if "frames" in found.scores.counts else "rows"
    names = ("class", unit, "predicted", "precision", "recall", "F1")
    return Table("Classes", names, rows, _left_out(found.classes, "class"))


def _left_out(rows: Sequence[object], noun: str) -> str:
    return count(len(rows) - MOST_GROUPS, f"more {noun}") if len(rows) > MOST_GROUPS else ""


def _value(value: object) -> str:
    return UNDEFINED if value is None else printable(str(value))


def _shown(row: WorstRow) -> ShownRow:
    words = len(row.reference.split())
    errors = count(row.errors, "error") + (f" in {count(words, 'word')}" if row.score is None else "")
    score = [f"score {row.score:.3f}"] if row.score is not None else []
    seconds = [f"{row.seconds:.1f} s"] if row.seconds is not None else []
    place = [] if row.id == f"{row.shard}:{row.row}" else [f"{row.shard}, row {row.row:,}"]
    about = ", ".join([errors, *score, *seconds, *place])
    return ShownRow(_value(row.id), printable(about), tuple(_parts(row)))


def _parts(row: WorstRow) -> list[Part]:
    """Return a reference in which words that differ stand beside those of the hypothesis."""
    if not row.edits:
        return _replaced(row.reference, row.hypothesis or "")
    words, place, parts = row.reference.split(), 0, list[Part]()
    for edit in row.edits:
        parts += _same(words[place : edit.start])
        parts += _replaced(edit.reference, edit.hypothesis)
        place = edit.start + len(edit.reference.split())
    return parts + _same(words[place:])


def _same(words: Sequence[str]) -> list[Part]:
    return [Part("same", printable(" ".join(words)))] if words else []


def _replaced(reference: str, hypothesis: str) -> list[Part]:
    removed = [Part("removed", printable(reference))] if reference else []
    return [*removed, *([Part("added", printable(hypothesis))] if hypothesis else [])]
