"""Passes on a device: batches in order, memory of the ring, failures alone on the device, and blocks without a gap."""

import random
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

import raysp
from raysp.ops.device_passes import AHEAD, LAUNCHED, DevicePasses
from tests.corpora import CHECKPOINT
from tests.device.conftest import assert_same, spoken
from tests.device.stand_in import NAME, counted, hooked

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

    def __init__(self, log: Log, number: int, fails: str = "") -> None:
        self.log, self.number, self.fails = log, number, fails

    def _stage(self, name: str) -> None:
        self.log.add(name, self.number)
        if name in self.fails:
            raise ValueError(f"{name} of {self.number}")

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


@pytest.mark.parametrize("ending", [1, 3])
def test_batches_that_fail_in_any_stage_run_again_with_no_other_on_the_device(ending):
    for seed in range(8):
        draw, log = random.Random(seed), Log()
        passes = DevicePasses(DEVICE, launched=1 + seed % 4, ending=ending)
        fails = [draw.choice(["", "", "fill", "launch", "finish"]) for _ in range(30)]
        batches = [Fake(log, number, fails=fails[number]) for number in range(30)]
        with ThreadPoolExecutor(3) as threads:
            for done in [threads.submit(passes, batches[first::3]) for first in range(3)]:
                done.result(SECONDS)
        failing = [number for number in range(30) if fails[number]]
        assert sorted(log.of("run")) == failing
        assert sorted({*log.of("finish"), *log.of("run")}) == [*range(30)]
        for place in (place for place, (name, _) in enumerate(log.stages) if name == "run"):
            ended = {number for name, number in log.stages[:place] if name in ("finish", "run")}
            launched = {number for name, number in log.stages[:place] if name == "launch"}
            assert launched - ended <= {*failing}


def digits(count: int) -> list[np.ndarray]:
    waves = [one[: 16_000 + 800 * place] for place, (one, _) in enumerate(spoken(6))]
    return [(32767 * waves[place % len(waves)]).astype(np.int16) for place in range(count)]


def labels(device: str, waves: list[np.ndarray]) -> list[dict[str, object]]:
    return labeller(device).arrays(waves, 16_000).to_pylist()


def labeller(device: str) -> raysp.Labeller:
    outputs = [raysp.Transcript(words=True), raysp.Embedding(), raysp.Signals()]
    label = raysp.Label(str(CHECKPOINT), outputs=outputs, batch_seconds=2, device=device, dtype="float32")
    return raysp.Labeller([raysp.Decode(), label])


def test_labels_of_many_batches_are_those_of_the_cpu_and_pinned_memory_is_made_once_for_all():
    waves, on_device = digits(20), labeller(NAME)
    assert_same(on_device.arrays(waves, 16_000).to_pylist(), labels("cpu", waves))
    with counted() as counts:
        for _ in range(5):
            on_device.arrays(waves, 16_000)
    batches, made = sum(counts.copies_in.values()), sum(counts.pinned.values())
    assert batches > 40
    assert batches < made <= batches + 4 * (LAUNCHED + AHEAD)  # of results, which are small, and while rooms grow


def test_a_device_that_fails_as_a_stream_is_entered_is_an_error_of_the_batch():
    """A lost device may raise there, and no batch may be waited for without end."""

    def lost() -> None:
        raise RuntimeError("the device is lost of 0")

    passes = DevicePasses(DEVICE)
    with hooked("stream", lost), ThreadPoolExecutor(1) as thread:
        done = thread.submit(passes, [Fake(Log(), 0)])
        with pytest.raises(RuntimeError, match="the device is lost"):
            done.result(SECONDS)
