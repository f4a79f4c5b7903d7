"""Ways to do a thing, run in turn and timed; memory of this process."""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Taken:
    """Seconds of a call: wall time, and CPU time, which is steadier beside other programs."""

    wall: float
    cpu: float


def in_turn(ways: Mapping[str, Callable[[], T]], repeats: int, *, warm_up: int = 0) -> dict[str, list[T]]:
    """Call each way once in every repeat (A B A B), and return the results of each, without those of warming up."""
    found: dict[str, list[T]] = {name: [] for name in ways}
    for repeat in range(warm_up + repeats):
        for name, call in ways.items():
            result = call()
            if repeat >= warm_up:
                found[name].append(result)
    return found


def timed(
    ways: Mapping[str, Callable[[], object]],
    repeats: int,
    *,
    warm_up: int = 0,
    cpu_clock: Callable[[], float] = time.process_time,
) -> dict[str, list[Taken]]:
    """Call ways in turn, and return the time of each call."""

    def time_of(call: Callable[[], object]) -> Taken:
        started, cpu = time.perf_counter(), cpu_clock()
        call()
        return Taken(time.perf_counter() - started, cpu_clock() - cpu)

    timings = {name: lambda call=call: time_of(call) for name, call in ways.items()}
    return in_turn(timings, repeats, warm_up=warm_up)


def median(taken: Sequence[Taken]) -> Taken:
    """Return the median wall time and the median CPU time."""
    return Taken(statistics.median(one.wall for one in taken), statistics.median(one.cpu for one in taken))


def memory(name: str, process: int | str = "self") -> float:
    """Return the memory of a process in bytes: `VmRSS`, the present one, or `VmHWM`, the largest one."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return float(next(line for line in lines if line.startswith(f"{name}:")).split()[1]) * 1024


def forget_peak() -> None:
    """Let the largest memory of this process be that of now."""
    Path("/proc/self/clear_refs").write_text("5")
