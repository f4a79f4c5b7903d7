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
from tests.sink.simulation.histories import of_training
from tests.sink.simulation.planting import Bugs

BUGS = Bugs(of_training, within=6000)
"""The rarest is found by one history in two thousand."""

BUGS.plant(run_record, "replace_version", first=375)(writing_the_record_past_the_fence)


@BUGS.plant(FencedStore, "check", first=3)
def writing_without_a_look_at_the_lease(check, store):
    """No write checks whether another run took over."""


@BUGS.plant(FencedStore, "publish", first=284)
def replacing_whatever_is_there(publish, store, scratch, path, *, replace=False, expected=None):
    """A write that follows a check replaces any version of the file."""
    store.check()
    return store._store.publish(scratch, path, replace=replace, expected=expected)


@BUGS.plant(training_record, "begin_record", first=0, also=[(training_record, "_changed", lambda *fields: None)])
def continuing_another_recipe(begin_record, store, path, made, joined, *, creates):
    """A run joins the recorded training, whatever its recipe is."""

    def join(recorded):
        return replace(recorded, runs=run_record.all_runs(recorded, made))

    return begin_record(store, path, made, join, creates=creates)


@BUGS.plant(training_record, "remove", first=6)
def beginning_among_what_a_killed_restart_left(remove, store):
    """A run that finds no record begins without removing what is there."""
    return remove(store) if training_record.is_training(store) else None


@BUGS.plant(training_record, "begin", first=41002731)
def beginning_where_a_late_restart_removed_the_record(begin, store, made, *, is_new):
    """A run that has seen a record makes one, with all that the training before left, if it is gone by then."""
    return begin(store, made, is_new=True)


@BUGS.plant(committed_steps, "_mark", first=34)
def taking_any_marker_for_a_commit(mark, store, step):
    """A marker that exists is that of the step, whatever it is of and whether or not its files are whole."""
    store.create(f"{committed_steps.STEPS}{step.position.done}.json", json.dumps(asdict(step)).encode())
    return step


@BUGS.plant(committed_steps, "latest", first=83)
def comparing_sizes_alone(latest, store, checks=False):
    """No digest is compared."""
    return latest(store)


def _latest_by_name(store, *, checks=False):
    """Return the step of the last marker, as before sizes were compared."""
    numbers = committed_steps._committed([entry.path for entry in store.list(committed_steps.STEPS)])
    return committed_steps.load(store, max(numbers)) if numbers else None


@BUGS.plant(committed_steps, "remove_earlier", first=3, also=[(committed_steps, "latest", _latest_by_name)])
def removing_the_files_of_a_step_before_its_marker(remove, store, last, kept=()):
    """A process that dies in between leaves a marker without files."""
    markers = committed_steps._markers(store)
    whole = (done for done, step, broken in markers if step and not broken and done <= last)
    staying = {*islice(whole, committed_steps.LAST_COMMITS), *kept}
    numbers = committed_steps._committed([entry.path for entry in store.list(committed_steps.STEPS)])
    for done in sorted(done for done in numbers if done < last and done not in staying):
        step = committed_steps._parsed(store, done)
        for path in [*(file.path for file in step.files.values())] if step else []:
            store.delete(path)
        store.delete(f"{committed_steps.STEPS}{done}.json")


@BUGS.plant(committed_steps, "remove_earlier", first=0)
def removing_the_commit_of_the_best_evaluation(remove, store, last, kept=()):
    """The last steps alone are kept."""
    return remove(store, last)


@BUGS.plant(committed_steps, "leftovers", first=0)
def removing_steps_that_are_committed(leftovers, store, *, now=None):
    """`gc` takes all files of steps for left ones."""
    for entry in store.list(committed_steps.STEPS):
        if not entry.path.endswith(".json"):
            yield Orphan(entry.path, entry.num_bytes, "left")


@BUGS.plant(training.Driver, "_commit", first=0)
def recording_steps_after_their_commit(commit, driver, store, log, done, best):
    """The records of the steps of a commit are written with the next one."""
    steps, log._steps = log._steps, getattr(driver, "steps", [])
    commit(driver, store, log, done, best)
    driver.steps = steps
    if done == training.LAST:
        log._steps = steps
        log.take()()


@BUGS.plant(exports, "publish", first=7)
def replacing_a_checkpoint_file_by_file(publish, store, files, put, *, fingerprint, state):
    """The files of an export replace those of an earlier one in an order, without notes."""
    export = exports.Export(fingerprint, state, store.epoch, dict(files))
    before = exports.Export.load(store)
    store.replace(training_record.EXPORT, json.dumps(asdict(export)).encode())
    for name in [*sorted({*files} - {exports.CONFIG}), exports.CONFIG]:
        put(name)
    for name in {*(before.files if before else ())} - {*files}:
        store.delete(name)


@BUGS.plant(exports, "is_exported", first=5)
def taking_any_checkpoint_for_the_own_one(is_exported, store, fingerprint, state):
    """A checkpoint that is whole is not exported again, whatever weights it has."""
    export = exports.Export.load(store)
    return export is not None and export.is_whole(store)
