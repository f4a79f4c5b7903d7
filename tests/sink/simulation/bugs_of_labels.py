"""Bugs that are planted in the protocol of labels: a history must find each."""

from dataclasses import replace
from unittest.mock import ANY

from raysp.sink import commit as commit_module
from raysp.sink import layout, orphans, run_record, stage
from raysp.sink import receipts as tally_module
from raysp.sink.receipts import ShardReceipt
from tests.sink.simulation import labelling
from tests.sink.simulation.histories import of_labels
from tests.sink.simulation.planting import Bugs
from tests.sink.simulation.store import Store
from tests.sink.simulation.world import World

BUGS = Bugs(of_labels, within=2000)
"""The rarest is found by one history in several hundred."""


@BUGS.plant(Store, "publish", first=5)
def replacing_what_is_committed(publish, store, scratch, path, *, replace=False, expected=None):
    """A label shard is put in place unconditionally."""
    return publish(store, scratch, path, replace=True)


@BUGS.plant(commit_module, "write", first=112)
def replacing_what_was_found_last(write, store, label_shard, tables, hashes, *, expected, **fields):
    """A retry that comes late replaces the label shard that it finds when its own is written."""
    read = list(tables)
    found = store.stat(label_shard.shard.name) if expected else None
    version = found.version if found else expected
    return write(store, label_shard, iter(read), hashes, expected=version, **fields)


@BUGS.plant(tally_module, "load", first=0)
def trusting_receipts_of_other_versions(load, *arguments):
    """A receipt of this input and pipeline counts, though its label shard may have been replaced since."""
    for run, receipt in load(*arguments):
        yield run, replace(receipt, version=ANY) if isinstance(receipt, ShardReceipt) else receipt


@BUGS.plant(commit_module, "write", first=150)
def removing_left_out_rows_of_others(write, store, label_shard, *rest, **fields):
    """A commit that replaced a label shard removes the left-out rows of others' label shards."""
    receipt = write(store, label_shard, *rest, **fields)
    own = (label_shard.shard.name, label_shard.shard.input_id, label_shard.fingerprint)
    for entry in store.list(layout.ERRORS) if fields["expected"] else ():
        found = layout.parse_errors_path(entry.path)
        if found and found[0] == own[0] and found[:3] != own:
            store.delete(entry.path)
    return receipt


@BUGS.plant(orphans, "find_orphans", first=534)
def cleaning_up_what_a_late_commit_will_name(find, store, **fields):
    """`gc` removes left-out rows that no footer names, however young they are."""
    return find(store, **{**fields, "rest_seconds": 0.0})


@BUGS.plant(stage, "listed", first=345)
def committing_results_of_another_pipeline(listed, store, shards, fingerprint):
    """Rows count as staged when results of any input and pipeline are."""
    found = {}
    for entry in store.list(layout.STAGE):
        if name := layout.parse_stage_path(entry.path):
            found.setdefault(name.shard, []).append(stage.Staged(name, entry.num_bytes))
    return found


@BUGS.plant(stage, "tiles", first=2)
def committing_rows_of_a_piece_and_of_its_halves(tiles, piece, staged):
    """All files of a piece are put one behind the other, also if they overlap."""
    inside = [one for one in staged if piece.first <= one.rows.first and one.rows.end <= piece.end]
    return sorted(inside, key=lambda one: one.rows)


@BUGS.plant(commit_module, "compare", first=0)
def trusting_staged_error_rows(compare, store, shards, *arguments, **keywords):
    """A run does not count the error rows that others have staged, so that it commits those of a run that stopped."""
    done, todo = compare(store, shards, *arguments, **keywords)
    return done, tuple(replace(one, staged=()) for one in todo)


class LateLease:
    """A lease that is taken when it is first checked."""

    def __init__(self, take):
        self.take, self.lease = take, None

    def check(self):
        self.lease = self.lease or self.take()
        self.lease.check()

    def close(self):
        if self.lease:
            self.lease.close()

    def __getattr__(self, name):
        return getattr(self.lease, name)


@BUGS.plant(World, "take_lease", first=91)
def planning_before_the_lease_is_held(take_lease, world, actor, owner, store):
    """A run takes the lease once it has its plan, so that another one may have worked on the sink since."""
    if actor.kind == "gc":
        return take_lease(world, actor, owner, store)
    return LateLease(lambda: take_lease(world, actor, owner, store))


@BUGS.plant(run_record, "is_open", first=377)
def changing_steps_behind_after_a_commit(is_open, store, recorded, staged_as):
    """The steps behind the last `Label` may change at any time."""
    return recorded.staged_as == staged_as


@BUGS.plant(labelling, "commit_staged", first=0)
def retrying_without_the_steps_behind(commit_staged, store, label_shard, retry):
    """Retried rows do not pass the steps behind the last `Label`."""
    return commit_staged(store, replace(label_shard, finish=None) if retry else label_shard, retry)


@BUGS.plant(run_record, "replace_version", first=1454)
def writing_the_record_past_the_fence(replace_version, store, path, data, *, expected):
    """A run that comes late replaces the record, whoever holds the lease and whatever is recorded by now."""
    getattr(store, "_store", store).replace(path, data)
    return True
