"""Devices: the card, the CPU, or the stand-in for a card, and how time is taken on them."""

import platform
import subprocess
import time
from collections.abc import Callable
from typing import Any

import torch

NAMES = {"cuda": "cuda", "cpu": "cpu", "stand-in": "standin"}
"""Names for torch of the devices of the command line."""


def open_device(name: str) -> None:
    """Register the stand-in with torch, if it is the device."""
    if name == "standin":
        from tests.device import stand_in

        stand_in.install()


def wait_for(device: str) -> None:
    """Wait until the device has nothing left to do."""
    if device == "cuda":
        torch.cuda.synchronize()


def seconds_of(run: Callable[[], object], device: str) -> float:
    """Return the wall time of a call, until the device has done its work."""
    wait_for(device)
    started = time.perf_counter()
    run()
    wait_for(device)
    return time.perf_counter() - started


def describe(device: str) -> dict[str, object]:
    """Return the names and versions on which results depend."""
    import raysp

    found: dict[str, object] = {
        "raysp": raysp.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "device": device,
        "cores": torch.get_num_threads(),
    }
    if device == "cuda":
        properties = torch.cuda.get_device_properties(0)
        found |= {
            "card": properties.name,
            "gigabytes": round(properties.total_memory / 1e9, 1),
            "driver": driver(),
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),
        }
    return found


def driver() -> str | None:
    """Return the version of the driver of the first card, or None if nvidia-smi does not tell."""
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader", "--id=0"]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


def free_memory(device: str) -> None:
    """Return the memory that torch keeps to the device, for a case with another model."""
    if device == "cuda":
        torch.cuda.empty_cache()


def peak_gigabytes(device: str) -> float | None:
    """Return the most memory that torch has allocated on a card since the last call; None elsewhere."""
    if device != "cuda":
        return None
    found: Any = torch.cuda.max_memory_allocated() / 1e9
    torch.cuda.reset_peak_memory_stats()
    return float(found)
