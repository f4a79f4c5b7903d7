"""Progress of a training."""

from collections import deque
from dataclasses import dataclass, field

from raysp.evaluation.scores import TITLES
from raysp.labelling.engine.display import PARTED
from raysp.training.reading.training_status import LAST_STEPS, LastSteps
from raysp.training.sink.step_evaluation import StepEvaluation
from raysp.training.sink.step_log import StepRecord
from raysp.words import count, duration


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
    audio_seconds: float = 0.0
    seconds: float = 0.0
    """Wall-clock time of the steps of this run."""
    waited: float = 0.0
    """Seconds of it spent waiting for rows."""
    last: deque[StepRecord] = field(default_factory=lambda: deque(maxlen=LAST_STEPS))
    """The last steps of this run."""

    def add(self, step: StepRecord, committed: int | None) -> None:
        """Count a step."""
        self.done, self.epoch, self.committed = step.done, step.epoch, committed
        self.audio_seconds += step.audio_seconds
        self.seconds += step.seconds
        self.waited += step.waited
        self.last.append(step)

    @property
    def share(self) -> float:
        """Share of the training that was done before the last step, from 0 to 1."""
        return self.last[-1].share if self.last else 0.0

    @property
    def averages(self) -> LastSteps | None:
        """Averages over the last steps of this run; None before the first."""
        return LastSteps.of(self.last)

    @property
    def eta_seconds(self) -> float | None:
        """Seconds until the end at the speed of the last steps; None if unknown."""
        if len(self.last) < 2 or self.share <= self.last[0].share:
            return None
        seconds = sum(step.seconds for step in self.last) - self.last[0].seconds
        return seconds * (1 - self.share) / (self.share - self.last[0].share)


def training_line(progress: TrainingProgress) -> str:
    """Return the figures of a training as one line, the most important first."""
    eta, last, epoch = progress.eta_seconds, progress.averages, progress.epoch + 1
    parts = (
        f"{progress.share:.0%}",
        f"ETA {duration(eta)}" if eta is not None else "",
        f"step {progress.done:,}",
        f"loss {last.loss:.3f}" if last else "",
        f"{count(progress.committed, 'step')} committed" if progress.committed else "",
        f"epoch {epoch:,}" if progress.epochs is None else f"epoch {min(epoch, progress.epochs):,}/{progress.epochs:,}",
        f"{last.audio_per_second:,.1f} s of audio a second" if last else "",
        f"rate {last.learning_rate:.1e}" if last else "",
        f"waited {progress.waited / progress.seconds:.0%}" if progress.seconds else "",
    )
    return PARTED.join(filter(None, parts))


def evaluation_lines(step: StepRecord) -> list[str]:
    """Return the metrics of the evaluations before and after a step as text, a line for each."""
    before = [f"evaluation before the first step: {_metrics_line(step.before)}"] if step.before else []
    after = [f"evaluation at step {step.done:,}: {_metrics_line(step.evaluation)}"] if step.evaluation else []
    return [*before, *after]


def _metrics_line(evaluation: StepEvaluation) -> str:
    scores = evaluation.scores
    parts = [f"{TITLES[name]} {scores.value(name)} ({scores.interval(name)})" for name in scores.metrics]
    parts += [f"loss {evaluation.loss:.4f}"] if evaluation.loss is not None else []
    parts += [f"{count(evaluation.failed, 'row')} left out"] if evaluation.failed else []
    further = [f"; {name}: {_metrics_line(of_corpus)}" for name, of_corpus in evaluation.others.items()]
    return ", ".join(parts) + "".join(further)
