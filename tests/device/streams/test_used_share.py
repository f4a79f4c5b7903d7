"""Share of a device that labelling keeps busy, in virtual time: its threads, streams, copies and Python's lock.

The code that runs is that of labelling, on the stand-in device with a small model, whose kernels and launches stand for
those of large ones. A batch has 600 padded seconds, whose time on an H100 is computed from FLOPs and bytes; a launch
takes 5 us of the host, and copies run at 25 GB/s from pinned memory and at 6 from other. Nothing of it was measured on
a card. FastConformer is bound by the host: launches, padding and columns take 10.8 ms a batch, all under one lock.
"""

import itertools
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import pytest

import raysp
from benchmarks.inputs import bare_batches
from raysp import crossing
from raysp.models import LoadedCheckpoint, load_checkpoint
from raysp.ops import device_passes
from raysp.ops import labelling as labelling_module
from raysp.ops.labelling import Labelling
from tests.corpora import CHECKPOINT
from tests.device.crossing_cases import spoken
from tests.device.stand_in import NAME, counted
from tests.device.streams import stand_in_streams
from tests.device.streams.virtual_time import Clock, Costs, Executor, Queue
from tests.ops.test_labelling import block_of
from tests.soaked import some


class Model(NamedTuple):
    device_ms: float
    launches: int


MODELS = {
    "unispeech-large 315M": Model(62.5, 575),
    "SEW-D base": Model(19.6, 730),
    "FastConformer 110M": Model(10.6, 964),
}
LAUNCH_MS, PAD_MS, COLUMNS_MS = 0.005, 3.0, 3.0
BATCH_GIGABYTES = 19.2e-3
"""Bytes of 600 s of int16."""
BLOCKS, BATCHES = 15, 4
Run = Callable[..., float]


def op_of() -> Labelling:
    def outputs(loaded: LoadedCheckpoint) -> list[object]:
        return [raysp.Transcript().op(loaded.summary, loaded)]

    return Labelling(str(CHECKPOINT), outputs, batch_seconds=1, device=NAME)


def waves(batches: int) -> list[np.ndarray]:
    return [np.random.default_rng(0).integers(-9000, 9000, 8000).astype(np.int16)] * 2 * batches


@pytest.fixture(scope="module")
def of_a_batch() -> tuple[int, int, int]:
    """Launches of a batch of the small model, those of the bare model, and bytes."""
    op, block = op_of(), block_of(waves(1))
    op(block)
    with counted() as counts:
        op(block)
    with counted() as bare:
        bare_batches.run(op.loaded, [waves(1)], op.passes)
    return counts.launches, bare.launches, counts.bytes_in


@pytest.fixture
def run(monkeypatch, of_a_batch) -> Iterator[Run]:
    """Return the function that labels blocks in virtual time, and returns the used share of the device."""
    clock = Clock()
    crossing.streams_of.cache_clear()
    monkeypatch.setattr(device_passes, "SimpleQueue", lambda: Queue(clock))
    _slower(monkeypatch, labelling_module, "fill", clock, PAD_MS)
    _slower(monkeypatch, bare_batches, "fill", clock, PAD_MS)
    _slower(monkeypatch, Labelling, "store", clock, COLUMNS_MS)
    _slower(monkeypatch, bare_batches, "collapsed", clock, COLUMNS_MS)
    of_labelling, of_bare, num_bytes = of_a_batch

    def used(
        model: Model, *, blocks_in_hand: int = 2, threads: int = 3, is_bare: bool = False, batches: int = BATCHES
    ) -> float:
        made = itertools.cycle([Executor(clock, 1) for _ in range(threads)])
        monkeypatch.setattr(device_passes, "ThreadPoolExecutor", lambda number, _: next(made))
        op = op_of()
        given = [op.prepare(block_of(waves(batches))) for _ in range(BLOCKS * BATCHES // batches)]
        launches = of_bare if is_bare else of_labelling
        costs = Costs(
            clock,
            kernel=model.device_ms / launches,
            launch=LAUNCH_MS * model.launches / launches,
            gigabytes=BATCH_GIGABYTES / num_bytes,
        )
        monkeypatch.setattr(stand_in_streams, "costs", costs)
        if is_bare:
            clock.start(lambda: bare_batches.run(op.loaded, [waves(1)] * (BLOCKS * BATCHES), op.passes))
        for first in () if is_bare else range(blocks_in_hand):
            clock.start(lambda of_thread=given[first::blocks_in_hand]: [*map(op.run, of_thread)])
        began = clock.now
        seconds = clock.run() - began
        monkeypatch.setattr(stand_in_streams, "costs", None)
        assert is_bare or {row["status"] for one in given for row in op.table(one).to_pylist()} == {"ok"}
        assert costs.busy == pytest.approx(BLOCKS * BATCHES * model.device_ms, rel=1e-3)
        return costs.busy / seconds

    yield used
    clock.close()
    crossing.streams_of.cache_clear()


def _slower(monkeypatch: pytest.MonkeyPatch, of: object, name: str, clock: Clock, milliseconds: float) -> None:
    """Let a function take Python's lock for some time."""
    function = getattr(of, name)

    def slow(*arguments: object, **options: object) -> object:
        clock.work(milliseconds)
        return function(*arguments, **options)

    monkeypatch.setattr(of, name, slow)


@pytest.mark.parametrize("name", MODELS)
def test_the_device_is_used_to_97_percent(run, name):
    assert run(MODELS[name]) >= 0.97


@pytest.mark.parametrize("name", some(MODELS, "FastConformer 110M"))
def test_the_bare_model_uses_as_much_of_it_so_that_ratios_to_it_are_true(run, name):
    assert run(MODELS[name], is_bare=True) >= 0.97


def test_the_bare_model_on_the_device_has_the_tokens_of_the_cpu():
    found = [
        bare_batches.run(loaded, [spoken()[0][:2], spoken()[0][2:6]] * 4, bare_batches.passes_of(loaded.device), 0)
        for loaded in (load_checkpoint(CHECKPOINT, device=device) for device in (NAME, "cpu"))
    ]
    assert found[0] == found[1]
    assert len(found[0]) == 24
    assert all(found[0])


@pytest.mark.parametrize("name", some(MODELS, "FastConformer 110M"))
def test_blocks_of_two_batches_use_as_much_of_it_as_those_of_four(run, name):
    assert run(MODELS[name], batches=2) >= 0.97


def test_blocks_that_are_drained_use_less_of_it(run):
    assert run(MODELS["FastConformer 110M"], blocks_in_hand=1) < 0.9


def test_one_thread_for_all_stages_uses_less_of_it(run):
    assert run(MODELS["FastConformer 110M"], threads=1) < 0.65
