"""The progress of a sink or training in at most ten lines."""

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

from raysp.cli.results import word_errors
from raysp.words import count, duration

if TYPE_CHECKING:
    from raysp.training.reading.training_status import BestEvaluation, TrainingStatus
    from raysp.verbs.status.label_status import Status

SHOWN_TYPES = 5


def facts_of(found: "Status | TrainingStatus") -> dict[str, object]:
    """Return the facts that `raysp status` prints, by name."""
    from raysp.training.reading.training_status import TrainingStatus

    return training_facts(found) if isinstance(found, TrainingStatus) else progress_facts(found)


def one_line(found: "Status | TrainingStatus") -> str:
    """Return the progress as one line."""
    from raysp.training.reading.training_status import TrainingStatus

    left = [f"time left {duration(found.eta_seconds)}"] if found.eta_seconds is not None else []
    if isinstance(found, TrainingStatus):
        loss = [f"loss {found.last_steps.loss:.4g}"] if found.last_steps else []
        of_steps = f" of {found.steps_planned:,}" if found.steps_planned else ""
        parts = [f"{found.steps:,}{of_steps} steps ({found.share:.0%})", *loss]
    else:
        done = found.rows_committed + found.rows_staged
        share = done / found.rows if found.rows else 1.0
        parts = [
            f"{done:,} of {count(found.rows, 'row')} labelled ({share:.0%})",
            f"{found.shards_committed:,} of {count(found.shards, 'shard')} committed",
            *([f"{count(len(found.unreadable), 'shard')} cannot be read"] if found.unreadable else []),
            *([count(found.error, "error")] if found.error else []),
        ]
    return ", ".join([*parts, *left])


def progress_facts(found: "Status") -> dict[str, object]:
    """Return the facts that `raysp status` prints of a sink of label shards, by name."""
    begun = f", {found.shards_staged:,} more begun" if found.shards_staged else ""
    share = found.rows_committed / found.rows if found.rows else 1.0
    readable = " of the shards that can be read" if found.unreadable else ""
    staged = f", {found.rows_staged:,} more labelled" if found.rows_staged else ""
    speed = f"{found.rows_per_second:.1f} rows a second" if found.rows_per_second else None
    return {
        "run": _run(found, found.last_receipt, "result"),
        "shards": f"{found.shards_committed:,} of {count(found.shards, 'shard')} committed{begun}",
        "rows": f"{found.rows_committed:,} of {count(found.rows, 'row')} committed ({share:.0%}){readable}{staged}",
        "time left": found.eta_seconds and f"{duration(found.eta_seconds)}, at {speed}",
        "audio": f"{duration(found.audio_seconds)} in committed shards" if found.audio_seconds else None,
        "labels": f"{found.ok:,} ok, {found.skipped:,} skipped, {count(found.error, 'error')}",
        "reasons": _listed({kind: f"{number:,} {kind}" for kind, number in found.errors_by_type.items()}),
        "word errors": found.word_errors and word_errors(found.word_errors),
        "failed": _listed({name: f"{name}: {reason}" for name, reason in found.failed.items()}, 1),
        "foreign": _listed({name: f"{name}: {reason}" for name, reason in found.foreign.items()}, 1),
    }


def training_facts(found: "TrainingStatus") -> dict[str, object]:
    """Return the facts that `raysp status` prints of a training, by name."""
    last, left = found.last_steps, found.eta_seconds
    of_steps = f" of {found.steps_planned:,}" if found.steps_planned else ""
    of_epochs = f" of {found.epochs_planned:,}" if found.epochs_planned else ""
    committed = f", the last {_ago(found.last_commit)}" if found.last_commit else ""
    return {
        "run": _run(found, found.last_commit, "commit"),
        "steps": f"{found.steps:,}{of_steps} committed ({found.share:.0%}){committed}",
        "epochs": f"{found.epochs:,}{of_epochs} done{', ended early by patience' if found.has_given_up else ''}",
        "time left": None if left is None else duration(left),
        "loss": last and f"{last.loss:.4g}, the mean of {count(last.number, 'step')}",
        "rate": last and f"{last.learning_rate:.1e}, that of the last step",
        "speed": last
        and f"{last.audio_per_second:,.1f} s of audio a second, waited for rows {last.waited:.0%} of the time",
        "evaluation": found.best and _best(found.best),
        "checkpoint": _exported(found),
    }


def _best(best: "BestEvaluation") -> str:
    from raysp.training.sink.evaluation_records import text, title

    of = f", the best of {best.evaluations:,}" if best.evaluations > 1 else ""
    return f"{title(best.metric)} {text(best.metric, best.estimate)} at step {best.steps:,}{of}"


def _exported(found: "TrainingStatus") -> str:
    if found.steps_exported is not None:
        return f"exported, with the weights of step {found.steps_exported:,}"
    return "not exported; the same command again exports it" if found.is_done else "not exported yet"


def _run(found: "Status | TrainingStatus", last: float | None, noun: str) -> str:
    """Return whether a run is active, and when it last wrote what `noun` names."""
    from raysp.labelling.finished.activity import Running

    match found.running:
        case Running.YES:
            return f"active: {found.holder}"
        case Running.KILLED:
            return f"killed; the same command again continues: {found.holder}"
        case Running.ELSEWHERE:
            ago = f", last {noun} {_ago(last)}" if last else ""
            return f"active or lost, not visible from this machine: {found.holder}{ago}"
    began = f"; the last one began {found.last_run.started}" if found.last_run else ""
    return f"none active{began}"


def _ago(when: float) -> str:
    return f"{duration(max(0.0, time.time() - when))} ago"


def _listed(facts: Mapping[str, str], most: int = SHOWN_TYPES) -> str | None:
    """Return the first facts and the number of the rest; None if there are none."""
    more = [f"and {len(facts) - most:,} more"] if len(facts) > most else []
    return ", ".join([*list(facts.values())[:most], *more]) or None
