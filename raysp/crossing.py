"""Values that cross between a device and the host, and the streams of the device that copy and compute.

On a GPU every read of a value by the host waits for all work that was given to the device before. So the values of a
pass cross together: several tensors are packed into one buffer of bytes on the device, and one copy to pinned memory
brings them, on a stream of its own: the host waits for that copy, and not for later work. On a
CPU nothing is copied: arrays and tensors share their memory.

No other code that labels or trains reads a tensor of a device (`.cpu()`, `.numpy()`, `.tolist()`, `.item()`, `bool()`).
"""

import functools
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol, TypeAlias, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from raysp.devices import is_accelerator, kind_of, module_of

Array: TypeAlias = npt.NDArray[Any]
Shape: TypeAlias = tuple[int, ...]

ALIGNMENT = 8
"""Bytes at whose multiples the parts of a buffer begin."""
_not_pinnable: set[str] = set()
"""Kinds of devices for which torch pins no memory here."""


class Fetching:
    """Values of tensors on their way to the host, in one copy that begins at once.

    bfloat16 is not a type of arrays: such tensors raise TypeError.
    """

    def __init__(self, *tensors: Tensor) -> None:
        self._tensors = tensors
        on_device = [tensor for tensor in tensors if tensor.device.type != "cpu"]
        self._crossing = _Crossing(on_device) if on_device else None

    def arrays(self) -> list[Array]:
        """Return the values as arrays of their types, once they are there."""
        arrays = iter(self._crossing.arrays() if self._crossing else ())
        return [tensor.detach().numpy() if tensor.device.type == "cpu" else next(arrays) for tensor in self._tensors]


def fetch(*tensors: Tensor) -> list[Array]:
    """Return the values of tensors as arrays of their types, with one copy and one wait for all on a device.

    bfloat16 is not a type of arrays: such tensors raise TypeError.
    """
    return Fetching(*tensors).arrays()


def fetch_recordings(waves: Tensor, num_samples: Tensor) -> list[Array]:
    """Return the samples of each row of a batch of waveforms, without padding."""
    rows, lengths = fetch(waves, num_samples)
    return [row[:length] for row, length in zip(rows, lengths.tolist(), strict=True)]


def can_cross(tensor: Tensor) -> bool:
    """Return whether arrays have the type of a tensor, and it has all its values."""
    return tensor.dtype in _NAMES and tensor.layout == torch.strided and not tensor.is_meta


def number(value: Tensor) -> int | float | bool:
    """Return a single value, for which the host waits: a search that depends on it cannot go on before."""
    return value.item()


class Room:
    """Pinned memory of the host, and as much of a device, for the inputs of one batch after another."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._on_host = self._on_device = torch.empty(0, dtype=torch.uint8)

    def take(self, num_bytes: int) -> tuple[Tensor, Tensor]:
        """Return `num_bytes` on the host and on the device, which the previous batch no longer uses."""
        if num_bytes > self._on_host.numel():
            with torch.inference_mode(False):
                self._on_host = _host_memory((num_bytes,), torch.uint8, self._device.type)
                self._on_device = torch.empty(num_bytes, dtype=torch.uint8, device=self._device)
        return self._on_host[:num_bytes], self._on_device[:num_bytes]


class Sending:
    """Arrays that are filled on the host, and become tensors of a device with one copy.

    Args:
        device: the device.
        parts: type and shape of each array.
        room: memory for them; None: new memory. On a CPU memory is always new.
    """

    def __init__(self, device: torch.device, *parts: tuple[npt.DTypeLike, Shape], room: Room | None = None) -> None:
        self.device = device
        self.is_zero = device.type == "cpu"
        """Whether arrays hold zeros before they are filled, and not any values."""
        if self.is_zero:
            self.arrays: list[Array] = [np.zeros(shape, dtype) for dtype, shape in parts]
            return
        edges = _edges([np.dtype(dtype).itemsize * int(np.prod(shape)) for dtype, shape in parts])
        self._sent: Tensor | None = None
        if room is None:
            self._buffer = _host_memory((edges[-1],), torch.uint8, device.type)
        else:
            self._buffer, self._sent = room.take(edges[-1])
        self._event: Event | None = None
        self._is_started = False
        values = self._buffer.numpy()
        self.arrays = [
            values[first : first + np.dtype(dtype).itemsize * int(np.prod(shape))].view(dtype).reshape(shape)
            for first, (dtype, shape) in zip(edges, parts, strict=False)
        ]

    def start(self) -> None:
        """Begin the copy of the filled arrays, within the stream of the calling thread."""
        if self.is_zero or self._is_started:
            return
        can_pin = self.device.type not in _not_pinnable
        if self._sent is None:
            self._sent = self._buffer.to(self.device, non_blocking=can_pin)
        else:
            self._sent.copy_(self._buffer, non_blocking=can_pin)
        self._event, self._is_started = mark(self.device), True

    def tensors(self) -> list[Tensor]:
        """Return the tensors on the device; work of this stream waits for their copy, and the host does not."""
        if self.is_zero:
            return [torch.from_numpy(array).to(self.device) for array in self.arrays]
        self.start()
        wait_for(self._event, self.device)
        assert self._sent is not None
        edges = _edges([array.nbytes for array in self.arrays])
        return [
            self._sent[first : first + array.nbytes].view(_DTYPES[array.dtype.name]).view(array.shape)
            for first, array in zip(edges, self.arrays, strict=False)
        ]


def sent(tensor: Tensor, device: torch.device | str) -> Tensor:
    """Return a tensor on a device; from pinned memory of the host, which does not wait for the copy to a GPU."""
    if not is_accelerator(device) or is_accelerator(tensor.device):
        return tensor.to(device)
    kind = kind_of(device)
    if kind not in _not_pinnable:
        tensor = _host_memory(tensor.shape, tensor.dtype, kind).copy_(tensor)
    return tensor.to(device, non_blocking=True)


def send(device: torch.device, *arrays: Array) -> list[Tensor]:
    """Return small arrays as tensors on a device, with one copy."""
    if not is_accelerator(device):
        return [torch.from_numpy(np.ascontiguousarray(array)).to(device) for array in arrays]
    sending = Sending(device, *((array.dtype, array.shape) for array in arrays))
    for filled, array in zip(sending.arrays, arrays, strict=True):
        filled[...] = array
    return sending.tensors()


@functools.lru_cache(maxsize=256)
def constant(values: tuple[int, ...], device: torch.device) -> Tensor:
    """Return integers as int64 on a device, to which they are sent once. The tensor is kept: do not change it."""
    with torch.inference_mode(False):
        return torch.tensor(values, dtype=torch.int64).to(device)  # the host waits: any stream may use it next


class _Crossing:
    """Values of tensors of one device, packed there and copied on the stream of results."""

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        self._tensors = tensors
        # So that all begin at multiples of their size.
        self._order = sorted(range(len(tensors)), key=lambda place: -tensors[place].itemsize)
        parts = [tensors[place].detach().contiguous().reshape(-1).view(torch.uint8) for place in self._order]
        self._packed = parts[0] if len(parts) == 1 else torch.cat(parts)  # held until it is copied
        self._values, self._event = _to_host(self._packed)

    def arrays(self) -> list[Array]:
        if self._event is not None:
            self._event.synchronize()
        values, by_place, first = self._values.numpy(), dict[int, Array](), 0
        for place in self._order:
            tensor = self._tensors[place]
            end = first + tensor.nbytes
            by_place[place] = values[first:end].view(_NAMES[tensor.dtype]).reshape(tuple(tensor.shape))
            first = end
        return [by_place[place] for place in range(len(self._tensors))]


def _to_host(packed: Tensor) -> "tuple[Tensor, Event | None]":
    """Return memory of the host to which bytes are copied, and the event after the copy; None: it is done."""
    values = _host_memory((packed.numel(),), torch.uint8, packed.device.type)
    streams = streams_of(packed.device)
    if streams is None or packed.device.type in _not_pinnable:
        return values.copy_(packed), None
    streams.results.wait_stream(streams.current())
    with streams.on(streams.results):
        values.copy_(packed, non_blocking=True)
    return values, streams.mark(streams.results)


def _edges(sizes: Sequence[int]) -> list[int]:
    """Return the aligned starts of parts of these sizes in bytes, and the end of the last one."""
    edges = [0]
    for size in sizes:
        edges.append(edges[-1] + -(-size // ALIGNMENT) * ALIGNMENT)
    return edges


def _host_memory(shape: Shape, dtype: torch.dtype, kind: str) -> Tensor:
    """Return memory of the host, pinned if torch can pin it for a kind of device."""
    if kind not in _not_pinnable:
        try:
            return torch.empty(shape, dtype=dtype, pin_memory=True)
        except RuntimeError:  # NotImplementedError is one
            _not_pinnable.add(kind)
    return torch.empty(shape, dtype=dtype)


_NAMES = {
    getattr(torch, name): name
    for name in (
        *("bool", "uint8", "int8", "int16", "int32", "int64", "float16", "float32", "float64"),
        *("complex64", "complex128"),
    )
}
_DTYPES = {name: dtype for dtype, name in _NAMES.items()}


# A stream does its work in order, and several streams work at the same time. An event marks a place in the work of a
# stream: another stream, or the host, waits for the work before it. torch gives memory that is freed to later work of
# the stream that it was allocated for, so tensors that another stream reads are held until the event after that work.
class Event(Protocol):
    """A marker in the work queue of a stream."""

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
        """Return an event after the present work of a stream. A thread that waits for it frees its core."""
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
    """Return an event after the present work of the calling thread's stream; None without streams."""
    streams = streams_of(device)
    return None if streams is None else streams.mark(streams.current())


def wait_for(event: Event | None, device: torch.device) -> None:
    """Begin later work of the calling thread's stream after an event."""
    streams = streams_of(device)
    if streams is not None and event is not None:
        streams.current().wait_event(event)
