"""Writes of a run whose lease another run has taken over."""

import pytest

from raysp import RunError
from raysp.sink import lease
from raysp.training.sink.fencing import FencedStore


@pytest.fixture
def taken_over(store):
    """The store of a run that lost its lease to another one, of whose files one exists."""
    first = lease.acquire(store)
    mine = FencedStore(store, first.epoch)
    first.release()
    lease.acquire(store)
    store.create("a", b"theirs")
    return mine


WRITES = {
    "create": lambda store: store.create("b", b"mine"),
    "replace": lambda store: store.replace("a", b"mine"),
    "delete": lambda store: store.delete("a"),
    "publish": lambda store: _published(store, replace=False),
    "publish over": lambda store: _published(store, replace=True),
}


def _published(store, *, replace: bool) -> None:
    with store.scratch() as scratch:
        scratch.write_bytes(b"mine")
        store.publish(scratch, "a" if replace else "b", replace=replace)


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
def test_a_run_that_lost_its_lease_writes_nothing(taken_over, store, write):
    with pytest.raises(RunError, match=r"another run took over: .* holds the lease \(epoch 2, this run held 1\)"):
        write(taken_over)
    assert store.read("a") == b"theirs"
    assert store.stat("b") is None


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
def test_the_holder_of_the_lease_writes(store, write):
    mine = FencedStore(store, lease.acquire(store).epoch)
    store.create("a", b"theirs")
    write(mine)
    found = {path: store.read(path) for path in ("a", "b") if store.stat(path)}
    assert found in ({"a": b"mine"}, {"a": b"theirs", "b": b"mine"}, {})


def test_a_run_that_is_suspended_between_its_check_and_its_write_replaces_nothing(store, monkeypatch):
    mine = FencedStore(store, lease.acquire(store).epoch)
    store.create("a", b"mine")
    check = FencedStore.check

    def suspended(self):
        check(self)
        monkeypatch.undo()
        other = lease.acquire(store, holder=lease.Holder.now(), clock=iter(range(0, 10**6, 100)).__next__, sleep=id)
        FencedStore(store, other.epoch).replace("a", b"theirs")

    monkeypatch.setattr(FencedStore, "check", suspended)
    with pytest.raises(RunError, match="another run took over"):
        mine.replace("a", b"mine again")
    assert store.read("a") == b"theirs"


def test_epochs_of_later_runs_are_found_by_any_process(store):
    held = lease.acquire(store)
    lease.check_epoch(store, held.epoch)
    with pytest.raises(RunError, match="another run took over"):
        lease.check_epoch(store, held.epoch - 1)
