"""Graphs of the stand-in device refuse what CUDA refuses, and read the memory that they were recorded with."""

import gc
import threading
from collections.abc import Callable

import pytest
import torch

from tests.device.stand_in import NAME, Module, counted
from tests.device.streams.stand_in_graphs import FREED, REFUSED, VOID, Graph
from tests.device.streams.stand_in_streams import Stream


def captured(
    work: Callable[[], torch.Tensor], graph: Graph | None = None, **options: object
) -> tuple[Graph, torch.Tensor]:
    graph = Module.CUDAGraph() if graph is None else graph
    with Module.graph(graph, **options):
        result = work()
    return graph, result


def goes_on(x: torch.Tensor) -> torch.Tensor:
    """Wait within a capture, as if nothing had happened."""
    with pytest.raises(RuntimeError, match=REFUSED):
        x.tolist()
    with pytest.raises(RuntimeError, match=VOID):
        x + 1
    return x


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_a_replay_reads_what_stands_in_its_memory_now_and_is_one_launch(mode):
    with mode():
        x, w = torch.ones(3, 4, device=NAME), torch.randn(5, 4).to(NAME)
        graph, y = captured(lambda: torch.nn.functional.linear(x, w)[:, 1:].relu().add_(1.0))
        assert graph.num_kernels == 3
        for value in (2.0, -3.0):
            x.fill_(value)
            with counted() as counts:
                graph.replay()
            assert counts.launches == 1
            torch.testing.assert_close(y.cpu(), torch.nn.functional.linear(x.cpu(), w.cpu())[:, 1:].relu() + 1)


def test_a_capture_runs_no_kernel():
    x = torch.ones(2, device=NAME)
    graph, y = captured(lambda: x.add_(1) * 2)
    assert x.tolist() == [1, 1]
    assert torch.isnan(y).all().item()
    graph.replay()
    assert (x.tolist(), y.tolist()) == ([2, 2], [4, 4])


@pytest.mark.parametrize(
    "work",
    [
        lambda x: x.sum().item(),
        lambda x: x.nonzero(),
        lambda x: x.cpu(),
        lambda x: x + torch.ones(2).to(NAME),
        lambda x: x[torch.tensor([1])],
        lambda _: torch.empty(3, pin_memory=True),
        lambda _: Module.synchronize(),
        lambda _: Module.Event().synchronize(),
        lambda _: Module.current_stream().wait_stream(Stream()),
    ],
)
def test_what_the_host_would_wait_for_is_refused_and_voids_the_capture(work):
    x, graph = torch.ones(2, device=NAME), Module.CUDAGraph()
    with pytest.raises(RuntimeError, match=REFUSED), Module.graph(graph):
        work(x)
    with pytest.raises(RuntimeError, match=VOID):
        captured(lambda: goes_on(x), graph=graph)
    with pytest.raises(RuntimeError, match="without a preceding"):
        graph.replay()
    assert (x + 1).tolist() == [2, 2]


def test_numbers_of_the_host_are_those_of_the_capture():
    x, number = torch.ones(2, device=NAME), torch.tensor(3.0)
    graph, y = captured(lambda: x * number)
    number.fill_(5)
    graph.replay()
    assert y.tolist() == [3, 3]


def test_memory_that_was_freed_outside_is_not_read():
    outside = [torch.ones(2, device=NAME)]
    graph, y = captured(lambda: outside[0][:1] * 2)
    graph.replay()
    outside.clear()
    gc.collect()  # views of the stand-in are in circles
    with pytest.raises(RuntimeError, match=FREED):
        graph.replay()
    assert y.tolist() == [2]


def test_a_graph_that_is_dropped_frees_its_memory():
    def place(tensor: torch.Tensor) -> int:
        return tensor.inner.untyped_storage()._weak_ref()

    places = []
    x = torch.ones(2, device=NAME)

    def work() -> torch.Tensor:
        between = x * 2
        places.append(place(between))
        return between + 1

    graph, y = captured(work)
    places.append(place(y))
    del y
    there = [torch.UntypedStorage._new_with_weak_ptr(one) is not None for one in places]
    graph.reset()
    gc.collect()
    assert (there, [torch.UntypedStorage._new_with_weak_ptr(one) for one in places]) == ([True] * 2, [None] * 2)


def test_graphs_of_a_pool_have_its_memory_one_after_another():
    x, pool = torch.ones(2, device=NAME), Module.graph_pool_handle()
    one, y = captured(lambda: x * 2, pool=pool)
    other, z = captured(lambda: x * 3, pool=pool)
    one.replay()
    kept = y.clone()
    other.replay()
    assert (kept.tolist(), z.tolist()) == ([2, 2], [3, 3])
    assert torch.isnan(y).all().item()
    one.replay()
    assert y.tolist() == [2, 2]


@pytest.mark.parametrize(("mode", "is_void"), [("global", True), ("thread_local", False)])
def test_another_thread_may_wait_beside_a_capture_of_its_thread_alone(mode, is_void):
    x, errors = torch.ones(2, device=NAME), []

    def wait() -> None:
        try:
            (x + 1).sum().item()
        except RuntimeError as error:
            errors.append(str(error))

    def work() -> torch.Tensor:
        thread = threading.Thread(target=wait)
        thread.start()
        thread.join()
        return x * 2

    if is_void:
        with pytest.raises(RuntimeError, match=VOID):
            captured(work, capture_error_mode=mode)
    else:
        graph, _ = captured(work, capture_error_mode=mode)
        assert graph.num_kernels == 1  # work of the other thread has another stream
    assert errors == [REFUSED] * is_void
