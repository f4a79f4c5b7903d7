"""Devices of torch by name: which are accelerators, whether they can be used, and how much of their memory was.

Code asks these functions, and never whether a device is "cuda", so that other backends of torch run the same code.
Names are compared without torch, by which a run is planned without importing it.
"""

from typing import TYPE_CHECKING, Any

from raysp.errors import RunError

if TYPE_CHECKING:
    import torch


class DeviceLostError(RunError):
    """A failure of the GPU that only a new process recovers from."""


OWN_MEMORY = ("cpu", "meta")
"""Kinds of devices whose tensors are in main memory, or nowhere."""


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


def allocated(device: "str | torch.device") -> int:
    """Return the bytes that torch has allocated on an accelerator now; 0 if its backend does not count."""
    count = getattr(module_of(device), "memory_allocated", None)
    return int(count(device)) if count else 0


def forget_highest(device: "str | torch.device") -> None:
    """Count the highest number of allocated bytes from now on."""
    if reset := getattr(module_of(device), "reset_peak_memory_stats", None):
        reset(device)


def memory_of(device: "str | torch.device") -> int | None:
    """Return the bytes of memory of an accelerator; None if its backend does not say."""
    count = getattr(module_of(device), "mem_get_info", None)
    return int(count(device)[1]) if count else None


def card_name(device: "str | torch.device") -> str:
    """Return the name of an accelerator, such as that of its card; that of its kind if its backend has none."""
    name = getattr(module_of(device), "get_device_name", None)
    return str(name(device)) if name else kind_of(device)


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


def refuse_lost(error: Exception) -> None:
    """Raise DeviceLostError if an error makes every further call of this process fail."""
    import torch

    is_named = isinstance(error, torch.AcceleratorError) or "CUDA error" in str(error)
    if is_named and not isinstance(error, torch.OutOfMemoryError) and "out of memory" not in str(error):
        raise DeviceLostError(f"the device failed and cannot be used any more by this process: {error}") from error


def is_out_of_memory(error: Exception) -> bool:
    """Return whether an error is lack of memory, after which a smaller batch may work."""
    import torch

    # Plain RuntimeErrors too: "DefaultCPUAllocator: can't allocate memory", "CUDA error: out of memory".
    named = "CPUAllocator" in str(error) or "out of memory" in str(error)
    return named or isinstance(error, MemoryError | torch.OutOfMemoryError)
