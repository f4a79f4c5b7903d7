"""Thousands of histories of trainings of one sink; and that histories find bugs, by planting some."""

import json
import logging
import re
from pathlib import Path

import pytest

from raysp.sink import layout
from raysp.sink.fencing import FencedStore
from raysp.training.sink import committed_steps, exports, step_log, training_record
from tests.sink.simulation import ViolationError
from tests.sink.test_simulation import new_seeds, words_told
from tests.training.sink import simulation
from tests.training.sink.simulation import simulate

WITHIN = 1500
"""Seeds in which a planted bug must be found."""
WORTH = (
    " crashes ",
    "somebody removes",
    "somebody cuts",
    "somebody changes",
    "delete .raysp/recipe.json",
    "replace .raysp/steps/",
    "replace model.safetensors",
    "delete adapter.bin",
    "worker create .raysp/steps/",
)


@pytest.fixture(autouse=True)
def quiet():
    """Damaged steps and watched leases are nothing to warn of here."""
    logging.disable(logging.WARNING)
    yield
    logging.disable(logging.NOTSET)


@pytest.fixture
def folder() -> Path:
    return Path("unused")


@pytest.mark.slow
@pytest.mark.parametrize("how", ["the same every time", pytest.param("drawn anew", marks=pytest.mark.soak)])
def test_no_history_of_trainings_loses_mixes_or_replaces_anything(folder, capsys, how):
    seeds = range(400) if how == "the same every time" else new_seeds(capsys)
    seen = words_told(simulate, seeds, folder, WORTH)
    assert all(seen[word] for word in WORTH), seen


@pytest.mark.slow
def test_a_history_of_trainings_follows_from_its_seed(folder):
    for seed in range(30):
        assert simulate(seed, folder).story == simulate(seed, folder).story


def writing_without_a_look_at_the_lease(monkeypatch):
    """No write checks whether another run took over."""
    monkeypatch.setattr(FencedStore, "check", lambda self: None)


def replacing_whatever_is_there(monkeypatch):
    """A write that follows a check replaces any version of the file."""

    def publish(self, scratch, path, *, replace=False, expected=None):
        self.check()
        return self._store.publish(scratch, path, replace=replace, expected=expected)

    monkeypatch.setattr(FencedStore, "publish", publish)


def checking_the_lease_before_the_version(monkeypatch):
    """The version that is replaced is that after the check."""

    def publish(self, scratch, path, *, replace=False, expected=None):
        self.check()
        if not replace:
            return self._store.publish(scratch, path, expected=expected)
        found = self.stat(path)
        return self._store.publish(scratch, path, expected=found.version if found else None) or publish(
            self, scratch, path, replace=True
        )

    monkeypatch.setattr(FencedStore, "publish", publish)


def taking_any_marker_for_a_commit(monkeypatch):
    """A marker that exists is that of the step, whatever it is of and whether or not its files are whole."""

    def mark(store, step):
        store.create(
            f"{committed_steps.STEPS}{step.position.done}.json", json.dumps(committed_steps.asdict(step)).encode()
        )
        return step

    monkeypatch.setattr(committed_steps, "_mark", mark)


def taking_a_damaged_marker_for_a_commit(monkeypatch):
    monkeypatch.setattr(committed_steps, "is_whole", lambda store, step: True)


def comparing_sizes_alone(monkeypatch):
    latest = committed_steps.latest
    monkeypatch.setattr(committed_steps, "latest", lambda store, checks=False: latest(store))


def counting_steps_of_the_training_before(monkeypatch):
    monkeypatch.setattr(training_record, "first_epoch", lambda store: 0)


def removing_the_files_of_a_step_before_its_marker(monkeypatch):
    def remove(store, kept, *, before):
        numbers = committed_steps._committed([entry.path for entry in store.list(committed_steps.STEPS)])
        for done in sorted(done for done in numbers if done < before and done not in kept):
            step = committed_steps._parsed(store, done)
            for path in [*(file.path for file in step.files.values())] if step else []:
                store.delete(path)
            store.delete(f"{committed_steps.STEPS}{done}.json")

    def latest(store, *, checks=False):
        """As before sizes were compared."""
        numbers = committed_steps._committed([entry.path for entry in store.list(committed_steps.STEPS)])
        return committed_steps.load(store, max(numbers)) if numbers else None

    monkeypatch.setattr(committed_steps, "remove_others", remove)
    monkeypatch.setattr(committed_steps, "latest", latest)


def recording_steps_after_their_commit(monkeypatch):
    """The records of the steps of a commit are written with the next one."""
    commit = simulation.Driver._commit

    def late(self, store, log, done):
        steps, log._steps = log._steps, getattr(self, "steps", [])
        commit(self, store, log, done)
        self.steps = steps
        if done == simulation.LAST:
            log._steps = steps
            log.take()()

    monkeypatch.setattr(simulation.Driver, "_commit", late)


def showing_steps_of_any_run(monkeypatch):
    monkeypatch.setattr(training_record, "belongs", lambda store, run_ids: set(run_ids))


def keeping_a_log_of_the_same_run_and_step(monkeypatch):
    """A file of the log is named after its first step alone."""

    def write(self):
        if self._taken:
            first = self._taken[0].done
            content = "".join(f"{json.dumps(step.json)}\n" for step in self._taken)
            self.store.create(f"{layout.LOG}{self.run_id}-{first:09}-{first:09}.jsonl", content.encode())
            self._taken.clear()

    monkeypatch.setattr(step_log.StepLog, "_write", write)


def _publishing(monkeypatch, names):
    """Replace the files of an export in an order, without notes."""

    def publish(store, files, put, *, fingerprint, state, epoch):
        export = exports.Export(fingerprint, state, epoch, dict(files))
        before = exports.Export.load(store)
        store.replace(training_record.EXPORT, json.dumps(exports.asdict(export)).encode())
        for name in names(files):
            put(name)
        for name in {*(before.files if before else ())} - {*files}:
            store.delete(name)

    monkeypatch.setattr(exports, "publish", publish)


def replacing_a_checkpoint_file_by_file(monkeypatch):
    _publishing(monkeypatch, lambda files: [*sorted({*files} - {exports.CONFIG}), exports.CONFIG])


def leaving_files_of_the_checkpoint_before(monkeypatch):
    delete = FencedStore.delete

    def deleting_below_home(self, path):
        if path.startswith(layout.HOME):
            delete(self, path)

    monkeypatch.setattr(FencedStore, "delete", deleting_below_home)


def recording_a_checkpoint_before_its_notes(monkeypatch):
    """Its files may have the sizes of those that are there."""
    publish = exports.publish

    def record_first(store, files, put, **facts):
        before = exports.Export.load(store)
        earlier = sorted({*(before.files if before else ()), *(before.earlier if before else ())} - {*files})
        export = exports.Export(**facts, files=dict(files), earlier=earlier)
        store.replace(training_record.EXPORT, json.dumps(exports.asdict(export)).encode())
        publish(store, files, put, **facts)

    monkeypatch.setattr(exports, "publish", record_first)


def beginning_among_what_a_killed_restart_left(monkeypatch):
    """A run that finds no record begins without removing what is there."""
    remove = training_record.remove
    monkeypatch.setattr(
        training_record, "remove", lambda store: remove(store) if training_record.is_training(store) else None
    )


def exporting_again_what_is_exported(monkeypatch):
    monkeypatch.setattr(exports, "is_exported", lambda store, fingerprint, state: False)


BUGS = {
    writing_without_a_look_at_the_lease: 91,
    replacing_whatever_is_there: 193,
    checking_the_lease_before_the_version: 922,
    taking_any_marker_for_a_commit: 3,
    taking_a_damaged_marker_for_a_commit: 34,
    comparing_sizes_alone: 34,
    counting_steps_of_the_training_before: 201474,
    removing_the_files_of_a_step_before_its_marker: 24,
    recording_steps_after_their_commit: 200000,
    showing_steps_of_any_run: 2009,
    keeping_a_log_of_the_same_run_and_step: 5,
    replacing_a_checkpoint_file_by_file: 200000,
    leaving_files_of_the_checkpoint_before: 65,
    recording_a_checkpoint_before_its_notes: 1793,
    beginning_among_what_a_killed_restart_left: 352,
    exporting_again_what_is_exported: 200000,
}
"""Planted bugs with the seed that is tried first: its history finds the bug while the simulation stays the same."""


@pytest.mark.slow
@pytest.mark.parametrize(("plant", "first"), BUGS.items(), ids=[bug.__name__ for bug in BUGS])
def test_a_planted_bug_of_trainings_is_found(folder, monkeypatch, plant, first):
    plant(monkeypatch)

    def simulate_all() -> None:
        for seed in (first, *range(WITHIN)):
            simulate(seed, folder)

    with pytest.raises(ViolationError) as found:
        simulate_all()
    assert not re.search(r"(?:Type|Key|Attribute|Value|Name)Error:", str(found.value)), "the planted function fails"
