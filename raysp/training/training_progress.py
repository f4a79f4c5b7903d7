"""Progress of a training."""

from collections import deque
from dataclasses import dataclass, field

from raysp.evaluation.scores import TITLES
from raysp.labelling.engine.display import PARTED
from raysp.training.loop.evaluated import Evaluated
from raysp.training.loop.session import Report
from raysp.training.sink.step_metrics import StepMetrics
from raysp.words import count, duration

LAST_STEPS = 50
"""Steps over which loss and speed are averaged."""


@dataclass
class TrainingProgress:
    """State of a training since the start of this run."""

    epochs: int | None
    """Epochs of the whole training; None: `steps` counts."""
    done: int = 0
    """Updates of the weights, including earlier runs."""
    epoch: int = 0
    committed: int | None = None
    """Updates at the last commit."""
    share: float = 0.0
    """Share of the training that is done, from 0 to 1."""
    steps: int = 0
    """Steps of this run."""
    rows: int = 0
    audio_seconds: float = 0.0
    seconds: float = 0.0
    """Wall-clock time of the steps of this run."""
    waited: float = 0.0
    """Seconds of it spent waiting for rows."""
    evaluated: tuple[int, Evaluated] | None = None
    """Updates at the last evaluation of this run, and its result."""
    before: Evaluated | None = None
    """Evaluation before the last step, if it was the first one."""
    last: deque[StepMetrics] = field(default_factory=lambda: deque(maxlen=LAST_STEPS))

    def add(self, report: Report, committed: int | None) -> StepMetrics:
        """Count a step, and return its metrics."""
        position, step = report.position, report.metrics
        self.done, self.epoch, self.committed = position.done, position.epoch, committed
        self.share = report.progress
        self.steps += 1
        self.rows += step.rows
        self.audio_seconds += report.audio_seconds
        self.seconds += report.seconds
        self.waited += report.waited
        self.last.append(step)
        self.before = report.before
        if report.evaluated is not None:
            self.evaluated = position.done, report.evaluated
        return step

    @property
    def loss(self) -> float | None:
        """Mean loss of the last steps; None before the first."""
        return sum(step.loss for step in self.last) / len(self.last) if self.last else None

    @property
    def eta_seconds(self) -> float | None:
        """Seconds until the end at the speed of the last steps; None if unknown."""
        if len(self.last) < 2 or self.share <= self.last[0].share:
            return None
        seconds = sum(step.seconds for step in self.last) - self.last[0].seconds
        return seconds * (1 - self.share) / (self.share - self.last[0].share)


def training_line(progress: TrainingProgress) -> str:
    """Return the figures of a training as one line, the most important first."""
    loss, eta, last = progress.loss, progress.eta_seconds, progress.last
    seconds = sum(step.seconds for step in last)
    parts = (
        f"{progress.share:.0%}",
        f"ETA {duration(eta)}" if eta is not None else "",
        f"step {progress.done:,}",
        f"loss {loss:.3f}" if loss is not None else "",
        f"{count(progress.committed, 'step')} committed" if progress.committed else "",
        _epoch(progress),
        f"{sum(step.audio_seconds for step in last) / seconds:,.1f} s of audio a second" if seconds else "",
        f"rate {last[-1].learning_rate:.1e}" if last else "",
        f"waited {progress.waited / progress.seconds:.0%}" if progress.seconds else "",
    )
    return PARTED.join(filter(None, parts))


def evaluation_line(done: int, evaluated: Evaluated) -> str:
    """Return the metrics of an evaluation as text."""
    when = f"at step {done:,}" if done else "before the first step"
    further = [f"; {name}: {_metrics_line(of_corpus)}" for name, of_corpus in evaluated.others.items()]
    return f"evaluation {when}: {_metrics_line(evaluated)}{''.join(further)}"


def _metrics_line(evaluated: Evaluated) -> str:
    metrics = evaluated.comparison.scores.metrics if evaluated.comparison else {}
    parts = [f"{TITLES[name]} {estimate.percentage} ({estimate.interval})" for name, estimate in metrics.items()]
    parts += [f"loss {evaluated.loss:.4f}"] if evaluated.loss is not None else []
    parts += [f"{count(evaluated.failed, 'row')} left out"] if evaluated.failed else []
    return ", ".join(parts)


def _epoch(progress: TrainingProgress) -> str:
    if progress.epochs is None:
        return f"epoch {progress.epoch + 1:,}"
    return f"epoch {min(progress.epoch + 1, progress.epochs):,}/{progress.epochs:,}"
