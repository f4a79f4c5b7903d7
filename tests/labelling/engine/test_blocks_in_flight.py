"""Blocks in the model's slots: as many as it takes, and the time without a block."""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pyarrow as pa
import pytest

from raysp.labelling.engine.model import Model, Slots, in_order
from raysp.ops.labelling import Figures

SECONDS = 30
"""After which a test gives up waiting."""


def held(slots: Slots, ends: threading.Event) -> threading.Event:
    """Return the event that a thread sets once it has a turn, which it keeps until another event."""
    begun = threading.Event()

    def hold() -> None:
        with slots.occupied():
            begun.set()
            assert ends.wait(SECONDS)

    threading.Thread(target=hold, daemon=True).start()
    return begun


def test_as_many_blocks_are_in_hand_as_the_model_takes():
    slots, ends = Slots(2), threading.Event()
    begun = [held(slots, ends) for _ in range(2)]
    assert all(one.wait(SECONDS) for one in begun)
    third = held(slots, ends)
    assert not third.wait(0.05)
    ends.set()
    assert third.wait(SECONDS)


def test_the_model_waits_while_it_has_no_block_at_all():
    slots = Slots(2)
    with slots.occupied() as waited:
        assert waited == 0  # for its first block
        with slots.occupied() as second:
            assert second == 0
    time.sleep(0.02)
    with slots.occupied() as waited:
        assert 0.02 <= waited < SECONDS
        with slots.occupied() as second:
            assert second == 0


def test_a_block_that_raises_gives_its_turn_back():
    slots = Slots(1)
    with pytest.raises(ValueError, match="a step"), slots.occupied():
        raise ValueError("a step")
    with slots.occupied():
        pass


@pytest.mark.parametrize("at_once", [1, 3])
def test_calls_at_once_answer_in_order(at_once):
    running, most, lock = 0, 0, threading.Lock()

    def call(item: int) -> int:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        time.sleep(0.01 if item % 2 else 0.002)
        with lock:
            running -= 1
        return item * item

    assert [*in_order(call, range(12), at_once)] == [item * item for item in range(12)]
    assert 1 <= most <= at_once


def test_an_item_that_cannot_be_read_ends_the_calls_with_its_error():
    def items() -> Iterator[int]:
        yield 1
        raise OSError("no more")

    results = in_order(lambda item: item, items(), 1)
    assert next(results) == 1
    with pytest.raises(OSError, match="no more"):
        next(results)


class Op:
    """An op that notes which blocks are in slots when one ends, and whose tables fail."""

    has_users_code = False

    def __init__(self, blocks_in_flight: int) -> None:
        self.blocks_in_flight = blocks_in_flight
        self.together = threading.Barrier(blocks_in_flight)
        self.in_hand: set[str] = set()
        self.most = 0

    def prepare(self, block: pa.Table, shard: str, *, names: object) -> str:
        return shard

    def run(self, given: str) -> Figures:
        self.in_hand.add(given)
        self.together.wait(SECONDS)
        self.most = max(self.most, len(self.in_hand))
        self.together.wait(SECONDS)
        self.in_hand.discard(given)
        return Figures()

    def table(self, given: str) -> pa.Table:
        return pa.table({"row": [given]})


@pytest.mark.parametrize("blocks_in_flight", [1, 2])
def test_a_model_runs_blocks_beside_each_other_and_prepares_one_on_a_device(monkeypatch, blocks_in_flight):
    op = Op(blocks_in_flight)
    monkeypatch.setattr("raysp.labelling.engine.model._load", lambda *job: op)
    model = Model(SimpleNamespace(), threads=1)
    assert model.at_once == {1: 1, 2: 3}[blocks_in_flight]
    names = [f"{number}.parquet" for number in range(4)]
    with ThreadPoolExecutor(3) as calls:
        labelled = [*calls.map(lambda name: model(pa.table({"row": [0]}), name), names)]
    model.close()
    assert [one.labels.column("row").to_pylist() for one in labelled] == [[name] for name in names]
    assert op.most == blocks_in_flight
