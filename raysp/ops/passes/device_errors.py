"""Errors of a device: lack of memory, after which a smaller batch may work, and failures that no call survives."""

import torch

from raysp.ops.adding import DeviceLostError


def refuse_lost(error: Exception) -> None:
    """Raise DeviceLostError if an error makes every further call of this process fail."""
    if _is_lost(error):
        raise DeviceLostError(f"the device failed and cannot be used any more by this process: {error}") from error


def _is_lost(error: Exception) -> bool:
    """Return whether an error of a GPU makes every further call of this process fail."""
    if isinstance(error, torch.OutOfMemoryError) or "out of memory" in str(error):
        return False
    return isinstance(error, torch.AcceleratorError) or "CUDA error" in str(error)


def is_out_of_memory(error: Exception) -> bool:
    """Return whether an error is lack of memory."""
    # Plain RuntimeErrors too: "DefaultCPUAllocator: can't allocate memory", "CUDA error: out of memory".
    named = "CPUAllocator" in str(error) or "out of memory" in str(error)
    return named or isinstance(error, MemoryError | torch.OutOfMemoryError)
