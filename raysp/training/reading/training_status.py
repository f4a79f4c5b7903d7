"""Progress of a training, from its record, committed steps and log; nothing is written."""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from functools import partial

from raysp.evaluation.scores import TITLES, Estimate
from raysp.sink import lease, records
from raysp.sink.lease import Running
from raysp.sink.records import Natural
from raysp.sink.run_record import RunEntry
from raysp.storage.store import Store
from raysp.training.loop.best_evaluation import Best
from raysp.training.sink import committed_steps as steps
from raysp.training.sink import step_evaluation as evaluations
from raysp.training.sink.committed_steps import Position
from raysp.training.sink.exports import Export
from raysp.training.sink.step_evaluation import StepEvaluation
from raysp.training.sink.step_log import StepRecord, Steps
from raysp.training.sink.training_record import TrainingRecord
from raysp.words import Brief, ago, count, duration
from raysp.work import run_fact

LAST_STEPS = 50
"""Steps over which loss and speed are averaged."""
FIGURES = "metrics.json"
"""File of an exported checkpoint with its rows and the number of its step."""


@dataclass(frozen=True)
class LastSteps:
    """Averages over some steps, the last ones up to a commit or of a run."""

    number: int
    loss: float
    learning_rate: float
    """Learning rate of the last step."""
    audio_per_second: float
    """Seconds of audio per second."""
    waited: float
    """Share of the time that was spent waiting for rows."""

    @classmethod
    def of(cls, steps: Sequence[StepRecord]) -> "LastSteps | None":
        """Return the averages of steps; None without any."""
        if not steps:
            return None
        seconds = sum(step.seconds for step in steps) or math.inf
        losses = [step.loss for step in steps if step.rows]  # a step of which no row could be decoded has no loss
        return cls(
            number=len(steps),
            loss=sum(losses) / max(1, len(losses)),
            learning_rate=steps[-1].learning_rate,
            audio_per_second=sum(step.audio_seconds for step in steps) / seconds,
            waited=sum(step.waited for step in steps) / seconds,
        )


@dataclass(frozen=True)
class BestEvaluation:
    """Best evaluation of a training."""

    steps: int
    """Updates of the weights before the evaluation."""
    metric: str
    """Name of the metric that decides."""
    estimate: Estimate
    evaluations: int
    """Number of compared evaluations: the last ones that were measured alike."""
    before: Estimate | None = None
    """Value before the first step; None: it was not evaluated, or measured otherwise."""
    others: Mapping[str, Estimate] = field(default_factory=dict)
    """Values of the same weights on the further corpora, by name."""

    def sentence(self, whose: str = "") -> str:
        """Describe the best value with its step, `whose` as a suffix, and the values before and on further corpora."""
        text = partial(evaluations.text, self.metric)
        of = f", the best of {self.evaluations:,}" if self.evaluations > 1 else ""
        begun = f"; {text(self.before)} before the training" if self.before else ""
        others = "".join(f"; {name}: {text(estimate)}" for name, estimate in self.others.items())
        value = f"{TITLES.get(self.metric, self.metric)} {text(self.estimate)} at step {self.steps:,}"
        return f"{value}{of}{whose}{begun}{others}"


@dataclass(frozen=True, repr=False)
class TrainingStatus(Brief):
    """Progress of a training up to its last commit; `dataclasses.asdict` converts it for JSON."""

    sink: str
    fingerprint: str
    steps: int
    """Committed updates of the weights."""
    steps_planned: int | None
    """Updates of the whole training; None: `epochs_planned` counts."""
    epochs: int
    """Whole epochs that are done."""
    epochs_planned: int | None
    share: float
    """Share of the training that is done, from 0 to 1."""
    last_steps: LastSteps | None
    """None before the first commit."""
    last_commit: float | None
    """Time of the last commit, in seconds since the epoch by the clock of the store."""
    eta_seconds: float | None
    """Seconds left at the speed of the last steps; None if no training can be active, or the speed is unknown."""
    best: BestEvaluation | None
    """None without evaluations."""
    steps_exported: int | None
    """Step of the exported weights: of the best evaluation, or the last. None: not exported yet."""
    last_run: RunEntry | None
    has_given_up: bool = False
    """Whether the training ended early, after as many evaluations without progress as its patience allows."""
    running: Running = Running.NO
    holder: str = ""
    """Current or last holder of the lease: user, host, process and start."""

    @property
    def steps_done(self) -> str:
        """Number of steps as text, such as "20 of 40"."""
        return f"{self.steps:,}{f' of {self.steps_planned:,}' if self.steps_planned else ''}"

    @property
    def epochs_done(self) -> str:
        """Number of whole epochs as text."""
        return f"{self.epochs:,}{f' of {self.epochs_planned:,}' if self.epochs_planned else ''}"

    @property
    def is_done(self) -> bool:
        """Whether no step is left, or the training ended early."""
        by_epochs = self.epochs_planned is not None and self.epochs >= self.epochs_planned
        return self.has_given_up or by_epochs or (self.steps_planned is not None and self.steps >= self.steps_planned)

    @property
    def is_complete(self) -> bool:
        """Whether no step is left, and the checkpoint of the last one is in the sink."""
        return self.is_done and self.steps_exported is not None

    @property
    def facts(self) -> dict[str, object]:
        """Facts that `raysp status` prints, by name."""
        last, left = self.last_steps, self.eta_seconds
        committed = f", the last {ago(self.last_commit)}" if self.last_commit else ""
        exported = "not exported; the same command again exports it" if self.is_done else "not exported yet"
        if self.steps_exported is not None:
            exported = f"exported, with the weights of step {self.steps_exported:,}"
        return {
            "run": run_fact(self, self.last_commit, "commit"),
            "steps": f"{self.steps_done} committed ({self.share:.0%}){committed}",
            "epochs": f"{self.epochs_done} done{', ended early by patience' if self.has_given_up else ''}",
            "time left": None if left is None else duration(left),
            "loss": last and f"{last.loss:.4g}, the mean of {count(last.number, 'step')}",
            "rate": last and f"{last.learning_rate:.1e} in the last step",
            "speed": last
            and f"{last.audio_per_second:,.1f} s of audio a second, waited for rows {last.waited:.0%} of the time",
            "evaluation": self.best and self.best.sentence(),
            "checkpoint": exported,
        }

    @property
    def line(self) -> str:
        """The progress as one line."""
        parts = (
            f"{self.steps_done} steps ({self.share:.0%})",
            f"loss {self.last_steps.loss:.4g}" if self.last_steps else "",
            f"time left {duration(self.eta_seconds)}" if self.eta_seconds is not None else "",
        )
        return ", ".join(filter(None, parts))

    @property
    def json(self) -> dict[str, object]:
        """Fields and figures, as `raysp status --json` prints them."""
        return {**asdict(self), "is_done": self.is_done, "is_complete": self.is_complete}


@dataclass(frozen=True)
class Exported:
    """Figures of metrics.json of the exported checkpoint that status and report show."""

    weights_of_step: Natural
    rows: Natural
    audio_seconds: float
    left_out: Mapping[str, Natural]

    @classmethod
    def load(cls, store: Store, fingerprint: str) -> "Exported | None":
        """Return the figures; None if there is no whole checkpoint, or none that this training made."""
        export = Export.load(store)
        if export is None or export.fingerprint != fingerprint or not export.is_whole(store):
            return None  # none, damaged, or of the training before a restart
        try:
            figures = records.parse(store.read(FIGURES), dict[str, object])
            return records.checked({part.name: figures.get(part.name) for part in fields(cls)}, cls)
        except ValueError:
            return None


def read_training(store: Store) -> tuple[TrainingRecord, Steps, TrainingStatus, Exported | None]:
    """Return the record of a training, its committed steps, its progress, and the figures of its checkpoint.

    Only the sink is read.

    Raises:
        PlanError: the store is not the sink of a training.
    """
    record = TrainingRecord.existing(store)
    step = steps.latest(store)
    position = step.position if step else Position(0, 0, 0)
    values = map(record.value, ("schedule.epochs", "schedule.steps", "evaluation.patience"))
    epochs, planned, patience = (value if isinstance(value, int) else None for value in values)
    log = Steps(store, position.done)
    last = log.last(LAST_STEPS)
    share = position.done / planned if planned else _share(position, epochs, last)
    committed_at = steps.committed_at(store, step) if step else None
    exported = Exported.load(store, record.fingerprint)
    best = Best.read(step) if step else None
    holder, runs = lease.holder(store), record.runs
    running = holder.running if holder else Running.NO
    is_active = running in (Running.YES, Running.ELSEWHERE)
    status = TrainingStatus(
        sink=store.url,
        fingerprint=record.fingerprint,
        steps=position.done,
        steps_planned=planned,
        epochs=position.epoch,
        epochs_planned=epochs,
        share=share,
        last_steps=LastSteps.of(last),
        last_commit=committed_at,
        eta_seconds=_seconds_left(share, last, committed_at) if is_active else None,
        best=best_evaluation(log.evaluations),
        steps_exported=exported.weights_of_step if exported else None,
        last_run=runs[-1] if runs else None,
        has_given_up=patience is not None and best is not None and best.misses >= patience,
        running=running,
        holder=holder.words if holder else "",
    )
    return record, log, status, exported


def _share(position: Position, epochs: int | None, last: Sequence[StepRecord]) -> float:
    """Return the share of a training of some epochs; the last step counts as much as the step before it."""
    if position.step and last:
        return last[-1].share + (last[-1].share - last[-2].share if len(last) > 1 else 0.0)
    return position.epoch / epochs if epochs else 0.0


def _seconds_left(share: float, last: Sequence[StepRecord], committed_at: float | None) -> float | None:
    """Return the seconds left at the speed of the last steps, some of which have passed since the commit."""
    if not last or share <= last[0].share:
        return None
    seconds = sum(step.seconds for step in last) * (1 - share) / (share - last[0].share)
    return max(0.0, seconds - max(0.0, time.time() - committed_at if committed_at else 0.0))


def best_evaluation(by_step: Mapping[int, StepEvaluation]) -> BestEvaluation | None:
    """Return the best of the evaluations of a training by step; None without any."""
    if (done := evaluations.best(by_step)) is None:
        return None
    metric = by_step[max(by_step)].metric
    first = by_step.get(0)
    before = first.metrics.get(metric) if first and first.measure == by_step[done].measure else None
    elsewhere = {name: corpus.estimate for name, corpus in by_step[done].others.items()}
    return BestEvaluation(
        done, metric, by_step[done].metrics[metric], len(evaluations.alike(by_step)), before, elsewhere
    )
