"""The stand-in refuses what a GPU refuses, and counts what costs time there."""

import pytest
import torch

from tests.device.stand_in import NAME, counted


def on_device(*shape: int) -> torch.Tensor:
    return torch.ones(shape).to(NAME)


def test_tensors_of_two_devices_cannot_be_mixed_and_results_are_those_of_the_cpu():
    x, w = torch.randn(3, 4), torch.randn(4, 5)
    found = (x.to(NAME) @ w.to(NAME)).relu()
    assert found.device == torch.device(NAME, 0)
    torch.testing.assert_close(found.cpu(), (x @ w).relu())
    with pytest.raises(RuntimeError, match=r"same device.*add.*\(2, 3\)"):
        on_device(2, 3) + torch.ones(2, 3)
    assert (on_device(2, 3) + torch.tensor(1.0)).sum() == 12  # one number of the CPU is taken, as on a GPU


def test_waits_and_copies_are_counted():
    x = on_device(2, 4)
    with counted() as counts:
        y = (x + 1).view(4, 2)[:2]
        y.sum().item()
        y.cpu()
        torch.zeros(3, dtype=torch.int16).to(NAME)
        x[x > 0]
    assert {key.partition(" at ")[0]: count for key, count in counts.waits.items()} == {
        "aten._local_scalar_dense": 1,
        "copy to the host": 1,
        "aten.index": 1,
    }
    sums = [sum(one.values()) for one in (counts.copies_in, counts.blocking, counts.copies_out)]
    assert sums == [1, 1, 1]


def test_a_copy_is_made_once_the_host_or_a_kernel_waits_for_it():
    pinned = torch.empty(3, pin_memory=True).fill_(2)
    late = pinned.to(NAME, non_blocking=True)
    assert late.inner.isnan().all()
    assert (late + 1).tolist() == [3, 3, 3]
    out = torch.empty(3, pin_memory=True)
    with counted() as counts:
        out.copy_(late, non_blocking=True)
        assert out.isnan().all()
        torch.standin.current_stream().record_event(torch.standin.Event()).synchronize()
    assert out.tolist() == [2, 2, 2]
    assert (sum(counts.waits.values()), sum(counts.copies_out.values())) == (1, 1)
