"""Checks of this machine for the requirements of a run."""

import importlib.metadata
import os
import platform
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

from raysp.cluster.connection import local_ray
from raysp.cluster.machine import memory_bytes, num_cpus, physical_bytes
from raysp.cluster.ray_session import default_folder
from raysp.cluster.resources import Resources, count_gpus
from raysp.errors import RayspError
from raysp.words import count

MIN_SHARED_BYTES = 500_000_000
MIN_MEMORY_BYTES = 4_000_000_000


@dataclass(frozen=True)
class Finding:
    """Result of one check."""

    what: str
    found: str
    ok: bool
    advice: str = ""


def examine() -> list[Finding]:
    """Run all checks; the last one starts a local Ray and stops it."""
    return [_python(), *_packages(), _sound(), _processors(), _memory(), _shared_memory(), _ray()]


def _python() -> Finding:
    return Finding("python", f"{platform.python_version()} on {platform.machine()}", ok=True)


def _packages() -> list[Finding]:
    names = ("raysp", "ray", "torch", "pyarrow", "soundfile", "soxr")
    return [Finding(name, importlib.metadata.version(name), ok=True) for name in names]


def _sound() -> Finding:
    import soundfile

    formats = soundfile.available_formats()
    missing = [name for name in ("WAV", "FLAC", "OGG", "MP3") if name not in formats]
    found = f"{soundfile.__libsndfile_version__}, {len(formats)} formats"
    advice = f"it cannot read {', '.join(missing)}: install a newer soundfile" if missing else ""
    return Finding("libsndfile", found, ok=not missing, advice=advice)


def _processors() -> Finding:
    import torch

    seen, usable = count_gpus(), torch.cuda.is_available()
    cuda = f"torch {'can' if usable else 'cannot'} use CUDA"
    found = f"{num_cpus()} of {count(os.cpu_count() or 1, 'CPU')}, {count(seen, 'GPU')}, {cuda}"
    advice = "install a torch whose CUDA version fits the driver, or set device='cpu'"
    return Finding("processors", found, ok=usable or not seen, advice=advice if seen and not usable else "")


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


def _ray() -> Finding:
    started = time.monotonic()
    try:
        with local_ray(Resources(cpus=1), advice=""):
            pass
    except RayspError as error:
        advice = f"see the logs in {default_folder()}/session_latest/logs, if Ray began to write them"
        return Finding("local Ray", str(error), ok=False, advice=advice)
    return Finding("local Ray", f"started and stopped in {time.monotonic() - started:.1f} s", ok=True)
