"""Graphs of the stand-in device: kernels that are recorded, and run again by one launch.

As on CUDA a capture runs no kernel: once it has ended, memory that its kernels wrote holds no value until a replay. A
replay reads and writes the same memory, whatever stands there now. Within a capture the host can neither wait nor copy
from pageable memory, and a stream cannot wait for work outside; the error makes the capture void. Memory from outside
of the capture belongs to its owner: a replay after it was freed raises, where a GPU would read what stands there then.

Graphs of a pool share memory: a replay of one leaves no value of another there.

Kernels that another thread launches on the capturing stream would be recorded too. In the mode "global" no other thread
may wait either; in "thread_local" they may.
"""

import contextlib
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch

from tests.device.streams import stand_in_streams

REFUSED = "CUDA error: operation not permitted when stream is capturing"
VOID = "CUDA error: operation failed due to a previous error during capture"
FREED = "a graph reads memory from outside of its capture that was freed since"


@dataclass
class Outside:
    """A tensor of the CPU in memory that the graph does not own."""

    weak: int
    dtype: torch.dtype
    geometry: tuple[int, torch.Size, tuple[int, ...]]

    @classmethod
    def of(cls, inner: torch.Tensor) -> "Outside":
        place = (inner.storage_offset(), inner.shape, inner.stride())
        return cls(inner.untyped_storage()._weak_ref(), inner.dtype, place)

    def tensor(self) -> torch.Tensor:
        storage = torch.UntypedStorage._new_with_weak_ptr(self.weak)
        if storage is None:
            raise RuntimeError(FREED)
        return torch.empty(0, dtype=self.dtype).set_(storage, *self.geometry)

    def __del__(self, free: Callable[[int], None] = torch.UntypedStorage._free_weak_ref) -> None:
        free(self.weak)


@dataclass
class Step:
    """A kernel: its function, arguments of the CPU, and the tensors that it writes its results to."""

    run: Callable[..., Any]
    args: Any
    options: dict[str, Any]
    results: list[torch.Tensor]


@dataclass
class Capture:
    """What is recorded."""

    thread: int
    mode: str
    steps: list[Step] = field(default_factory=list)
    made: set[int] = field(default_factory=set)
    """Storages that were allocated within the capture."""
    before: list[tuple[torch.Tensor, torch.Tensor]] = field(default_factory=list)
    """Tensors from outside that kernels write to, with their values."""
    is_void: bool = False

    def keep_before(self, tensors: list[torch.Tensor]) -> None:
        """Note the values of tensors before a kernel that may write to them."""
        known = [one for one, _ in self.before]
        for inner in tensors:
            if inner.untyped_storage()._cdata not in self.made and not any(inner is one for one in known):
                self.before.append((inner, inner.clone()))

    def add(self, run: Callable[..., Any], args: Any, options: dict[str, Any], result: Any) -> None:
        """Note a kernel."""
        results = _tensors(result)
        given = {one.untyped_storage()._cdata for one in _tensors((args, options))}
        self.made |= {one.untyped_storage()._cdata for one in results} - given
        self.steps.append(Step(run, self._owned(args), self._owned(options), [self._owned(one) for one in results]))

    def fixed(self, number: torch.Tensor) -> torch.Tensor:
        """Return a number of the host, which stays that of the capture."""
        copied = number.clone()
        self.made.add(copied.untyped_storage()._cdata)
        return copied

    def allocated(self, result: Any) -> None:
        """Note memory that was allocated without a kernel, or a view."""
        self.made |= {one.untyped_storage()._cdata for one in _tensors(result)}
        self.steps.append(Step(lambda: (), (), {}, _tensors(result)))  # held: the pool of the graph

    def _owned(self, x: Any) -> Any:
        if isinstance(x, torch.Tensor):
            return x if x.untyped_storage()._cdata in self.made else Outside.of(x)
        if isinstance(x, dict):
            return {key: self._owned(one) for key, one in x.items()}
        return type(x)(map(self._owned, x)) if isinstance(x, list | tuple) else x

    def undo(self) -> None:
        """Leave memory as a capture does: no kernel ran."""
        with torch.inference_mode():
            for inner, values in reversed(self.before):
                inner.copy_(values)
            _lose(self.steps)


def _lose(steps: Iterable[Step]) -> None:
    """Leave no value in memory that kernels of a graph allocated."""
    for result in (one for step in steps for one in step.results if isinstance(one, torch.Tensor)):
        result.untyped_storage().fill_(255)  # NaN, and -1 of integers


class Pool:
    """Memory that graphs share: a replay of one leaves no value of another there."""

    def __init__(self) -> None:
        self.graphs: weakref.WeakSet[Graph] = weakref.WeakSet()


def _tensors(x: Any) -> list[torch.Tensor]:
    if isinstance(x, torch.Tensor):
        return [x]
    values = x.values() if isinstance(x, dict) else x if isinstance(x, list | tuple) else ()
    return [tensor for one in values for tensor in _tensors(one)]


class Graph:
    """`torch.cuda.CUDAGraph` of the stand-in."""

    replayed: Callable[[int], None] = staticmethod(lambda _kernels: None)
    """Called at each replay with the number of its kernels."""

    def __init__(self, keep_graph: bool = False) -> None:
        self.steps: list[Step] | None = None
        self.pool: Pool | None = None

    @property
    def num_kernels(self) -> int:
        return sum(bool(step.args or step.options) for step in self.steps or ())

    def replay(self) -> None:
        refuse_while_capturing()
        if self.steps is None:
            raise RuntimeError("called replay without a preceding successful capture")
        stand_in_streams.launched(self.num_kernels)
        self.replayed(self.num_kernels)
        with torch.inference_mode():
            for other in () if self.pool is None else self.pool.graphs - {self}:
                _lose(other.steps or ())
            for step in self.steps:
                _run_again(step)

    def reset(self) -> None:
        self.steps = None


def _run_again(step: Step) -> None:
    found = step.run(*_there(step.args), **_there(step.options))
    for old, new in zip(map(_there, step.results), found if isinstance(found, list | tuple) else [found], strict=False):
        if old.data_ptr() != new.data_ptr():
            old.copy_(new)


def _there(x: Any) -> Any:
    if isinstance(x, Outside):
        return x.tensor()
    if isinstance(x, dict):
        return {key: _there(one) for key, one in x.items()}
    return type(x)(map(_there, x)) if isinstance(x, list | tuple) else x


_capturing: dict[stand_in_streams.Stream, Capture] = {}


@contextlib.contextmanager
def graph(
    cuda_graph: Graph, pool: Pool | None = None, stream: Any = None, capture_error_mode: str = "global"
) -> Iterator[None]:
    """Record the kernels of the block, as `torch.cuda.graph` does."""
    refuse_while_capturing()
    stand_in_streams.wait()
    stream = stand_in_streams.Stream() if stream is None else stream
    capture = _capturing[stream] = Capture(threading.get_ident(), capture_error_mode)
    try:
        with stand_in_streams.on(stream):
            yield
    finally:
        del _capturing[stream]
        capture.undo()
    if capture.is_void:
        raise RuntimeError(VOID)
    cuda_graph.steps, cuda_graph.pool = capture.steps, pool
    if pool is not None:
        pool.graphs.add(cuda_graph)


def current() -> Capture | None:
    """Return the capture of the stream of the calling thread."""
    found = _capturing.get(stand_in_streams.current()) if _capturing else None
    if found is not None and found.is_void:
        raise RuntimeError(VOID)
    return found


def refuse_while_capturing() -> None:
    """Raise if the calling thread may do nothing now that a capture forbids, which is then void."""
    for stream, capture in [*_capturing.items()]:
        is_own = capture.thread == threading.get_ident() or stream is stand_in_streams.current()
        if is_own or capture.mode == "global":
            capture.is_void = True
            raise RuntimeError(REFUSED)
