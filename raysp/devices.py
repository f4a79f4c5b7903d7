"""Devices of torch by name, and the CPUs and memory that this process may use.

Code asks these functions, and never whether a device is "cuda", so that other backends of torch run the same code.
Names are compared without torch, by which a run is planned without importing it.

In a container, `os.cpu_count()` and the size of physical memory are those of the machine. The limits of the container
are in its control group (cgroup), version 2 or 1.
"""

import contextlib
import os
import platform
import resource
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from raysp import tracebacks
from raysp.errors import RunError

if TYPE_CHECKING:
    import torch

OWN_MEMORY = ("cpu", "meta")
"""Kinds of devices whose tensors are in main memory, or have no storage."""


class DeviceLostError(RunError):
    """A failure of the GPU that only a new process recovers from."""


def is_accelerator(device: "str | torch.device") -> bool:
    """Return whether a device has memory of its own and computes concurrently with the CPU, as a GPU does."""
    return not str(device).startswith(OWN_MEMORY)


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


ROOT = Path("/")


def system() -> str:
    """Return the name of the operating system: Linux, macOS or another."""
    return {"Darwin": "macOS"}.get(platform.system(), platform.system())


def num_cpus(root: Path = ROOT) -> int:
    """Return the number of CPUs that this process may use, rounded down, at least 1.

    Without an affinity mask (macOS), all CPUs of the machine are counted.

    Args:
        root: root of the file system, with `proc/self/cgroup` and `sys/fs/cgroup` below it.
    """
    limits = _limits(root, "cpu", v2="cpu.max", v1=("cpu.cfs_quota_us", "cpu.cfs_period_us"))
    quotas = [words[0] / words[1] for words in limits if len(words) == 2]  # microseconds of each period
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, int(min([usable, *quotas])))


def has_amx(root: Path = ROOT) -> bool:
    """Return whether the processor multiplies matrices of bfloat16 by AMX; `root` as in `num_cpus`."""
    return "amx_bf16" in _read(root / "proc/cpuinfo").split()


def physical_bytes() -> int:
    """Return the bytes of main memory of the machine."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def memory_bytes(root: Path = ROOT) -> int:
    """Return the bytes of main memory that this process may use; `root` as in `num_cpus`."""
    limits = _limits(root, "memory", v2="memory.max", v1=("memory.limit_in_bytes",))
    return min([physical_bytes(), *(limit for limit, *_ in limits)])


def reset_highest_memory(device: str) -> None:
    """Let `highest_memory` count from now on; where the system has no such reset, it counts from the start."""
    if not is_accelerator(device):
        with contextlib.suppress(OSError):
            (ROOT / "proc/self/clear_refs").write_text("5")  # man proc_pid_clear_refs: sets VmHWM to VmRSS
    elif reset := getattr(module_of(device), "reset_peak_memory_stats", None):
        reset(device)


def highest_memory(device: str) -> int:
    """Return the highest number of bytes that this process used on a device; its resident set on a CPU."""
    if not is_accelerator(device):
        return highest_resident_bytes()
    count = getattr(module_of(device), "max_memory_allocated", None)  # not all backends of torch count
    return int(count(device)) if count else 0


def highest_resident_bytes(root: Path = ROOT) -> int:
    """Return the largest resident set that this process had; `root` as in `num_cpus`."""
    _, named, rest = _read(root / "proc/self/status").partition("VmHWM:")
    if named:
        return int(rest.split()[0]) * 1024
    # The counter begins with the value of the parent process.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if system() == "macOS" else 1024)


def _limits(root: Path, controller: str, *, v2: str, v1: Sequence[str]) -> Iterator[list[int]]:
    """Yield the numbers in the limit files of each control group around this process that has a limit."""
    for line in _read(root / "proc/self/cgroup").splitlines():
        number, _, rest = line.partition(":")
        controllers, _, place = rest.partition(":")
        if number == "0" and not controllers:
            mount, names = root / "sys/fs/cgroup", [v2]
        elif controller in controllers.split(","):
            mount, names = root / "sys/fs/cgroup" / controllers, [*v1]
        else:
            continue
        # In a container the mount starts at its own group, but the path may be the one outside of it.
        inside = PurePosixPath(place.lstrip("/"))
        for folder in (path for path in (inside, *inside.parents) if ".." not in path.parts):
            words = " ".join(_read(mount / folder / name) for name in names).split()
            if words and all(word.isdigit() and int(word) for word in words):  # not "max", nor -1
                yield [int(word) for word in words]


def _read(file: Path) -> str:
    """Return the text of a file without blanks around it; empty if it cannot be read."""
    try:
        return file.read_text().strip()
    except OSError:
        return ""
