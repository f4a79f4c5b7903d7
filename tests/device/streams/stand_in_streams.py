"""Streams and events of the stand-in device.

Kernels run when they are launched. A copy that does not block is made as late as the order of its stream and events
allows: before the next kernel of its stream, or once the host or another stream has waited for it. Until then its
destination holds no value of either tensor. So code that does not wait for a copy, or that changes a tensor while it is
being copied, gets other results.
"""

import contextlib
import threading
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import torch

from tests.device.streams.virtual_time import Costs

_lock = threading.RLock()
costs: Costs | None = None
"""What work takes, in a simulation of time."""


class Stream:
    """Work in order: copies that are not made yet, and waits for those of other streams."""

    ends = 0.0
    """Time at which the device has done the work, if it takes time."""

    def __init__(self, _device: object = None) -> None:
        self._left: deque[Callable[[], object]] = deque()
        self.given = self.done = 0

    def add(self, work: Callable[[], object]) -> None:
        with _lock:
            self._left.append(work)
            self.given += 1

    def finish(self, end: int | None = None) -> None:
        """Do the work before a place, or all of it."""
        with _lock:
            while self._left and (end is None or self.done < end):
                self.done += 1
                self._left.popleft()()

    def wait_event(self, event: "Event") -> None:
        stream, place = event.stream, event.place
        self.ends = max(self.ends, event.time)
        if stream is not None:
            self.add(lambda: stream.finish(place))

    def wait_stream(self, stream: "Stream") -> None:
        self.wait_event(stream.record_event())

    def record_event(self, event: "Event | None" = None) -> "Event":
        event = Event() if event is None else event
        event.record(self)
        return event

    def synchronize(self) -> None:
        self.record_event().synchronize()


class Event:
    """A place in the work of a stream."""

    waited: Callable[[], None] = staticmethod(lambda: None)
    """Called when the host waits."""

    def __init__(self, *, blocking: bool = False) -> None:
        self.stream: Stream | None = None
        self.place, self.time = 0, 0.0

    def record(self, stream: Stream | None = None) -> None:
        self.stream = current() if stream is None else stream
        self.place, self.time = self.stream.given, self.stream.ends

    def wait(self, stream: Stream | None = None) -> None:
        (current() if stream is None else stream).wait_event(self)

    def synchronize(self) -> None:
        self.waited()
        if costs is not None:
            costs.waited(self.time)
        if self.stream is not None:
            self.stream.finish(self.place)


_default = Stream()
_of_thread = threading.local()


def current(_device: object = None) -> Stream:
    """Return the stream of the calling thread."""
    found: Stream = getattr(_of_thread, "stream", _default)
    return found


@contextlib.contextmanager
def on(stream: Stream) -> Iterator[None]:
    """Give the work of the calling thread to a stream."""
    before = current()
    _of_thread.stream = stream
    try:
        yield
    finally:
        _of_thread.stream = before


def launched() -> None:
    """Run a kernel: what is before it in its stream is done."""
    stream = current()
    stream.finish()
    if costs is not None:
        costs.launched(stream)


def copied(num_bytes: int, *, is_pinned: bool, is_late: bool) -> None:
    """Give a copy to the stream of the calling thread, which waits for it unless it is made late."""
    stream = current()
    if costs is not None:
        costs.copied(stream, num_bytes, is_pinned=is_pinned)
    if not is_late:
        wait()


def wait() -> None:
    """Wait on the host for the stream of the calling thread."""
    stream = current()
    if costs is not None:
        costs.waited(stream.ends)
    stream.finish()


def copy_late(destination: torch.Tensor, source: torch.Tensor) -> None:
    """Copy one tensor of the CPU to another within the stream of the calling thread."""
    with torch.inference_mode():
        destination.fill_(_no_value(destination.dtype))
    current().add(lambda: _copy(destination, source))


def _copy(destination: torch.Tensor, source: torch.Tensor) -> None:
    with torch.inference_mode():
        destination.copy_(source)


def _no_value(dtype: torch.dtype) -> Any:
    if dtype.is_floating_point or dtype.is_complex:
        return float("nan")
    return True if dtype == torch.bool else torch.iinfo(dtype).max
