"""Writes of a run whose lease another run has taken over."""

import pytest

from raysp import RunError
from raysp.sink import lease
from raysp.sink.fencing import FencedStore


def lost(store, *, seconds: float = 0.0, is_own: bool = False) -> FencedStore:
    """Return the store of a run that lost its lease to another one so long ago, of whose files one exists."""
    now = [0.0]
    first = lease.acquire(store, clock=lambda: now[0])
    mine = FencedStore(store, first.epoch, first if is_own else None)
    first.release()
    lease.acquire(store)
    store.create("a", b"theirs")
    now[0] += seconds
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


@pytest.mark.parametrize("seconds", [0.0, 40.0])
@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
def test_a_run_that_lost_its_lease_writes_nothing(store, write, seconds):
    # The holder of the lease looks after half a minute before it writes what replaces nothing.
    with pytest.raises(RunError, match=r"another run took over: .* holds the lease \(epoch 2, this run held 1\)"):
        write(lost(store, seconds=seconds, is_own=seconds > 0))
    assert store.read("a") == b"theirs"
    assert store.stat("b") is None


def test_a_version_that_is_not_there_is_not_replaced(store):
    mine = FencedStore(store, lease.acquire(store).epoch)
    store.create("a", b"theirs")
    with mine.scratch() as scratch:
        scratch.write_bytes(b"mine")
        assert mine.publish(scratch, "a", replace=True, expected="another") is None
    assert store.read("a") == b"theirs"


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
