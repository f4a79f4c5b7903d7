"""Streams of an accelerator: one for copies to it, one for passes, and one for copies of results.

A stream does its work in order, and several streams work at the same time. An event marks a place in the work of a
stream: another stream, or the host, waits for the work before it. torch gives memory that is freed to later work of the
stream that it was allocated for, so tensors that another stream reads are held until the event behind that work.
"""

import functools
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol, cast

import torch

from raysp.devices import is_accelerator, module_of


class Event(Protocol):
    """A place in the work of a stream."""

    def synchronize(self) -> None:
        """Wait on the host until the work before is done."""
        ...


class Stream(Protocol):
    """Work of a device in order."""

    def wait_event(self, event: Event) -> None:
        """Begin later work of this stream after the work before an event."""
        ...

    def wait_stream(self, stream: "Stream") -> None:
        """Begin later work of this stream after the present work of another one."""
        ...

    def record_event(self, event: Event) -> Event:
        """Return an event, which now marks the end of the present work."""
        ...


class Streams:
    """The three streams of a device, which all labelling of a process shares."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._module = module_of(device)
        self.copies, self.passes, self.results = (cast("Stream", self._module.Stream(device)) for _ in range(3))

    def on(self, stream: Stream) -> AbstractContextManager[object]:
        """Send the work of the calling thread to a stream within the block."""
        return cast("AbstractContextManager[object]", self._module.stream(stream))

    def current(self) -> Stream:
        """Return the stream of the calling thread."""
        return cast("Stream", self._module.current_stream(self._device))

    def mark(self, stream: Stream) -> Event:
        """Return an event behind the present work of a stream. A thread that waits for it leaves its core to others."""
        try:
            event = self._module.Event(blocking=True)
        except TypeError:  # on some kinds of devices threads always wait like this, or never
            event = self._module.Event()
        return stream.record_event(event)


@functools.cache
def streams_of(device: torch.device) -> Streams | None:
    """Return the streams of a device; None for a CPU, and for kinds of devices for which torch has no streams."""
    has_streams = is_accelerator(device) and hasattr(module_of(device), "Stream")
    return Streams(device) if has_streams else None


def for_copies(device: torch.device) -> AbstractContextManager[object]:
    """Send the work of the calling thread to the stream of copies within the block, if the device has one."""
    streams = streams_of(device)
    return nullcontext() if streams is None else streams.on(streams.copies)


def for_passes(device: torch.device) -> AbstractContextManager[object]:
    """Send the work of the calling thread to the stream of passes within the block, if the device has one."""
    streams = streams_of(device)
    return nullcontext() if streams is None else streams.on(streams.passes)


def mark(device: torch.device) -> Event | None:
    """Return an event behind the present work of the calling thread's stream; None without streams."""
    streams = streams_of(device)
    return None if streams is None else streams.mark(streams.current())


def wait_for(event: Event | None, device: torch.device) -> None:
    """Begin later work of the calling thread's stream after an event."""
    streams = streams_of(device)
    if streams is not None and event is not None:
        streams.current().wait_event(event)
