"""Graphs of an accelerator: kernels that are recorded once, and run again by one launch.

A graph reads and writes the memory that it was recorded with. Its owner holds that from outside, writes inputs into it,
and copies results from it before the next run. Recording runs no kernel; what the host may not do then raises an error,
after which the device still works.
"""

from collections.abc import Callable, Hashable
from threading import Lock
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from raysp.devices import Held, holding, is_accelerator, module_of

if TYPE_CHECKING:
    import torch

Result = TypeVar("Result")

RECURRENCES = 2
"""Times that work of like shapes runs, the last of which is recorded: the first makes constants and chooses kernels."""
MOST_SHAPES = 4096
"""Shapes that are counted."""

_recording = Lock()
"""torch records on one stream of its own, a graph at a time."""


def has_graphs(device: "torch.device | str") -> bool:
    """Return whether torch records graphs for a kind of device, as it does for CUDA."""
    return is_accelerator(device) and hasattr(module_of(device), "CUDAGraph")


def counted(seen: dict[Hashable, int], shapes: Hashable) -> int:
    """Count a use of shapes in `seen` and return the uses so far; at `MOST_SHAPES` shapes all counts are reset."""
    if len(seen) >= MOST_SHAPES:
        seen.clear()
    seen[shapes] = seen.get(shapes, 0) + 1
    return seen[shapes]


class GraphMemory:
    """Memory that graphs share for values between input and result; they run one after another, on one stream.

    Args:
        device: the device.
    """

    def __init__(self, device: "torch.device") -> None:
        self.module = module_of(device)
        self.pool: Any = self.module.graph_pool_handle()


class DeviceGraph(Generic[Result]):
    """Work of a device as a graph.

    Args:
        work: launches the kernels; it allocates results alone, and the host waits for nothing.
        held: tensors that functions keep on the device, which the work took before (`holding`).
        memory: memory that it shares with other graphs.
    """

    def __init__(self, work: Callable[[], Result], held: Held, memory: GraphMemory) -> None:
        self._held = held
        self._graph = memory.module.CUDAGraph()
        # Work of other threads goes on beside it, and may wait; kernels that they launch have other streams.
        mode = {"pool": memory.pool, "capture_error_mode": "thread_local"}
        with _recording, holding(held), memory.module.graph(self._graph, **mode):
            self.result = work()
        """Results in memory of the graph, with values after `run` alone."""

    def run(self) -> None:
        """Run the kernels by one launch, within the stream of the calling thread."""
        self._graph.replay()
