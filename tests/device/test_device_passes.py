"""Passes on a device: batches in order, memory of the ring, failures alone on the device, and blocks without a gap."""

import random
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

import raysp
from raysp import crossing
from raysp.audio import decode
from raysp.models import LoadedCheckpoint
from raysp.ops import device_passes
from raysp.ops.device_passes import AHEAD, LAUNCHED, DevicePasses
from raysp.ops.labelling import Labelling
from tests.corpora import CHECKPOINT, DEMO
from tests.device.conftest import assert_same
from tests.device.stand_in import NAME, Event, counted
from tests.ops.test_labelling import block_of

DEVICE = torch.device(NAME, 0)
SECONDS = 30
"""After which a test gives up waiting."""


class Log:
    """What batches do, in order."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.stages: list[tuple[str, int]] = []

    def add(self, stage: str, number: int) -> None:
        with self.lock:
            self.stages.append((stage, number))

    def of(self, stage: str) -> list[int]:
        return [number for name, number in self.stages if name == stage]


class Fake:
    """A batch that fails in one stage, or none."""

    error: type[BaseException] = ValueError

    def __init__(self, log: Log, number: int, fails: str = "", hold: Callable[[str], None] = lambda _: None) -> None:
        self.log, self.number, self.fails, self.hold = log, number, fails, hold

    def _stage(self, name: str) -> None:
        self.hold(name)
        self.log.add(name, self.number)
        if name in self.fails:
            raise self.error(f"{name} of {self.number}")

    def fill(self, room: object) -> None:
        self.room = room
        self._stage("fill")

    def launch(self) -> None:
        self._stage("launch")

    def finish(self) -> None:
        self._stage("finish")

    def run(self, error: Exception | None = None) -> None:
        assert str(error).endswith(f" of {self.number}")
        self._stage("run")


def test_each_stage_takes_batches_in_order():
    log = Log()
    batches = [Fake(log, number) for number in range(20)]
    DevicePasses(DEVICE)(batches)
    for stage in ("fill", "launch", "finish"):
        assert log.of(stage) == [*range(20)]
    for number in range(20):
        assert [name for name, of in log.stages if of == number] == ["fill", "launch", "finish"]
    users: dict[int, int] = {}
    for place, (stage, number) in enumerate(log.stages):
        if stage == "fill":
            before = users.get(id(batches[number].room))
            assert before is None or ("finish", before) in log.stages[:place], "memory that a batch still uses"
            users[id(batches[number].room)] = number
    assert len(users) <= LAUNCHED + AHEAD


def test_no_more_batches_are_ahead_than_there_is_room_and_places_for():
    log, goes_on = Log(), threading.Event()
    passes = DevicePasses(DEVICE)
    batches = [Fake(log, number, hold=lambda stage: stage == "finish" and goes_on.wait(SECONDS)) for number in range(9)]
    with ThreadPoolExecutor(1) as thread:
        done = thread.submit(passes, batches)
        until = time.monotonic() + SECONDS
        while (len(log.of("fill")), len(log.of("launch"))) != (LAUNCHED + AHEAD, LAUNCHED):
            assert time.monotonic() < until
            time.sleep(0.001)
        time.sleep(0.05)  # in which more would begin
        assert (len(log.of("fill")), len(log.of("launch"))) == (LAUNCHED + AHEAD, LAUNCHED)
        goes_on.set()
        done.result(SECONDS)
    assert log.of("finish") == [*range(9)]


@pytest.mark.parametrize("stage", ["fill", "launch", "finish"])
def test_a_batch_that_fails_runs_again_with_no_other_on_the_device(stage):
    log = Log()
    DevicePasses(DEVICE)([Fake(log, number, fails=stage if number in (2, 3, 7) else "") for number in range(9)])
    assert sorted(log.of("run")) == [2, 3, 7]
    assert sorted({*log.of("finish"), *log.of("run")}) == [*range(9)]
    for place in (place for place, (name, _) in enumerate(log.stages) if name == "run"):
        before = log.stages[:place]
        ended = {number for name, number in before if name in ("finish", "run")}
        launched = {number for name, number in before if name == "launch"}
        assert {number for number in launched if number not in ended} <= {2, 3, 7}


@pytest.mark.parametrize("error", [ValueError, SystemExit, KeyboardInterrupt, BaseException])
def test_an_error_of_a_batch_that_runs_again_is_raised_once_all_have_ended(monkeypatch, error):
    log = Log()
    monkeypatch.setattr(Fake, "error", error)
    with pytest.raises(error, match="run of 3"):
        DevicePasses(DEVICE)([Fake(log, number, fails="launch run" if number in (3, 5) else "") for number in range(8)])
    assert sorted([*log.of("finish"), *log.of("run")]) == [*range(8)]


@pytest.mark.parametrize("ending", [1, 3])
def test_any_batches_fail_in_any_stage_of_several_blocks(ending):
    for seed in range(40):
        draw, log = random.Random(seed), Log()
        passes = DevicePasses(DEVICE, launched=1 + seed % 4, ending=ending)
        fails = [draw.choice(["", "", "fill", "launch", "finish"]) for _ in range(30)]
        batches = [Fake(log, number, fails=fails[number]) for number in range(30)]
        with ThreadPoolExecutor(3) as threads:
            for done in [threads.submit(passes, batches[first::3]) for first in range(3)]:
                done.result(SECONDS)
        assert sorted(log.of("run")) == [number for number in range(30) if fails[number]]
        assert sorted({*log.of("finish"), *log.of("run")}) == [*range(30)]


def test_the_first_batches_of_a_block_are_launched_before_the_last_ones_of_another_end():
    log, goes_on = Log(), threading.Event()
    passes = DevicePasses(DEVICE)
    last = Fake(log, 1, hold=lambda stage: stage == "finish" and goes_on.wait(SECONDS))
    with ThreadPoolExecutor(2) as threads:
        one = threads.submit(passes, [Fake(log, 0), last])
        until = time.monotonic() + SECONDS
        while log.of("finish") != [0]:
            assert time.monotonic() < until
            time.sleep(0.001)
        other = threads.submit(passes, [Fake(log, 2)])
        while 2 not in log.of("launch"):
            assert time.monotonic() < until
            time.sleep(0.001)
        assert not one.done()
        goes_on.set()
        one.result(SECONDS)
        other.result(SECONDS)


def digits(count: int) -> list[np.ndarray]:
    cells = pq.ParquetFile(min((DEMO / "audio").glob("*.parquet"))).read_row_group(0, ["audio"]).to_pylist()
    spoken = [decode(cell["audio"]["bytes"], sample_rate=16_000) for cell in cells[:6]]
    waves = [one[: 16_000 + 800 * (place % 9)] for place, one in enumerate(spoken)]
    return [(32767 * waves[place % len(waves)]).astype(np.int16) for place in range(count)]


def labels(device: str, waves: list[np.ndarray]) -> list[dict[str, object]]:
    return op_of(device)(block_of(waves))[0].to_pylist()


def op_of(device: str) -> Labelling:
    def outputs(loaded: LoadedCheckpoint) -> list[object]:
        return [one.op(loaded.summary, loaded) for one in OUTPUTS]

    return Labelling(str(CHECKPOINT), outputs, batch_seconds=2, device=device)


OUTPUTS = [raysp.Transcript(words=True), raysp.Embedding(), raysp.Signals()]


def test_labels_of_many_batches_are_those_of_the_cpu():
    assert_same(labels(NAME, digits(40)), labels("cpu", digits(40)))


def test_pinned_memory_is_made_once_for_all_batches(monkeypatch):
    made = []
    host_memory = crossing._host_memory

    def counting(shape, dtype, kind):
        made.append(shape)
        return host_memory(shape, dtype, kind)

    op, block = op_of(NAME), block_of(digits(40))
    monkeypatch.setattr(crossing, "_host_memory", counting)
    with counted() as counts:
        for _ in range(5):
            op(block)
    batches = sum(counts.copies_in.values())
    assert batches > 60
    rooms = LAUNCHED + AHEAD
    assert batches < len(made) <= batches + 4 * rooms  # of results, which are small, and while rooms grow


@pytest.mark.parametrize(("of", "name"), [(crossing, "wait_for"), (Event, "synchronize")])
def test_a_wait_that_is_missing_changes_labels(monkeypatch, of, name):
    """So a test with the stand-in device shows that each of them is there."""
    expected = labels("cpu", digits(12))
    monkeypatch.setattr(of, name, lambda *_: None)
    with pytest.raises((AssertionError, ValueError, IndexError)):
        assert_same(labels(NAME, digits(12)), expected)


def test_without_streams_labels_are_the_same(monkeypatch):
    expected = labels("cpu", digits(12))
    monkeypatch.setattr(crossing, "streams_of", lambda _: None)
    assert_same(labels(NAME, digits(12)), expected)


def test_a_device_that_fails_as_a_stream_is_entered_is_an_error_of_the_batch(monkeypatch):
    """A lost device may raise there, and no batch may be waited for without end."""
    log, passes = Log(), DevicePasses(DEVICE)

    class Lost:
        def __enter__(self) -> None:
            raise RuntimeError("the device is lost of 0")

        def __exit__(self, *_: object) -> None:
            pass

    monkeypatch.setattr(device_passes, "for_copies", lambda _: Lost())
    with ThreadPoolExecutor(1) as thread:
        thread.submit(passes, [Fake(log, 0)]).result(SECONDS)
    assert log.stages == [("run", 0)]
