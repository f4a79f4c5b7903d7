"""Blocks in the model's hand: as many as it takes, one alone after a crash, and the time without a block."""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pyarrow as pa
import pytest

import raysp
from raysp.corpus.shards import Piece
from raysp.labelling.engine.workers import label_actor
from raysp.labelling.engine.workers.attempts import Attempts as Uncounted
from raysp.labelling.engine.workers.calls_in_order import in_order
from raysp.labelling.engine.workers.label_actor import InHand, LabelActor, calls_at_once
from raysp.labelling.engine.workers.messages import pack, read_messages
from raysp.ops.labelling import Figures
from raysp.ops.passes.device_passes import BATCHES_A_BLOCK, BLOCKS_IN_HAND
from raysp.ops.transcripts.search_processes import MOST_PROCESSES, MOST_TOGETHER
from raysp.sink.layout import BlockName

SECONDS = 30
"""After which a test gives up waiting."""


def held(hand: InHand, ends: threading.Event, *, alone: bool = False) -> threading.Event:
    """Return the event that a thread sets once it has a turn, which it keeps until another event."""
    begun = threading.Event()

    def hold() -> None:
        with hand.taken(alone=alone):
            begun.set()
            assert ends.wait(SECONDS)

    threading.Thread(target=hold, daemon=True).start()
    return begun


def test_as_many_blocks_are_in_hand_as_the_model_takes():
    hand, ends = InHand(2), threading.Event()
    begun = [held(hand, ends) for _ in range(2)]
    assert all(one.wait(SECONDS) for one in begun)
    third = held(hand, ends)
    assert not third.wait(0.05)
    ends.set()
    assert third.wait(SECONDS)


def test_a_block_that_was_in_hand_in_a_crash_runs_alone():
    hand, ends, ends_alone = InHand(2), threading.Event(), threading.Event()
    assert held(hand, ends).wait(SECONDS)
    alone = held(hand, ends_alone, alone=True)
    assert not alone.wait(0.05)
    ends.set()
    assert alone.wait(SECONDS)
    other = held(hand, ends)
    assert not other.wait(0.05)
    ends_alone.set()
    assert other.wait(SECONDS)


def test_the_model_waits_while_it_has_no_block_at_all():
    hand = InHand(2)
    with hand.taken(alone=False) as waited:
        assert waited == 0  # for its first block
        with hand.taken(alone=False) as second:
            assert second == 0
    time.sleep(0.02)
    with hand.taken(alone=False) as waited:
        assert 0.02 <= waited < SECONDS
        with hand.taken(alone=False) as second:
            assert second == 0


def test_a_block_that_raises_gives_its_turn_back():
    hand = InHand(1)
    with pytest.raises(ValueError, match="a step"), hand.taken(alone=True):
        raise ValueError("a step")
    with hand.taken(alone=False):
        pass


def test_a_device_has_another_block_in_hand_and_a_cpu_does_not():
    assert (calls_at_once("cpu"), calls_at_once("cuda")) == (2, 1 + BLOCKS_IN_HAND)
    most = MOST_TOGETHER * MOST_PROCESSES // BATCHES_A_BLOCK
    assert calls_at_once("cuda", searches=True) == 1 + BLOCKS_IN_HAND + most
    assert calls_at_once("cpu", searches=True) == 2


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
    """An op that notes how many blocks are in hand when one begins, and whose tables fail."""

    blocks_in_hand, has_users_code = 2, False

    def __init__(self, both: threading.Barrier) -> None:
        self.both = both
        self.in_hand: set[str] = set()
        self.seen: dict[str, set[str]] = {}

    def prepare(self, block: pa.Table, shard: str) -> str:
        return shard

    def run(self, given: str) -> Figures:
        self.in_hand.add(given)
        if given in ("one", "two"):
            self.both.wait(SECONDS)
        time.sleep(0.01)
        self.seen[given] = {*self.in_hand}
        self.in_hand.discard(given)
        return Figures()

    def table(self, given: str) -> pa.Table:
        raise ValueError(f"no table of {given}")


class Attempts(Uncounted):
    def crashes(self, work: str) -> int:
        return int("crashed" in work)


def test_an_actor_runs_blocks_beside_each_other_but_one_that_crashed(monkeypatch, tmp_path):
    op = Op(threading.Barrier(2))
    monkeypatch.setattr(label_actor, "load_labelling", lambda job: op)
    job = SimpleNamespace(
        fault_injection={},
        pipeline=SimpleNamespace(sink=raysp.Parquet(str(tmp_path))),
        attempts=Attempts(),
        hang_seconds=0.0,
    )
    actor = LabelActor(job)
    names = [BlockName(shard, Piece(0, 1), "input", "stage", 0, 1) for shard in ("one", "two", "crashed", "three")]
    blocks = [pack(name, pa.table({"row": [0]})) for name in names]
    with ThreadPoolExecutor(2) as calls:
        answers = [*calls.map(actor, blocks[:2]), *calls.map(actor, blocks[2:])]
    actor.close()
    messages = [one for rows in answers for one in read_messages(rows)]
    assert [one.reason.partition(": ")[2] for one in messages] == [
        f"ValueError: no table of {name.shard}" for name in names
    ]
    assert {"one", "two"} in (op.seen["one"], op.seen["two"])
    assert (op.seen["crashed"], op.seen["three"]) == ({"crashed"}, {"three"})
