"""Bugs that are planted in the protocol of trainings: a history must find each."""

import json
from dataclasses import asdict, replace
from itertools import islice

from raysp.sink import run_record
from raysp.sink.fencing import FencedStore
from raysp.sink.orphans import Orphan
from raysp.training.sink import committed_steps, exports, training_record
from tests.sink.simulation import training
from tests.sink.simulation.bugs_of_labels import writing_the_record_past_the_fence


def writing_without_a_look_at_the_lease(monkeypatch):
    """No write checks whether another run took over."""
    monkeypatch.setattr(FencedStore, "check", lambda self: None)


def replacing_whatever_is_there(monkeypatch):
    """A write that follows a check replaces any version of the file."""

    def publish(self, scratch, path, *, replace=False, expected=None):
        self.check()
        return self._store.publish(scratch, path, replace=replace, expected=expected)

    monkeypatch.setattr(FencedStore, "publish", publish)


def continuing_another_recipe(monkeypatch):
    """A run joins the recorded training, whatever its recipe is."""
    monkeypatch.setattr(training_record, "_changed", lambda *fields: None)
    begin_record = run_record.begin_record

    def begin(store, path, made, joined, *, creates):
        def join(recorded):
            return replace(recorded, runs=run_record.all_runs(recorded, made))

        return begin_record(store, path, made, join, creates=creates)

    monkeypatch.setattr(training_record, "begin_record", begin)


def beginning_among_what_a_killed_restart_left(monkeypatch):
    """A run that finds no record begins without removing what is there."""
    remove = training_record.remove
    monkeypatch.setattr(
        training_record, "remove", lambda store: remove(store) if training_record.is_training(store) else None
    )


def beginning_where_a_late_restart_removed_the_record(monkeypatch):
    """A run that has seen a record makes one, with all that the training before left, if it is gone by then."""
    begin = training_record.begin
    monkeypatch.setattr(training_record, "begin", lambda store, made, *, is_new: begin(store, made, is_new=True))


def taking_any_marker_for_a_commit(monkeypatch):
    """A marker that exists is that of the step, whatever it is of and whether or not its files are whole."""

    def mark(store, step):
        store.create(f"{committed_steps.STEPS}{step.position.done}.json", json.dumps(asdict(step)).encode())
        return step

    monkeypatch.setattr(committed_steps, "_mark", mark)


def comparing_sizes_alone(monkeypatch):
    latest = committed_steps.latest
    monkeypatch.setattr(committed_steps, "latest", lambda store, checks=False: latest(store))


def removing_the_files_of_a_step_before_its_marker(monkeypatch):
    def remove(store, last, kept=()):
        markers = committed_steps._markers(store)
        whole = (done for done, step, broken in markers if step and not broken and done <= last)
        staying = {*islice(whole, committed_steps.LAST_COMMITS), *kept}
        numbers = committed_steps._committed([entry.path for entry in store.list(committed_steps.STEPS)])
        for done in sorted(done for done in numbers if done < last and done not in staying):
            step = committed_steps._parsed(store, done)
            for path in [*(file.path for file in step.files.values())] if step else []:
                store.delete(path)
            store.delete(f"{committed_steps.STEPS}{done}.json")

    def latest(store, *, checks=False):
        """As before sizes were compared."""
        numbers = committed_steps._committed([entry.path for entry in store.list(committed_steps.STEPS)])
        return committed_steps.load(store, max(numbers)) if numbers else None

    monkeypatch.setattr(committed_steps, "remove_earlier", remove)
    monkeypatch.setattr(committed_steps, "latest", latest)


def removing_the_commit_of_the_best_evaluation(monkeypatch):
    remove = committed_steps.remove_earlier
    monkeypatch.setattr(committed_steps, "remove_earlier", lambda store, last, kept=(): remove(store, last))


def removing_steps_that_are_committed(monkeypatch):
    """`gc` takes all files of steps for left ones."""

    def leftovers(store, *, now=None):
        for entry in store.list(committed_steps.STEPS):
            if not entry.path.endswith(".json"):
                yield Orphan(entry.path, entry.num_bytes, "left")

    monkeypatch.setattr(committed_steps, "leftovers", leftovers)


def recording_steps_after_their_commit(monkeypatch):
    """The records of the steps of a commit are written with the next one."""
    commit = training.Driver._commit

    def late(self, store, log, done, best):
        steps, log._steps = log._steps, getattr(self, "steps", [])
        commit(self, store, log, done, best)
        self.steps = steps
        if done == training.LAST:
            log._steps = steps
            log.take()()

    monkeypatch.setattr(training.Driver, "_commit", late)


def replacing_a_checkpoint_file_by_file(monkeypatch):
    """The files of an export replace those of an earlier one in an order, without notes."""

    def publish(store, files, put, *, fingerprint, state):
        export = exports.Export(fingerprint, state, store.epoch, dict(files))
        before = exports.Export.load(store)
        store.replace(training_record.EXPORT, json.dumps(asdict(export)).encode())
        for name in [*sorted({*files} - {exports.CONFIG}), exports.CONFIG]:
            put(name)
        for name in {*(before.files if before else ())} - {*files}:
            store.delete(name)

    monkeypatch.setattr(exports, "publish", publish)


def taking_any_checkpoint_for_the_own_one(monkeypatch):
    """A checkpoint that is whole is not exported again, whatever weights it has."""

    def is_exported(store, fingerprint, state):
        export = exports.Export.load(store)
        return export is not None and export.is_whole(store)

    monkeypatch.setattr(exports, "is_exported", is_exported)


BUGS = {
    writing_without_a_look_at_the_lease: 3,
    replacing_whatever_is_there: 284,
    writing_the_record_past_the_fence: 375,
    continuing_another_recipe: 0,
    beginning_among_what_a_killed_restart_left: 6,
    beginning_where_a_late_restart_removed_the_record: 41002731,
    taking_any_marker_for_a_commit: 34,
    comparing_sizes_alone: 83,
    removing_the_files_of_a_step_before_its_marker: 3,
    removing_the_commit_of_the_best_evaluation: 0,
    removing_steps_that_are_committed: 0,
    recording_steps_after_their_commit: 0,
    replacing_a_checkpoint_file_by_file: 7,
    taking_any_checkpoint_for_the_own_one: 5,
}
"""Planted bugs with the number of the history that is tried first: it finds the bug while the simulation stays."""
WITHIN = 6000
"""Histories in which a bug must be found: the rarest is found by one in two thousand."""
