"""Devices of torch by name: their kind, availability and memory, and tensors that are kept on them.

Code asks these functions, and never whether a device is "cuda", so that other backends of torch run the same code.
Names are compared without torch, by which a run is planned without importing it.
"""

from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from raysp import tracebacks
from raysp.errors import RunError

if TYPE_CHECKING:
    import torch

Value = TypeVar("Value")
Given = ParamSpec("Given")

OWN_MEMORY = ("cpu", "meta")
"""Kinds of devices whose tensors are in main memory, or nowhere."""


class DeviceLostError(RunError):
    """A failure of the GPU that only a new process recovers from."""


def is_accelerator(device: "str | torch.device") -> bool:
    """Return whether a device has memory of its own and computes beside the CPU, as a GPU does."""
    return kind_of(device) not in OWN_MEMORY


def kind_of(device: "str | torch.device") -> str:
    """Return the name of a device without its number, such as "cuda"."""
    return str(device).partition(":")[0]


def is_available(device: "str | torch.device") -> bool:
    """Return whether torch can use a device here; True for the CPU."""
    return not is_accelerator(device) or bool(getattr(module_of(device), "is_available", bool)())


def refuse_absent(device: "str | torch.device") -> None:
    """Raise RunError if torch cannot use a device here."""
    if not is_available(device):
        raise RunError(
            f"device {str(device)!r}: the installed torch cannot use it on this machine; install one that fits the "
            "driver (`raysp doctor` shows both), or set device='cpu'"
        )


def highest_allocated(device: "str | torch.device") -> int:
    """Return the highest number of bytes that torch allocated on an accelerator; 0 if its backend does not count."""
    count = getattr(module_of(device), "max_memory_allocated", None)
    return int(count(device)) if count else 0


def release_memory(device: "str | torch.device") -> None:
    """Return the memory of freed tensors of an accelerator to other processes; does nothing for the CPU."""
    if is_accelerator(device) and (release := getattr(module_of(device), "empty_cache", None)):
        release()


def synchronize(device: "str | torch.device") -> None:
    """Wait until an accelerator has done all its work; does nothing for the CPU."""
    if is_accelerator(device) and (wait := getattr(module_of(device), "synchronize", None)):
        wait(device)


def module_of(device: "str | torch.device") -> Any:  # noqa: ANN401 - a module that torch names by the device
    """Return torch's module of a kind of device, such as `torch.cuda`; None if torch has none."""
    import torch

    return getattr(torch, kind_of(device), None)


def refuse_lost(error: BaseException) -> None:
    """Raise DeviceLostError if an error makes every further call of this process fail."""
    import torch

    message = tracebacks.message_of(error)
    is_named = isinstance(error, torch.AcceleratorError) or "CUDA error" in message
    if is_named and not isinstance(error, torch.OutOfMemoryError) and "out of memory" not in message:
        raise DeviceLostError(f"the device failed and cannot be used any more by this process: {message}") from error


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error is lack of memory, after which a smaller batch may work."""
    import torch

    # Plain RuntimeErrors too: "DefaultCPUAllocator: can't allocate memory", "CUDA error: out of memory".
    message = tracebacks.message_of(error)
    named = "CPUAllocator" in message or "out of memory" in message
    return named or isinstance(error, MemoryError | torch.OutOfMemoryError)
