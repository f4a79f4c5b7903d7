"""The result of `raysp finetune`, and the facts that it prints."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Self

from raysp.evaluation.scores import Estimate
from raysp.sink.layout import LOG
from raysp.storage.store import join_url
from raysp.training.loop.best_evaluation import comparable
from raysp.training.loop.session import Session
from raysp.training.preparing import Prepared
from raysp.training.reading.training_status import BestEvaluation, LastSteps
from raysp.training.training_progress import TrainingProgress
from raysp.words import Brief, count, duration


@dataclass(frozen=True, repr=False)
class FinetuneResult(Brief):
    """Result of a training."""

    sink: str
    """Folder of the checkpoint."""
    fingerprint: str
    steps: int
    """Updates of the weights, including earlier runs."""
    epochs: int
    """Epochs that are done."""
    is_done: bool
    """Whether no step is left, so that the checkpoint is in the sink."""
    loss: float | None
    """Mean loss of the last steps, including earlier runs; None without steps."""
    rows: int
    """Rows that are trained on."""
    left_out: dict[str, int]
    """Rows that are left out, by reason."""
    errors: dict[str, int]
    """Rows of this run that could not be decoded, by type; each once per epoch."""
    error_examples: tuple[str, ...]
    shards_failed: dict[str, str]
    """Shards that could not be read, with the reasons."""
    audio_seconds: float
    """Seconds of audio of the steps of this run."""
    wall_seconds: float
    """Seconds of the steps of this run."""
    waited: float
    """Share of `wall_seconds` that was spent waiting for rows."""
    metric: str | None = None
    """Name of the metric by which evaluations are compared; None without one."""
    best: float | None = None
    """Value of `metric` in the best evaluation, whose weights the checkpoint has; None: it was measured otherwise."""
    best_step: int | None = None
    """Updates of the weights before the best evaluation."""
    before: float | None = None
    """Value of `metric` before the first step; None: it was not evaluated, or measured otherwise."""
    texts: tuple[tuple[str, str], ...] = field(default=())
    """References and texts of a few rows of a try-out."""

    @classmethod
    def of(
        cls,
        prepared: Prepared,
        session: Session,
        progress: TrainingProgress,
        last: LastSteps | None,
        *,
        before: float | None = None,
        texts: Sequence[tuple[str, str]] = (),
    ) -> Self:
        """Return the result of a run, whose loss is that of the last steps; `before` and `texts` are its fields."""
        evaluation, best = prepared.plan.recipe.evaluation, session.best_by_rule
        return cls(
            sink=prepared.plan.recipe.sink.url,
            fingerprint=prepared.fingerprint,
            steps=session.position.done,
            epochs=session.position.epoch,
            is_done=session.is_done,
            loss=last.loss if last else None,
            rows=prepared.corpus.durations.num_rows,
            left_out=dict(prepared.corpus.left_out),
            errors=dict(session.failures.by_type),
            error_examples=tuple(session.failures.examples.values()),
            shards_failed=dict(prepared.unreadable),
            audio_seconds=progress.audio_seconds,
            wall_seconds=progress.seconds,
            waited=progress.waited / progress.seconds if progress.seconds else 0.0,
            metric=evaluation.best if evaluation else None,
            best=comparable(evaluation.best, best.value) if best and evaluation else None,
            best_step=session.best.done if session.best else None,
            before=before,
            texts=tuple(texts),
        )

    @property
    def exit_code(self) -> int:
        """Exit code: 3 if a shard could not be read, else 0."""
        return 3 if self.shards_failed else 0

    @property
    def error_kinds(self) -> str:
        """Numbers of `errors` as text, such as "2 decode_error"."""
        return ", ".join(f"{number:,} {kind}" for kind, number in sorted(self.errors.items()))

    @property
    def error_lists(self) -> str:
        """Url of the folder in the sink with the log of steps, which has the error rows."""
        return join_url(self.sink, LOG)

    @property
    def facts(self) -> list[tuple[str, str]]:
        """Facts that `raysp finetune` prints, with their names."""
        facts = [("text", f"{text!r} (reference {reference!r})") for reference, text in self.texts]
        loss = f", loss {self.loss:.4f}" if self.loss is not None else ""
        facts.append(("steps", f"{self.steps:,}, {count(self.epochs, 'whole epoch')}{loss}"))
        if self.audio_seconds:
            speed = self.audio_seconds / max(self.wall_seconds, 1e-9)
            audio = f"{duration(self.audio_seconds)} of audio in {self.wall_seconds:.1f} s"
            facts.append(("this run", f"{audio}: RTFx {speed:,.1f}, waited for rows {self.waited:.1%} of the time"))
        if self.metric is not None and self.best is not None and self.best_step is not None:
            before = Estimate(self.before) if self.before is not None else None
            best = BestEvaluation(self.best_step, self.metric, Estimate(self.best), 1, before)
            whose = ", whose weights the checkpoint has" if self.is_done else ""
            facts.append(("best", best.sentence(whose)))
        return facts
