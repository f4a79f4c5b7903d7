"""Writes of a run whose lease another run has taken over."""

import pytest

from raysp import RunError
from raysp.sink import lease
from raysp.sink.fencing import FencedStore
from raysp.storage.store import LocalStore

LOST = r"another run took over: .* holds the lease \(epoch 2, this run held 1\)"


@pytest.fixture
def store(tmp_path) -> LocalStore:
    return LocalStore(tmp_path)


@pytest.mark.parametrize("looks_late", [False, True])
def test_a_run_that_lost_its_lease_writes_nothing(store, looks_late):
    """The holder of the lease looks after half a minute before it writes what replaces nothing."""
    now = [0.0]
    first = lease.acquire(store, clock=lambda: now[0])
    mine = FencedStore(store, first.epoch, first if looks_late else None)
    first.release()
    lease.acquire(store)
    store.create("a", b"theirs")
    now[0] += 40 * looks_late
    with mine.scratch() as scratch:
        scratch.write_bytes(b"mine")
        for write in (
            lambda: mine.create("b", b"mine"),
            lambda: mine.replace("a", b"mine"),
            lambda: mine.delete("a"),
            lambda: mine.publish(scratch, "b"),
            lambda: mine.publish(scratch, "a", replace=True),
        ):
            with pytest.raises(RunError, match=LOST):
                write()
    assert store.read("a") == b"theirs"
    assert store.stat("b") is None


def test_a_version_that_is_not_there_is_not_replaced(store):
    mine = FencedStore(store, lease.acquire(store).epoch)
    store.create("a", b"theirs")
    with mine.scratch() as scratch:
        scratch.write_bytes(b"mine")
        assert mine.publish(scratch, "a", replace=True, expected="another") is None
    assert store.read("a") == b"theirs"
