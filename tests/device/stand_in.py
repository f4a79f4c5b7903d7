"""A stand-in for a GPU: tensors on the device "standin" compute on the CPU, and behave as on CUDA in all else.

`install()` registers it with torch as a device of its own (PrivateUse1) for the rest of the process. An operation over
tensors of the device and of the CPU raises, as do a generator of the CPU and `numpy()`. `counted()` counts waits of the
host and copies, with the functions of raysp that caused them. Backward passes, threads and inference mode work.

Kernels run when they are launched. A copy that does not block is made as late as the order of its stream and events
allows: before the next kernel of its stream, or once the host or another stream has waited for it. Until then its
destination holds no value of either tensor, so code that does not wait for a copy gets other results.

What it cannot show: that kernels exist for a dtype or a layout, numerics of kernels (TF32, sums in another order),
races between kernels of two streams, memory, and time.
No operation is refused for having no deterministic kernel. Names of one parameter are parameters of their own after
`model.to(device)`, so a model whose weights are tied is loaded onto the device, or tied again.
"""

import contextlib
import functools
import sys
import threading
import weakref
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch

NAME = "standin"
PACKAGE = "/raysp/"
READ_BY_THE_HOST = frozenset(
    f"aten.{name}"
    for name in (
        "_local_scalar_dense", "nonzero", "masked_select", "is_nonzero", "equal", "_unique2", "unique_dim",
        "unique_consecutive", "bincount", "allclose", "_linalg_check_errors",
    )
)  # fmt: skip
"""Operations whose results have a size or a value that the host waits for."""
WITHOUT_KERNEL = frozenset(
    f"aten.{name}"
    for name in (
        "empty", "empty_like", "new_empty", "empty_strided", "new_empty_strided", "detach_", "lift_fresh",
        "_local_scalar_dense",
    )
)  # fmt: skip
"""Operations that allocate, or copy one number, besides views."""
WITH_INDICES = ("aten.index", "aten.index_put", "aten.index_put_", "aten._index_put_impl_")
SOURCES = ("aten._to_copy", "aten.copy_")


@dataclass
class Counts:
    """What happened within `counted()`; keys of counters name file, line and function of raysp that were the cause."""

    waits: Counter[str] = field(default_factory=Counter)
    """Times that the host waited for a value of the device."""
    copies_in: Counter[str] = field(default_factory=Counter)
    """Copies from the host."""
    blocking: Counter[str] = field(default_factory=Counter)
    """Those that the host waits for, and for all work before them."""
    copies_out: Counter[str] = field(default_factory=Counter)
    pinned: Counter[str] = field(default_factory=Counter)
    """Allocations of pinned memory of the host."""


_counting: list[Counts] = []
_lock = threading.Lock()


@contextlib.contextmanager
def counted() -> Iterator[Counts]:
    """Count what all threads do on the device within the block."""
    counts = Counts()
    with _lock:
        _counting.append(counts)
    try:
        yield counts
    finally:
        with _lock:
            _counting[:] = [one for one in _counting if one is not counts]


_faults: list[Callable[[torch.Tensor], object]] = []


@contextlib.contextmanager
def faulty(check: Callable[[torch.Tensor], object]) -> Iterator[None]:
    """Call a function with each result of a kernel within the block; what it raises, the kernel raises."""
    _faults.append(check)
    try:
        yield
    finally:
        _faults.remove(check)


class OnDevice(torch.Tensor):
    """A tensor on the device; `inner` holds its values on the CPU."""

    inner: torch.Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, inner: torch.Tensor) -> "OnDevice":
        made = torch.Tensor._make_wrapper_subclass(
            cls,
            inner.shape,
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            device=torch.device(NAME, 0),
        )
        made.inner = inner
        return made

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})

    def __repr__(self, **_: object) -> str:
        return f"{self.inner!r} on {NAME}"

    def numpy(self, *, force: bool = False) -> Any:
        if force:
            return self.cpu().numpy()
        raise TypeError(
            f"can't convert {NAME}:0 device type tensor to numpy. Use Tensor.cpu() to copy it to host memory"
        )

    def __array__(self, *_: object, **__: object) -> Any:
        return self.numpy()

    def tolist(self) -> Any:
        return self.cpu().tolist()


class Generator(torch.Generator):
    """Generator of random numbers that may be one of the device: torch lets Python make those of CPUs alone."""

    _of_the_device: ClassVar[set[int]] = set()

    def __new__(cls, device: Any = "cpu") -> "Generator":
        is_ours = torch.device(device).type == NAME
        made = super().__new__(cls, "cpu" if is_ours else device)
        (cls._of_the_device.add if is_ours else cls._of_the_device.discard)(made._cdata)
        return made

    def __init__(self, device: Any = "cpu") -> None:
        pass

    @classmethod
    def is_of_the_device(cls, generator: torch.Generator) -> bool:
        return generator._cdata in cls._of_the_device


class Stream:
    """Work in order: copies that are not made yet, and waits for those of other streams."""

    def __init__(self, _device: object = None) -> None:
        self._left: deque[Callable[[], object]] = deque()
        self.taken = self.done = 0

    def add(self, work: Callable[[], object]) -> None:
        with _streams:
            self._left.append(work)
            self.taken += 1

    def finish(self, end: int | None = None) -> None:
        """Do the work before a place, or all of it."""
        with _streams:
            while self._left and (end is None or self.done < end):
                self.done += 1
                self._left.popleft()()

    def wait_event(self, event: "Event") -> None:
        self.add(lambda: event.stream.finish(event.place))

    def wait_stream(self, stream: "Stream") -> None:
        self.wait_event(stream.record_event(Event()))

    def record_event(self, event: "Event") -> "Event":
        event.stream, event.place = self, self.taken
        return event


class Event:
    """A place in the work of a stream."""

    stream: Stream
    place: int

    def __init__(self, *, blocking: bool = False) -> None:
        pass

    def synchronize(self) -> None:
        _note("waits", "an event")
        self.stream.finish(self.place)


_streams = threading.RLock()
_default = Stream()
_of_thread = threading.local()


def current() -> Stream:
    """Return the stream of the calling thread."""
    return getattr(_of_thread, "stream", _default)


class Module:
    """The module `torch.standin`."""

    Stream, Event = Stream, Event

    @staticmethod
    def is_available() -> bool:
        return True

    @staticmethod
    def is_initialized() -> bool:
        return True

    @staticmethod
    def _is_in_bad_fork() -> bool:
        return False

    @staticmethod
    def device_count() -> int:
        return 1

    @staticmethod
    def current_device() -> int:
        return 0

    @staticmethod
    def get_amp_supported_dtype() -> list[torch.dtype]:
        return [torch.bfloat16, torch.float16]

    @staticmethod
    def manual_seed_all(seed: int) -> None:
        """Do nothing: random numbers are those of the CPU."""

    @staticmethod
    def synchronize(_device: object = None) -> None:
        _note("waits", "synchronize")
        current().finish()

    @staticmethod
    @contextlib.contextmanager
    def stream(stream: "Stream") -> Iterator[None]:
        """Give the work of the calling thread to a stream."""
        before = current()
        _of_thread.stream = stream
        try:
            yield
        finally:
            _of_thread.stream = before

    @staticmethod
    def current_stream(_device: object = None) -> "Stream":
        return current()


_libraries: list[torch.library.Library] = []


def install() -> None:
    """Register the device in this process, for good. A second call does nothing."""
    if _libraries:
        return
    from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

    _setup_privateuseone_for_python_backend(NAME, backend_module=Module())
    torch._C._set_only_lift_cpu_tensors(True)
    every, aten = torch.library.Library("_", "IMPL"), torch.library.Library("aten", "IMPL")
    every.fallback(lambda func, *args, **kwargs: _run(func, args, kwargs), "PrivateUse1")
    past_python = (torch.ops.aten.copy_.default, torch.ops.aten.detach_.default)  # by `torch.tensor`
    for func in (*past_python, *_factories()):
        aten.impl(func, lambda *args, _func=func, **kwargs: _run(_func, args, kwargs), "PrivateUse1")
    _libraries.extend((every, aten))
    torch.Generator = Generator  # type: ignore[misc]
    torch.empty = _empty


_empty_of_torch = torch.empty
_pinned: set[int] = set()


def _empty(*args: Any, pin_memory: bool = False, **kwargs: Any) -> torch.Tensor:
    """Allocate as torch does; memory of the host that is pinned for the device is ordinary memory with a note."""
    made = _empty_of_torch(*args, **kwargs)
    if pin_memory:
        place = made.untyped_storage().data_ptr()
        _pinned.add(place)
        _note("pinned")
        weakref.finalize(made, _pinned.discard, place)
    return made


def _is_pinned(host: torch.Tensor | None) -> bool:
    return host is not None and host.untyped_storage().data_ptr() in _pinned


def _factories() -> Iterator[Any]:
    """Yield the operations that torch would make of an empty tensor, which it then resizes."""
    for name in ("arange", "eye", "hann_window", "linspace", "logspace", "randperm"):
        packet = getattr(torch.ops.aten, name)
        for func in (getattr(packet, overload) for overload in packet.overloads()):
            if not any(argument.is_out for argument in func._schema.arguments) and not _is_composite(func):
                yield func


@dataclass(frozen=True)
class Operation:
    """What the stand-in asks of an operation, found once."""

    name: str
    is_composite: bool
    """Whether torch makes it of others; in inference mode it leaves that to the tensors."""
    is_kernel: bool
    """Whether it launches a kernel: it is no view and no allocation."""


@functools.cache
def _operation(func: Any) -> Operation:
    name = f"{func.namespace}.{func._overloadpacket.__name__}"
    return Operation(name, _is_composite(func), name not in WITHOUT_KERNEL and not func.is_view)


def _run(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    op, ours, others = _operation(func), [], []
    given, options = _on_cpu(args, ours, others), {key: _on_cpu(one, ours, others) for key, one in kwargs.items()}
    if op.is_composite and ours and torch.is_inference_mode_enabled():
        return func.decompose(*args, **kwargs)
    if op.name in SOURCES:
        return _copy(op.name, *args, **kwargs)
    _refuse_what_a_gpu_refuses(op.name, args, kwargs, ours, others)
    if op.is_kernel:
        current().finish()
    if op.name in READ_BY_THE_HOST or (op.name in WITH_INDICES and _has_masks(args)):
        _note("waits", op.name)
        current().finish()
    is_for_the_host = options.get("device") is not None and not _is_ours(options["device"])
    if options.get("device") is not None:
        options["device"] = "cpu"
    result = func(*given, **options)
    for x in ours:
        if x.inner.shape != x.shape:
            raise NotImplementedError(f"the stand-in cannot resize tensors: {op.name} at {_where()}")
    for check in _faults if op.is_kernel and isinstance(result, torch.Tensor) else ():
        check(result)
    return result if is_for_the_host else _on_device(result, ours)


def _on_cpu(x: Any, ours: list[OnDevice], others: list[torch.Tensor]) -> Any:
    """Return an argument with the values of tensors, which are added to those of the device or to the others."""
    if isinstance(x, OnDevice):
        ours.append(x)
        return x.inner
    if isinstance(x, torch.Tensor):
        others.append(x)
    elif isinstance(x, list | tuple):
        return type(x)([_on_cpu(one, ours, others) for one in x])
    return x


def _is_composite(func: Any) -> bool:
    return torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), "CompositeImplicitAutograd")


def _is_ours(device: Any) -> bool:
    return torch.device(device).type == NAME


def _has_masks(args: Any) -> bool:
    """Return whether an operation with indices has masks, whose number of true values the host must know.

    Writing one value where a mask is true needs no number.
    """
    masks = any(isinstance(x, torch.Tensor) and x.dtype in (torch.bool, torch.uint8) for x in args[1])
    return masks and not (len(args) > 2 and args[2].numel() == 1)


def _refuse_what_a_gpu_refuses(
    name: str, args: Any, kwargs: dict[str, Any], ours: list[OnDevice], others: list[torch.Tensor]
) -> None:
    mixed = [x for x in others if x.dim() > 0] if ours else []
    if mixed and not (name in WITH_INDICES and isinstance(args[0], OnDevice)):
        shapes = [tuple(x.shape) for x in mixed]
        raise RuntimeError(
            "Expected all tensors to be on the same device, but found at least two devices, "
            f"{NAME}:0 and cpu! ({name}; on the CPU: {shapes}; {_where()})"
        )
    for index in mixed:
        _note_copy_in(index, non_blocking=False)
    generator = kwargs.get("generator")
    if ours and generator is not None and not Generator.is_of_the_device(generator):
        raise RuntimeError(f"Expected a '{NAME}' device type for generator but found 'cpu' ({name}, {_where()})")


def _on_device(result: Any, ours: list[OnDevice]) -> Any:
    """Put the tensors of a result on the device; those that were changed in place are the same objects as before."""
    changed = {id(x.inner): x for x in ours}
    is_inference = torch.is_inference_mode_enabled()

    def put(x: Any) -> Any:
        if isinstance(x, list | tuple):
            return type(x)([put(one) for one in x])
        if not isinstance(x, torch.Tensor) or id(x) in changed:
            return changed.get(id(x), x)
        if is_inference and not x.is_inference():  # a view of a tensor from outside of the mode
            with torch.inference_mode(False):
                return OnDevice(x)
        return OnDevice(x)

    return put(result)


def _copy(name: str, *args: Any, **kwargs: Any) -> Any:
    """Copy within the device, to it, or from it."""
    destination = args[0] if name == "aten.copy_" else None
    source = args[1] if name == "aten.copy_" else args[0]
    target = kwargs.pop("device", None) if destination is None else destination.device
    target = source.device if target is None else torch.device(target)
    non_blocking = kwargs.pop("non_blocking", args[2] if len(args) > 2 else False)
    inner = source.inner if isinstance(source, OnDevice) else source
    is_within = isinstance(source, OnDevice) and _is_ours(target)
    is_pinned = not is_within and _is_pinned(destination if isinstance(source, OnDevice) else source)
    is_late = non_blocking and is_pinned
    if not is_within and not isinstance(source, OnDevice):
        _note_copy_in(inner, non_blocking=non_blocking)
    elif not is_within:
        _note("copies_out", _words(inner))
        if not non_blocking:
            _note("waits", "copy to the host")
    if not is_late:
        current().finish()
    if destination is not None:
        into = destination.inner if isinstance(destination, OnDevice) else destination
        _copy_late(into, inner) if is_late else into.copy_(inner)
        return destination
    options = {k: v for k, v in kwargs.items() if k != "pin_memory"}
    copied = torch.ops.aten._to_copy.default(inner, **options)
    if is_late:
        _copy_late(copied, inner)
    return _on_device(copied, []) if _is_ours(target) else copied


def _copy_late(destination: torch.Tensor, source: torch.Tensor) -> None:
    """Copy one tensor of the CPU to another within the stream of the calling thread."""
    kind = destination.dtype
    is_number = kind.is_floating_point or kind.is_complex
    nothing = float("nan") if is_number else True if kind == torch.bool else torch.iinfo(kind).max

    def copy() -> None:
        with torch.inference_mode():
            destination.copy_(source)

    with torch.inference_mode():
        destination.fill_(nothing)
    current().add(copy)


def _note_copy_in(inner: torch.Tensor, *, non_blocking: bool = False) -> None:
    _note("copies_in", _words(inner))
    if not non_blocking or not _is_pinned(inner):
        _note("blocking", _words(inner))


def _words(x: torch.Tensor) -> str:
    return f"{str(x.dtype).removeprefix('torch.')} of {x.dim()} axes"


def _note(what: str, why: str = "") -> None:
    if not _counting:
        return
    key = f"{why} at {_where()}"
    with _lock:
        for counts in _counting:
            getattr(counts, what)[key] += 1


def _where() -> str:
    """Return file, line and name of the innermost function of the package that is being called."""
    frame = sys._getframe(1)
    while frame is not None:
        if file := _file_of_the_package(frame.f_code.co_filename):
            return f"{file}:{frame.f_lineno} {frame.f_code.co_name}"
        frame = frame.f_back
    return "?"


@functools.cache
def _file_of_the_package(path: str) -> str:
    """Return the path of a file of the package within it; an empty one for other files."""
    _, found, file = path.rpartition(PACKAGE)
    return file if found and not file.startswith("tests/") and "site-packages" not in path else ""
