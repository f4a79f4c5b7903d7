"""Whole trainings: every row once an epoch, commits, and the same weights after any stop."""

import threading
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch

from raysp import Batching, RunError, Schedule, finetune
from raysp.sink.fencing import FencedStore
from raysp.storage.store import LocalStore
from raysp.training.data.epoch_order import EpochOrder
from raysp.training.data.micro_batches import MicroBatch, TrainingRow
from raysp.training.loop.course import Course
from raysp.training.loop.not_finite import NotFiniteError
from raysp.training.loop.optimizing import group_parameters, new_optimizer
from raysp.training.loop.session import Session
from raysp.training.loop.state import TrainingState
from raysp.training.loop.step_commits import Keeper
from raysp.training.loop.training_steps import Training
from raysp.training.objectives.task import Criterion
from raysp.training.planning import ordering
from raysp.training.planning.ordering import Index, Sizes, Window
from raysp.training.sink import committed_steps
from raysp.training.sink.committed_steps import Position
from raysp.training.sink.step_log import StepLog
from tests.soaked import some
from tests.training.conftest import small_model
from tests.training.criteria import ctc_criterion
from tests.training.runs.test_finetuning import again

pytestmark = pytest.mark.slow

SIZES = Sizes(micro_seconds=1.5, micro_batches=2, window_seconds=4.0)
COURSE = Course(Schedule(epochs=3, learning_rate=2e-3))


class Recorded:
    """Records the rows of each pass."""

    def __init__(self, criterion: Criterion) -> None:
        self.criterion, self.model = criterion, criterion.model
        self.rows: list[int] = []
        self.places: list[float] = []
        """Progress of the training at each micro-batch."""

    def __call__(self, batch: MicroBatch):
        self.rows += batch.rows
        self.places.append(batch.progress)
        return self.criterion(batch)


@pytest.fixture(scope="module")
def index(digits) -> Index:
    seconds = np.array([len(wave) / 16_000 for wave, _ in digits[:16]], np.float32)
    seconds[[3, 13]] = 0.0
    return Index(seconds, np.array([0, 4, 4, 8, 12, 16]))


@pytest.fixture
def new_session(digits, index, extractor, tmp_path):
    """Return a session over the digits; row 5 cannot be decoded."""

    def rows(window: Window) -> dict[int, TrainingRow]:
        return {row: TrainingRow(*digits[row]) for row in window.rows.tolist() if row != 5}

    def make(
        course: Course = COURSE, fingerprint: str = "a", every: int = 4, sizes: Sizes = SIZES, **options
    ) -> Session:
        model = small_model(hidden_dropout=0.1, layerdrop=0.2)
        optimizer = new_optimizer(group_parameters(model, Schedule(steps=1, learning_rate=1e-3)))
        training = Training(Recorded(ctc_criterion(model, extractor)), optimizer, seed=7)
        store = FencedStore(LocalStore(str(tmp_path)), 1)
        keeper = Keeper(store, fingerprint, every, options.get("seconds"), StepLog(store, "run"))
        held = TrainingState(model, optimizer, decay=options.get("decay"))
        session = Session(training, held, EpochOrder(index, sizes, seed=7), course, rows, keeper)
        session.resume(store, fingerprint)
        return session

    return make


def weights(session: Session) -> list[torch.Tensor]:
    return [*session.training.criterion.model.parameters()]


def test_every_row_is_trained_on_once_an_epoch(new_session, index):
    session = new_session()
    steps = [*session.run()]
    expected = {row for row, seconds in enumerate(index.seconds) if seconds > 0 and row != 5}
    assert Counter(session.training.criterion.rows) == dict.fromkeys(expected, 3)
    assert sum(step.rows for step in steps) == 3 * len(expected)
    assert [step.done for step in steps] == [*range(1, len(steps) + 1)]
    assert steps[-1].epoch == 3
    assert steps[-1].step == 0


def test_rates_follow_the_course(new_session):
    steps = [*new_session().run()]
    assert [step.share for step in steps] == sorted(step.share for step in steps)
    rates = [step.learning_rate for step in steps]
    assert (rates[0], max(rates)) == (0.0, 2e-3)
    assert rates[-1] < 1e-3


def test_micro_batches_know_the_progress_of_the_training(new_session):
    session = new_session()
    steps = [*session.run()]
    assert sorted({*session.training.criterion.places}) == [step.share for step in steps]
    assert steps[0].share == 0


@pytest.mark.parametrize("stops", some([[1], [4], [5, 6], [3, 8, 9]], [3, 8, 9]))
def test_a_stopped_training_goes_on_bit_for_bit(new_session, tmp_path_factory, stops, monkeypatch):
    reference = new_session()
    reference.keeper = None
    losses = [step.loss for step in reference.run()]
    found: list[float] = []
    for stop in [*stops, 1000]:
        session = new_session()
        assert session.position.done == len(found)
        for step in session.run(lambda session=session, stop=stop: session.position.done + 1 >= stop):
            found.append(step.loss)
    assert found == losses
    for mine, other in zip(weights(session), weights(reference), strict=True):
        assert torch.equal(mine, other)
    assert [*new_session().run()] == []


def test_a_killed_training_repeats_the_steps_since_its_last_commit(new_session):
    reference = new_session()
    reference.keeper = None
    losses = [step.loss for step in reference.run()]
    session = new_session(every=4)
    session._finish = lambda: session._end_commit()  # what a kill after step 6 leaves
    for step in session.run():
        if step.done == 6:
            break
    again = new_session(every=4)
    assert again.position.done == 4
    assert [step.loss for step in again.run()] == losses[4:]


def test_the_last_two_commits_stay(new_session):
    session = new_session(every=2)
    total = len([*session.run()])
    committed = {done for done, _, _ in committed_steps._markers(session.keeper.store)}
    assert len(committed) == 2
    assert max(committed) == total


def test_a_step_is_committed_after_some_time_too(new_session):
    session = new_session(every=1000, seconds=0.0)
    total = len([*session.run()])
    committed = {done for done, _, _ in committed_steps._markers(session.keeper.store)}
    assert committed == {total - 1, total}


@pytest.mark.parametrize("stops", some([[4], [3, 5, 9]], [3, 5, 9]))
def test_a_moving_average_goes_on_bit_for_bit(new_session, stops):
    reference = new_session(decay=0.9)
    reference.keeper = None
    total = len([*reference.run()])
    for stop in [*stops, 1000]:
        session = new_session(decay=0.9)
        [*session.run(lambda session=session, stop=stop: session.position.done + 1 >= stop)]
    assert session.state.average.updates == reference.state.average.updates == total
    expected = reference.state.average.tensors
    assert all(torch.equal(one, expected[name]) for name, one in session.state.average.tensors.items())
    again = new_session(decay=0.9)
    assert torch.equal(again.state.average.tensors["lm_head.weight"], expected["lm_head.weight"])


def test_the_first_window_of_an_epoch_is_read_before_the_epoch_begins(new_session):
    session = new_session()
    whole, begun = session.rows, [threading.Event() for _ in range(COURSE.schedule.epochs)]

    def rows(window):
        begun[window.epoch].set()
        return whole(window)

    session.rows = rows
    for step in session.run():
        if step.step == 0 and step.epoch < COURSE.schedule.epochs:  # the last step of an epoch is done
            assert begun[step.epoch].wait(60)
    assert all(epoch.is_set() for epoch in begun)


@pytest.mark.parametrize("course", [COURSE, Course(Schedule(steps=7, learning_rate=2e-3))])
def test_no_window_is_read_that_is_not_trained_on(new_session, course):
    session = new_session(course)
    whole, read = session.rows, []
    session.rows = lambda window: read.append(window) or whole(window)
    trained = sum(step.rows for step in session.run())
    assert len({(window.epoch, window.number) for window in read}) == len(read)
    assert sum(len(window.rows) - (5 in window.rows) for window in read[:-1]) < trained


def test_a_course_of_steps_ends_after_them(new_session):
    steps = [*new_session(Course(Schedule(steps=7, learning_rate=2e-3))).run()]
    assert len(steps) == 7


@pytest.mark.parametrize(
    ("changed", "message"), [({"fingerprint": "b"}, "another recipe"), ({"index": True}, "another corpus")]
)
def test_another_recipe_or_corpus_is_refused(new_session, index, changed, message, monkeypatch):
    [*new_session(Course(Schedule(steps=1, learning_rate=2e-3))).run()]
    if changed.pop("index", False):
        monkeypatch.setattr(Index, "digest", "0" * 16)
    with pytest.raises(RunError, match=message):
        new_session(**changed)


def record(session: Session, positions: list[Position]) -> None:
    """Run a session, and append the position after each step."""
    for _ in session.run():
        positions.append(session.position)


def test_a_loss_that_is_not_finite_ends_the_training_with_its_rows(new_session, digits):
    session = new_session()
    whole = session.rows

    def rows(window):
        found = whole(window)
        if 9 in found and window.epoch == 1:
            found[9] = TrainingRow(np.full(8000, np.nan, np.float32), found[9].target)
        return found

    session.rows = rows
    positions = []
    with pytest.raises(NotFiniteError, match="no weight was changed") as caught:
        record(session, positions)
    assert caught.value.fault.rows == [9]
    assert new_session().position == positions[-1]


def test_an_error_of_reading_ends_the_training_after_a_commit(new_session):
    session = new_session()
    whole = session.rows

    def rows(window):
        if window.number == 1:
            raise RunError("the shard is gone")
        return whole(window)

    session.rows = rows
    positions = []
    with pytest.raises(RunError, match="the shard is gone"):
        record(session, positions)
    assert new_session().position == positions[-1]


def test_each_window_is_cut_into_micro_batches_once(words, tiny, tmp_path, monkeypatch):
    costs = []
    original = ordering.micro_batch_edges
    monkeypatch.setattr(ordering, "micro_batch_edges", lambda cost, *rest: costs.append(cost) or original(cost, *rest))
    schedule, batching = Schedule(epochs=2, learning_rate=1e-3), Batching(seconds=6, micro_batches=3, window_seconds=5)
    recipe = again(words, tiny, tmp_path / "out", schedule=schedule, batching=batching)
    finetune(recipe, on_plan=lambda prepared: prepared.facts)
    assert sum(len(cost) for cost in costs) == 30 * 2


def test_a_loss_that_is_not_finite_ends_the_training_and_names_the_rows(words, tiny, tmp_path, monkeypatch):
    original, sink = Criterion.__call__, tmp_path / "out"

    def broken(self, batch):
        losses = original(self, batch)
        bad = torch.tensor([7 in (row,) for row in batch.rows])
        rows = torch.where(bad, torch.nan, losses.rows_B)
        return replace(losses, total=losses.total + rows.sum() - losses.rows_B.sum(), rows_B=rows)

    recipe = again(words, tiny, sink)
    monkeypatch.setattr(Criterion, "__call__", broken)
    with pytest.raises(RunError, match=r"the loss is nan .* at fault: 0.parquet:7\. Lower schedule"):
        finetune(recipe)
    monkeypatch.undo()
    assert finetune(recipe).is_done


def test_a_training_whose_rows_all_fail_names_none_and_commits_nothing(words, tiny, tmp_path, monkeypatch):
    original, done = Criterion.__call__, []

    def broken(self, batch):
        losses = original(self, batch)
        done.append(batch)
        factor = torch.nan if len(done) > 6 else 1.0  # from the fourth step of two micro-batches on
        return replace(losses, total=losses.total * factor, rows_B=losses.rows_B * factor)

    monkeypatch.setattr(Criterion, "__call__", broken)
    with pytest.raises(RunError, match=r"diverged: no row of the \d+ of the step has a finite loss and gradient, so"):
        finetune(again(words, tiny, tmp_path / "out"))
    assert [one.path for one in LocalStore(tmp_path / "out").list(".raysp/steps/") if one.path.endswith(".json")] == [
        ".raysp/steps/2.json"
    ]
