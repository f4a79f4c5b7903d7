"""Values that cross on streams of their own: each copy waits for what it needs, and the host for that copy alone."""

import numpy as np
import pytest
import torch

from raysp import crossing
from raysp.crossing import Fetching, fetch
from raysp.models.encoder import disentangled
from raysp.ops import measuring
from tests.device.stand_in import NAME, Module, counted
from tests.device.streams import stand_in_streams
from tests.device.streams.stand_in_streams import Stream


def sent(values: list[float]) -> torch.Tensor:
    """Return a tensor of the device whose copy may not be made yet."""
    pinned = torch.empty(len(values), pin_memory=True)
    pinned[:] = torch.tensor(values)
    return pinned.to(NAME, non_blocking=True)


@pytest.fixture
def module(monkeypatch):
    """Module of torch for the device, to be changed; its streams are made anew."""
    crossing.streams_of.cache_clear()
    yield monkeypatch
    crossing.streams_of.cache_clear()


def test_a_copy_that_does_not_block_is_made_late():
    pinned = torch.empty(2, pin_memory=True).fill_(1)
    on_device = pinned.to(NAME, non_blocking=True)
    pinned[0] = 5  # too early
    assert (on_device + 0).cpu().tolist() == [5, 1]


def test_another_stream_that_does_not_wait_for_a_copy_finds_no_values():
    copies, passes = Stream(), Stream()
    with stand_in_streams.on(copies):
        x = sent([1.0, 2.0])
        event = copies.record_event()
    with stand_in_streams.on(passes):
        assert torch.isnan(x + 0).all().item()
        passes.wait_event(event)
        assert (x + 0).tolist() == [1, 2]


@pytest.mark.parametrize(
    "kept",
    [
        lambda device: crossing.constant((11, 7, 5), device),
        lambda device: measuring._response(16_000, 32, device),
        lambda device: disentangled._rows_that_occur((40, 8, 64), 100, device)[2],
    ],
)
def test_a_tensor_that_is_kept_is_there_for_any_stream(kept):
    with stand_in_streams.on(Stream()):
        x = kept(torch.device(NAME))
    with stand_in_streams.on(Stream()):
        there = (x + 0).cpu()
    assert there.equal(kept(torch.device("cpu")))


def test_tensors_that_are_kept_can_be_forgotten():
    kept = crossing.constant((1, 2), torch.device(NAME))
    assert crossing.constant((1, 2), torch.device(NAME)) is kept
    crossing.constant.cache_clear()  # mutants are compared from the first batch on
    assert crossing.constant((1, 2), torch.device(NAME)) is not kept


def test_values_are_fetched_behind_the_work_that_makes_them():
    assert fetch(sent([1.0, 2.0]))[0].tolist() == [1, 2]
    x = sent([3.0, 4.0])
    one, other = fetch(x, torch.tensor([7], device=NAME))
    assert (one.tolist(), other.tolist()) == ([3, 4], [7])


def test_the_host_waits_when_it_takes_the_values_and_once():
    x, y = torch.ones(3, device=NAME), torch.zeros(2, dtype=torch.int16, device=NAME)
    with counted() as counts:
        fetching = Fetching(x, y)
    assert (sum(counts.copies_out.values()), sum(counts.waits.values())) == (1, 0)
    with counted() as counts:
        found = fetching.arrays()
    assert [one.tolist() for one in found] == [[1, 1, 1], [0, 0]]
    assert [one.dtype for one in found] == [np.float32, np.int16]
    assert (sum(counts.copies_out.values()), sum(counts.waits.values())) == (0, 1)


def test_work_behind_a_copy_is_not_waited_for():
    x = torch.ones(2, device=NAME)
    fetching = Fetching(x)
    later = sent([4.0])
    fetching.arrays()
    assert stand_in_streams.current().done < stand_in_streams.current().given
    assert fetch(later)[0].tolist() == [4]


@pytest.mark.parametrize("missing", ["Stream", "blocking"])
def test_kinds_of_devices_with_less_give_the_same_values(module, missing):
    if missing == "Stream":
        module.delattr(Module, "Stream")
        assert crossing.streams_of(torch.device(NAME)) is None
    else:
        module.setattr(Module, "Event", staticmethod(lambda: stand_in_streams.Event()))
    x = torch.arange(3, device=NAME)
    with crossing.for_passes(x.device):
        assert fetch(x, x + 1)[1].tolist() == [1, 2, 3]


def test_memory_that_cannot_be_pinned_is_filled_at_once(monkeypatch):
    monkeypatch.setattr(crossing, "_not_pinnable", {NAME})
    with counted() as counts:
        assert fetch(torch.arange(3, device=NAME))[0].tolist() == [0, 1, 2]
    assert [one.partition(" at ")[0] for one in counts.waits] == ["copy to the host"]
