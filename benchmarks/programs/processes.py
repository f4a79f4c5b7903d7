"""Run a command and watch its process tree: peak memory and CPU time."""

import subprocess
import tempfile
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil

from benchmarks.timing import memory

CPU_INTERVAL_SECONDS = 0.5
MEMORY_EVERY = 6
"""Memory is looked at more rarely: the kernel walks every page table for it."""


@dataclass
class Watched:
    """Peak memory and CPU time of a command and its child processes."""

    started: float
    """Seconds since the epoch."""
    ended: float = 0
    code: int = 0
    stdout: str = ""
    stderr: str = ""
    peak_bytes: int = 0
    """Most of the tree's memory at once; pages that processes share count once."""
    peak_bytes_of: dict[str, int] = field(default_factory=dict)
    """Most of any one process's own memory, by what it does; pages of the object store are not its own."""
    cpu: list[tuple[float, float]] = field(default_factory=list)
    """(time, CPU seconds so far)."""
    cpu_of: dict[int, list[tuple[float, float]]] = field(default_factory=dict)
    """The same of each process."""

    def cpu_seconds(self, start: float, end: float, pid: int | None = None) -> float:
        """CPU seconds of the tree, or of one process, between two times."""
        times, seconds = np.array(self.cpu if pid is None else self.cpu_of[pid]).T
        return float(np.interp(end, times, seconds) - np.interp(start, times, seconds))


def run(
    command: Sequence[str],
    env: Mapping[str, str] | None = None,
    *,
    memory_every: int = MEMORY_EVERY,
    folder: Path | None = None,
) -> Watched:
    """Run a command in a folder to its end, and sample memory every given number of half seconds."""
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        watched = Watched(time.time())
        process = subprocess.Popen(command, stdout=out, stderr=err, env=env, cwd=folder)
        watcher = threading.Thread(target=_watch, args=(process, watched, memory_every), daemon=True)
        watcher.start()
        watched.code = process.wait()
        watched.ended = time.time()
        watcher.join()
        for file, name in ((out, "stdout"), (err, "stderr")):
            file.seek(0)
            setattr(watched, name, file.read())
    return watched


def _watch(process: subprocess.Popen[str], watched: Watched, memory_every: int) -> None:
    known: dict[int, psutil.Process] = {process.pid: psutil.Process(process.pid)}
    spent: dict[int, float] = {}
    rounds = 0
    while process.poll() is None:
        for pid in list(known):  # Ray's own servers have sessions of their own, but still a parent here
            try:
                known |= {child.pid: child for child in known[pid].children() if child.pid not in known}
                times = known[pid].cpu_times()
                spent[pid] = times.user + times.system
                watched.cpu_of.setdefault(pid, []).append((time.time(), spent[pid]))
            except psutil.Error:
                known.pop(pid)
        watched.cpu.append((time.time(), sum(spent.values())))
        if rounds % memory_every == 0:
            _watch_memory(known.values(), watched)
        rounds += 1
        time.sleep(CPU_INTERVAL_SECONDS)


def _watch_memory(processes: Iterable[psutil.Process], watched: Watched) -> None:
    total = 0
    for process in processes:
        try:
            total += process.memory_full_info().pss
            name, own = _name(process.cmdline()), int(memory("RssAnon", process.pid))
        except (psutil.Error, OSError, StopIteration):  # it ended
            continue
        watched.peak_bytes_of[name] = max(watched.peak_bytes_of.get(name, 0), own)
    watched.peak_bytes = max(watched.peak_bytes, total)


def _name(words: Sequence[str]) -> str:
    """Return the task of a Ray worker, or the program of another process."""
    first = words[0] if words else ""
    return first if first.startswith("ray::") else first.rpartition("/")[2]
