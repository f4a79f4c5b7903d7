"""Bugs that are planted in the protocol of labels: a history must find each."""

from dataclasses import replace
from unittest.mock import ANY

from raysp.sink import commit as commit_module
from raysp.sink import layout, orphans, run_record, stage
from raysp.sink import receipts as tally_module
from raysp.sink.receipts import ShardReceipt
from tests.sink.simulation import labelling
from tests.sink.simulation import store as simulated_store
from tests.sink.simulation.world import World


def replacing_what_is_committed(monkeypatch):
    """A label shard is put in place unconditionally."""
    publish = simulated_store.Store.publish
    monkeypatch.setattr(
        simulated_store.Store,
        "publish",
        lambda self, scratch, path, replace=False, expected=None: publish(self, scratch, path, replace=True),
    )


def replacing_what_was_found_last(monkeypatch):
    """A retry that comes late replaces the label shard that it finds when its own is written."""
    write = commit_module.write

    def write_late(store, label_shard, tables, hashes, *, expected, **fields):
        read = list(tables)
        found = store.stat(label_shard.shard.name) if expected else None
        version = found.version if found else expected
        return write(store, label_shard, iter(read), hashes, expected=version, **fields)

    monkeypatch.setattr(commit_module, "write", write_late)


def trusting_receipts_of_other_versions(monkeypatch):
    """A receipt of this input and pipeline counts, though its label shard may have been replaced since."""
    load = tally_module.load

    def load_any_version(*arguments):
        for run, receipt in load(*arguments):
            yield run, replace(receipt, version=ANY) if isinstance(receipt, ShardReceipt) else receipt

    monkeypatch.setattr(tally_module, "load", load_any_version)


def removing_left_out_rows_of_others(monkeypatch):
    """A commit that replaced a label shard removes the left-out rows of others' label shards."""
    write = commit_module.write

    def write_and_remove(store, label_shard, *rest, **fields):
        receipt = write(store, label_shard, *rest, **fields)
        own = (label_shard.shard.name, label_shard.shard.input_id, label_shard.fingerprint)
        for entry in store.list(layout.ERRORS) if fields["expected"] else ():
            found = layout.parse_errors_path(entry.path)
            if found and found[0] == own[0] and found[:3] != own:
                store.delete(entry.path)
        return receipt

    monkeypatch.setattr(commit_module, "write", write_and_remove)


def cleaning_up_what_a_late_commit_will_name(monkeypatch):
    """`gc` removes left-out rows that no footer names, however young they are."""
    find = orphans.find_orphans
    monkeypatch.setattr(orphans, "find_orphans", lambda store, **fields: find(store, **{**fields, "rest_seconds": 0.0}))


def committing_results_of_another_pipeline(monkeypatch):
    """Rows count as staged when results of any input and pipeline are."""

    def listed(store, shards, fingerprint):
        found = {}
        for entry in store.list(layout.STAGE):
            if name := layout.parse_stage_path(entry.path):
                found.setdefault(name.shard, []).append(stage.Staged(name, entry.num_bytes))
        return found

    monkeypatch.setattr(stage, "listed", listed)


def committing_rows_of_a_piece_and_of_its_halves(monkeypatch):
    """All files of a piece are put one behind the other, also if they overlap."""

    def tiles(piece, staged):
        inside = [one for one in staged if piece.first <= one.rows.first and one.rows.end <= piece.end]
        return sorted(inside, key=lambda one: one.rows)

    monkeypatch.setattr(stage, "tiles", tiles)


def trusting_staged_error_rows(monkeypatch):
    """A run does not count the error rows that others have staged, so that it commits those of a run that stopped."""
    compare = labelling.commit_module.compare

    def without_staged(store, shards, *args, **kwargs):
        done, todo = compare(store, shards, *args, **kwargs)
        return done, tuple(replace(one, staged=()) for one in todo)

    monkeypatch.setattr(labelling.commit_module, "compare", without_staged)


def planning_before_the_lease_is_held(monkeypatch):
    """A run takes the lease once it has its plan, so that another one may have worked on the sink since."""
    take_lease = World.take_lease

    class LateLease:
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

    def late(self, actor, owner, store):
        if actor.kind == "gc":
            return take_lease(self, actor, owner, store)
        return LateLease(lambda: take_lease(self, actor, owner, store))

    monkeypatch.setattr(World, "take_lease", late)


def changing_steps_behind_after_a_commit(monkeypatch):
    """The steps behind the last `Label` may change at any time."""
    monkeypatch.setattr(run_record, "is_open", lambda store, recorded, staged_as: recorded.staged_as == staged_as)


def retrying_without_the_steps_behind(monkeypatch):
    """Retried rows do not pass the steps behind the last `Label`."""
    recommit = labelling.recommit
    monkeypatch.setattr(
        labelling,
        "recommit",
        lambda store, label_shard, retry: recommit(store, replace(label_shard, finish=None), retry),
    )


def writing_the_record_past_the_fence(monkeypatch):
    """A run that comes late replaces the record, whoever holds the lease and whatever is recorded by now."""

    def replace_version(store, path, data, *, expected):
        getattr(store, "_store", store).replace(path, data)
        return True

    monkeypatch.setattr(run_record, "replace_version", replace_version)


BUGS = {
    replacing_what_is_committed: 5,
    replacing_what_was_found_last: 112,
    trusting_receipts_of_other_versions: 0,
    removing_left_out_rows_of_others: 150,
    cleaning_up_what_a_late_commit_will_name: 534,
    committing_results_of_another_pipeline: 345,
    committing_rows_of_a_piece_and_of_its_halves: 2,
    trusting_staged_error_rows: 0,
    planning_before_the_lease_is_held: 91,
    changing_steps_behind_after_a_commit: 377,
    retrying_without_the_steps_behind: 0,
    writing_the_record_past_the_fence: 1454,
}
"""Planted bugs with the number of the history that is tried first: it finds the bug while the simulation stays."""
WITHIN = 2000
"""Histories in which a bug must be found: the rarest is found by one in several hundred."""
