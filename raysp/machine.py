"""CPUs and memory that this process may use: of the machine, of its affinity mask and of its control group.

In a container, `os.cpu_count()` and the size of physical memory are those of the machine. The limits of the container
are in its control group (cgroup), version 2 or 1.
"""

import os
import platform
import resource
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

ROOT = Path("/")
PROCESS_BYTES = 400e6
"""Resident set of a process with torch and pyarrow, without a model."""
READER_BYTES = 500e6
"""Upper bound of that of a task that reads, besides the largest recording."""


def system() -> str:
    """Return the name of the operating system: Linux, macOS or another."""
    return {"Darwin": "macOS"}.get(platform.system(), platform.system())


def num_cpus(root: Path = ROOT) -> int:
    """Return the number of CPUs that this process may use, rounded down, at least 1.

    Where the system has no affinity mask (macOS), those of the machine are counted.

    Args:
        root: root of the file system, with `proc/self/cgroup` and `sys/fs/cgroup` below it.
    """
    quotas = [*_quotas(root)]
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, int(min([usable, *quotas])))


def physical_bytes() -> int:
    """Return the bytes of main memory of the machine."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def memory_bytes(root: Path = ROOT) -> int:
    """Return the bytes of main memory that this process may use; `root` is that of `num_cpus`."""
    files = _files(root, "memory", "memory.max", "memory.limit_in_bytes")
    limits = (_parsed(_read(folder / name)) for folder, name in files)
    return min([physical_bytes(), *(int(limit) for limit in limits if limit)])


def highest_resident_bytes(root: Path = ROOT) -> int:
    """Return the largest resident set that this process had; `root` is that of `num_cpus`."""
    _, named, rest = _read(root / "proc/self/status").partition("VmHWM:")
    if named:
        return int(rest.split()[0]) * 1024
    # It begins with that of the process that started this one.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if system() == "macOS" else 1024)


def _quotas(root: Path) -> Iterator[float]:
    """Yield the CPU limit of each control group around this process that has one."""
    for folder, name in _files(root, "cpu", "cpu.max", "cpu.cfs_quota_us"):
        if name == "cpu.max":  # "400000 100000": microseconds of each period, or "max 100000"
            words = _read(folder / name).split()
            quota, period = (_parsed(word) for word in (*words, "", "")[:2])
        else:
            quota, period = _parsed(_read(folder / name)), _parsed(_read(folder / "cpu.cfs_period_us"))
        if quota and period:
            yield quota / period


def _files(root: Path, controller: str, name: str, name_v1: str) -> Iterator[tuple[Path, str]]:
    """Yield the folders of this process's control group and of its parents, each with the name of its limit file."""
    for line in _read(root / "proc/self/cgroup").splitlines():
        number, _, rest = line.partition(":")
        controllers, _, place = rest.partition(":")
        if number == "0" and not controllers:
            mount, found = root / "sys/fs/cgroup", name
        elif controller in controllers.split(","):
            mount, found = root / "sys/fs/cgroup" / controllers, name_v1
        else:
            continue
        # In a container the mount starts at its own group, but the path may be the one outside of it.
        inside = PurePosixPath(place.lstrip("/"))
        yield from ((mount / folder, found) for folder in (inside, *inside.parents) if ".." not in folder.parts)


def _read(file: Path) -> str:
    """Return the text of a file without blanks around it; empty if it cannot be read."""
    try:
        return file.read_text().strip()
    except OSError:
        return ""


def _parsed(word: str) -> float | None:
    """Return a positive number; None for "max", -1 and everything else that is not a limit."""
    return float(word) if word.isdigit() and int(word) else None
