"""A training from its last committed step on: epochs, windows and steps, learning rates, commits."""

import logging
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from functools import partial

from raysp.errors import RunError
from raysp.storage.store import Store
from raysp.training.data.epoch_order import EpochOrder
from raysp.training.data.micro_batches import Rows, TrainingRow
from raysp.training.data.row_windows import Failures, micro_batch
from raysp.training.loop.best_evaluation import Best, rule_of
from raysp.training.loop.course import Course
from raysp.training.loop.dev_evaluation import Evaluator
from raysp.training.loop.not_finite import NotFinite, NotFiniteError, described_losses, has_grown
from raysp.training.loop.state import TrainingState
from raysp.training.loop.step_commits import Keeper
from raysp.training.loop.training_steps import Training, Update
from raysp.training.planning.ordering import Window
from raysp.training.sink import committed_steps as steps
from raysp.training.sink.committed_steps import CommittedStep, Position
from raysp.training.sink.step_evaluation import StepEvaluation
from raysp.training.sink.step_log import StepRecord, Steps

logger = logging.getLogger(__name__)

MOST_LOSSES = 1000
"""Steps whose losses show since when a training diverges."""


@dataclass(eq=False, repr=False)
class Session:
    """Training of one worker over the windows of a corpus.

    Attributes:
        training: model, loss and optimiser.
        state: what commits hold.
        order: order of the rows.
        course: length and learning rates.
        rows: returns this worker's rows of a window; called in a thread, a window ahead, also across epochs.
        failures: the rows that failed, for the records of steps.
        keeper: commits; None: this worker commits nothing.
        evaluator: evaluates the weights; None: there are no evaluations.
        best: the best evaluation so far.
        position: progress of the training.
    """

    training: Training
    state: TrainingState
    order: EpochOrder
    course: Course
    rows: Rows
    failures: Failures
    keeper: Keeper | None = None
    evaluator: Evaluator | None = None
    best: Best | None = field(default=None, init=False)
    position: Position = field(default=Position(0, 0, 0), init=False)
    _stops: bool = field(default=False, init=False)
    """Whether a worker asked to stop after the last step."""
    _waited: float = field(default=0.0, init=False)
    """Seconds spent waiting for rows since the last step."""
    _before: float = field(default=0.0, init=False)
    """Time from which the seconds of the current step count."""
    _is_whole: bool = field(default=True, init=False)
    """Whether the weights are those after `position`; False while a step runs."""
    _earlier: Callable[[], Sequence[StepRecord]] = field(default=tuple, init=False)
    """Reads the last steps before the commit from which the training goes on."""
    _losses: deque[tuple[int, float]] = field(default_factory=partial(deque, maxlen=MOST_LOSSES), init=False)
    """Last steps of this run, with their losses."""
    # One thread, since all windows come from one generator.
    _threads: ThreadPoolExecutor = field(default_factory=partial(ThreadPoolExecutor, 1, "raysp-reading"), init=False)

    @property
    def committed(self) -> int | None:
        """Updates at the last commit; None before the first, and for a worker that commits nothing."""
        return self.keeper.last if self.keeper else None

    @property
    def best_by_rule(self) -> Best | None:
        """The best evaluation, if it was compared by the metric and normalisation of the recipe's evaluation."""
        rule = rule_of(self.evaluator.evaluation) if self.evaluator else None
        return self.best if self.best and self.best.rule in ("", rule) else None

    @property
    def is_done(self) -> bool:
        """Whether no step is left, or patience has ended."""
        evaluation = self.evaluator.evaluation if self.evaluator else None
        return (self.best is not None and self.best.exhausts(evaluation)) or self.course.is_done(self.position)

    def resume(self, store: Store, fingerprint: str) -> None:
        """Load the last committed step, if there is one.

        Raises:
            RunError: it was made with another recipe, or over other rows.
        """
        # With the content of the files: a training on damaged weights would go unnoticed.
        step = steps.latest(store, checks=True)
        if step is None:
            return
        if (step.fingerprint, step.index) != (fingerprint, self.order.durations.digest):
            part = "recipe" if step.fingerprint != fingerprint else "corpus"
            raise RunError(
                f"{store.url}: step {step.position.done} was committed with another {part}; use another sink, or start "
                "over with --restart"
            )
        self.state.load(store, step)
        self.position = step.position
        self._earlier = lambda: Steps(store, step.position.done).last(MOST_LOSSES)
        if self.keeper:
            self.keeper.last = step.position.done
        self.best = Best.read(step)

    def load_result(self, store: Store) -> None:
        """Load the weights that a training ends with: the best evaluation's, or the last; or their moving average.

        Raises:
            RunError: the best step is not committed.
        """
        done = self.best.done if self.best else self.position.done
        self.state.load_result(store, steps.load(store, done) if done != self.position.done else None)

    def run(self, should_stop: Callable[[], bool] = lambda: False) -> Generator[tuple[StepRecord, int | None]]:
        """Run the steps that are left, and yield a record of each with the number of steps committed.

        The last step is committed.

        Args:
            should_stop: whether this worker asks to stop; all stop after the same step, which is committed.

        Raises:
            NotFiniteError: loss or norm of a step is not finite; the weights are those before it.
            RunError: too many rows cannot be decoded, or an evaluation has no finite value of its metric.
        """
        try:
            if self.is_done:
                return
            # For comparison; the weights that the training begins with are no candidate for the best.
            before = self._evaluated(self.evaluator)[0] if self.evaluator and self.position.done == 0 else None
            self._before = time.monotonic()
            for window, rows in self._ahead():
                for step in range(self.position.step - window.first_step, window.num_steps):
                    record = self._step(window, rows, step, stops=should_stop(), before=before)
                    yield record, self.committed
                    before = None
                    if self._stops or self.is_done:
                        return
        finally:
            self._finish()

    def _step(
        self, window: Window, rows: Mapping[int, TrainingRow], step: int, *, stops: bool, before: StepEvaluation | None
    ) -> StepRecord:
        training, at = self.training, self.position
        training.freeze(frozen=at.done < training.freeze_steps)
        progress = self.course.progress(at, window.epoch_steps)
        rate = self.course.rate(progress)
        batches = [
            replace(micro_batch(window, step, number, rows), progress=progress)
            for number in range(training.workers.number, window.micro_batches, training.workers.count)
        ]
        self._is_whole = False
        update = training.step(at.epoch, at.step, batches, learning_rate=rate, stops=stops)
        if not update.is_finite:
            not_finite = self._not_finite(update)
            # The step changed no weight. Diverged weights are not committed, so that the last good commit stays.
            self._is_whole = not not_finite.is_diverged
            raise NotFiniteError(not_finite)
        self._losses.append((at.done + 1, update.loss))
        self.state.update()
        after = Position(at.done + 1, at.epoch, at.step + 1)
        self.position = replace(after, epoch=at.epoch + 1, step=0) if after.step == window.epoch_steps else after
        seconds, waited, self._waited = time.monotonic() - self._before, self._waited, 0.0
        numbers, of_rows = range(window.micro_batches), self.order.durations.seconds
        evaluated = self._evaluate()
        self._is_whole = True  # a step whose evaluation fails is repeated, and evaluated then
        self._stops = update.stops
        record = StepRecord(
            **asdict(self.position),
            loss=update.loss,
            norm=update.norm,
            learning_rate=rate,
            rows=update.num_rows,
            audio_seconds=sum(float(of_rows[window.micro_batch(step, number)].sum()) for number in numbers),
            seconds=seconds,
            waited=waited,
            share=progress,
            evaluation=evaluated,
            before=before,
            errors=self.failures.take(),
        )
        if self.keeper:
            self.keeper.log.add(record)
            is_best = self.best is not None and self.best.done == self.position.done
            if self._stops or is_best or self.keeper.is_due(self.position):
                self._commit(self.keeper, {"loss": record.loss})
        self._before = time.monotonic()
        return record

    def _not_finite(self, update: Update) -> NotFinite:
        """Return the facts of a step whose loss or norm is not finite."""
        before, training = self.position, self.training
        losses = [*((step.done, step.loss) for step in self._earlier()), *self._losses]
        return NotFinite(
            f"epoch {before.epoch}, step {before.step}: the loss is {update.loss:g} and the norm of the gradients "
            f"{update.norm:g}; no weight was changed",
            [row for rows in training.workers.gather(update.failed_rows) for row in rows],
            update.num_rows,
            has_grown(losses) or not training.has_finite_weights,
            described_losses(losses),
        )

    def _evaluate(self) -> StepEvaluation | None:
        """Evaluate the weights if it is time, and keep the best."""
        done, evaluator = self.position.done, self.evaluator
        if evaluator is None or (done % evaluator.every and not self.course.is_done(self.position)):
            return None
        evaluation, best = self._evaluated(evaluator)
        if self.best is not None and self.best.measure != best.measure:
            logger.warning(
                "step %d: evaluations are measured otherwise than before (%s; before: %s), so the best one is chosen "
                "from this one on",
                done,
                best.measure,
                self.best.measure or "unknown",
            )
        self.best = self.best.and_then(best) if self.best else best
        return evaluation

    def _evaluated(self, evaluator: Evaluator) -> tuple[StepEvaluation, Best]:
        """Return the evaluation of the weights, as it is recorded and as it is compared."""
        with self.state.evaluated():
            evaluation = evaluator()
        return evaluation, Best.of(evaluation, self.position.done)

    def _ahead(self) -> Iterator[tuple[Window, Mapping[int, TrainingRow]]]:
        """Yield windows from the current step on with their rows.

        The next window's rows are read meanwhile. The order of its epoch is computed in the thread that reads, too.
        """
        loaded = ((window, self.rows(window)) for window in self._windows())
        waiting = self._threads.submit(next, loaded, None)
        while True:
            began = time.monotonic()
            following = waiting.result()
            self._waited += time.monotonic() - began
            if following is None:
                return
            waiting = self._threads.submit(next, loaded, None)
            yield following

    def _windows(self) -> Iterator[Window]:
        """Yield the windows from the current step to the end of the course."""
        position = self.position
        while not self.course.is_done(position):
            epoch = self.order.epoch(position.epoch)
            if not epoch.num_steps:
                raise RunError("no row is left to train on")
            for window in epoch.windows_from(position.step):
                if self.course.is_done(position):
                    return
                yield window
                end = window.first_step + window.num_steps
                position = Position(position.done + end - position.step, position.epoch, end)
            position = Position(position.done, position.epoch + 1, 0)

    def _commit(self, keeper: Keeper, metrics: Mapping[str, float]) -> None:
        """Copy the state, and begin its commit."""
        best = self.best
        step = CommittedStep(
            self.position,
            keeper.fingerprint,
            self.order.durations.digest,
            self.training.workers.count,
            files={},
            metrics={**metrics, **(best.metrics if best else {})},
            measure=best.measure if best else "",
        )
        keeper.begin(step, self.state.copied(), best.done if best else None)

    def _finish(self) -> None:
        """Commit the last step, unless it is committed, and end the threads."""
        try:
            if self.keeper:
                self.keeper.end()
                if self._is_whole and self.position.done and self.committed != self.position.done:
                    self._commit(self.keeper, {})
                    self.keeper.end()
        finally:
            self._threads.shutdown()
