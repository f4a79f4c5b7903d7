"""Checks of this machine for the requirements of a run."""

import os
import platform
import resource
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

from raysp.cluster.connection import default_folder, local_ray
from raysp.cluster.resources import Resources, count_gpus
from raysp.devices import memory_bytes, num_cpus, physical_bytes
from raysp.errors import RayspError
from raysp.words import count

MIN_SHARED_BYTES = 500_000_000
MIN_MEMORY_BYTES = 4_000_000_000
MIN_OPEN_FILES = 1024
PACKAGES = ("raysp", "ray", "torch", "pyarrow", "soundfile", "soxr")
DEVELOPMENT = frozenset({"dev", "docs", "audit"})


@dataclass(frozen=True)
class Finding:
    """Result of one check."""

    what: str
    found: str
    ok: bool
    advice: str = ""


def examine() -> Iterator[Finding]:
    """Yield the results of all checks as they end; the last one starts a local Ray and stops it."""
    quick = (_extras, _processors, _memory, _shared_memory, _open_files)
    python = Finding("python", f"{platform.python_version()} on {platform.machine()}", ok=True)
    packages = [Finding(name, metadata.version(name), ok=True) for name in PACKAGES]
    yield from [python, *packages, *(check() for check in quick)]
    yield _ray()


def _extras() -> Finding:
    """Look for the packages of each extra of raysp for users; a missing one is not a failure."""
    lines = [Requirement(line) for line in metadata.requires("raysp") or ()]
    installed: list[str] = []
    missing: list[str] = []
    for extra in metadata.metadata("raysp").get_all("Provides-Extra") or []:
        packages = [line.name for line in lines if line.marker and line.marker.evaluate({"extra": extra})]
        if packages and extra not in DEVELOPMENT:
            is_there = all(any(metadata.distributions(name=name)) for name in packages)
            (installed if is_there else missing).append(extra)
    shown = ", ".join(installed) or "none"
    advice = f"not installed: {', '.join(missing)}; pip install 'raysp[NAME]' adds one" if missing else ""
    return Finding("extras", shown, ok=True, advice=advice)


def _processors() -> Finding:
    import torch

    seen, usable = count_gpus(), torch.cuda.is_available()
    cuda = f"torch {'can' if usable else 'cannot'} use CUDA"
    summary = f"{num_cpus()} of {count(os.cpu_count() or 1, 'CPU')}, {count(seen, 'GPU')}, {cuda}"
    return Finding("processors", summary, ok=usable or not seen, advice="" if usable or not seen else _gpu_advice())


def _gpu_advice() -> str:
    import torch

    if torch.version.cuda is None and torch.version.hip is None:
        return f"torch {torch.__version__} is a build for CPUs: install a build for GPUs, or set device='cpu'"
    return "install a torch whose CUDA version fits the driver, or set device='cpu'"


def _memory() -> Finding:
    num_bytes, physical = memory_bytes(), physical_bytes()
    ok = num_bytes >= MIN_MEMORY_BYTES
    advice = "" if ok else "Ray alone takes 1 GB and a worker 0.5 GB: use a larger machine"
    return Finding("memory", f"{num_bytes / 1e9:.1f} of {physical / 1e9:.1f} GB", ok, advice)


def _shared_memory() -> Finding:
    place = Path("/dev/shm")
    if not place.is_dir():
        return Finding(
            "shared memory", f"no {place}", ok=True, advice="Ray stores blocks in /tmp instead, which is slower"
        )
    free = shutil.disk_usage(place).free
    ok = free >= MIN_SHARED_BYTES
    advice = "" if ok else "Ray passes blocks through it: start the container with --shm-size=4g"
    return Finding("shared memory", f"{free / 1e9:.1f} GB free in {place}", ok, advice)


def _open_files() -> Finding:
    most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    ok = most == resource.RLIM_INFINITY or most >= MIN_OPEN_FILES
    limit = "no limit" if most == resource.RLIM_INFINITY else f"at most {most:,}"
    return Finding("open files", limit, ok, "" if ok else f"Ray may need more: ulimit -n {MIN_OPEN_FILES * 64}")


def _ray() -> Finding:
    started = time.monotonic()
    try:
        with local_ray(Resources(cpus=1), advice=""):
            pass
    except RayspError as error:
        advice = f"see the logs in {default_folder()}/session_latest/logs, if Ray began to write them"
        return Finding("local Ray", str(error), ok=False, advice=advice)
    return Finding("local Ray", f"started and stopped in {time.monotonic() - started:.1f} s", ok=True)
