"""Which process a record speaks of: told apart from every other one, on this machine or elsewhere."""

import os
import socket
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Process:
    """A process by the machine it runs on, its number there and its start."""

    host: str
    boot: str
    """Of the machine's kernel and of the namespace in which `pid` counts; empty where the system does not tell."""
    pid: int
    start: str
    """When it started, in the kernel's ticks; empty where the system does not tell."""

    @classmethod
    def here(cls) -> "Process":
        """Describe this process."""
        return cls(socket.gethostname(), _boot(), os.getpid(), _start(os.getpid()))

    def is_known_dead(self) -> bool:
        """Tell whether it ran on this machine and is gone; False where that cannot be told from here."""
        return self._is_of_this_machine() and _start(self.pid) != self.start

    def is_known_alive(self) -> bool:
        """Return whether it runs on this machine; False where that cannot be told from here."""
        return self._is_of_this_machine() and _start(self.pid) == self.start

    def _is_of_this_machine(self) -> bool:
        return bool(self.boot and self.start) and (self.host, self.boot) == (socket.gethostname(), _boot())


def _boot() -> str:
    # In a container the kernel's boot is the machine's, but a pid means another process.
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return ""


def _start(pid: int) -> str:
    """Read when a process started; empty when there is none, or only what its parent has not waited for yet."""
    try:
        # The name in parentheses may hold anything; behind it come the state and, as the 20th, the start.
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in "ZX" else fields[19]
