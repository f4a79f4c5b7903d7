"""Identity of a process, unique on this machine and across machines."""

import os
import socket
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Process:
    """A process, identified by its machine, its pid and its start time."""

    host: str
    boot: str
    """Boot id of the machine's kernel, and namespace of `pid`; empty if the system does not provide them."""
    pid: int
    start: str
    """Start time in the kernel's ticks; empty if the system does not provide it."""

    @classmethod
    def here(cls) -> "Process":
        """Return the identity of this process."""
        return cls(socket.gethostname(), _boot(), os.getpid(), _start(os.getpid()))

    def is_known_dead(self) -> bool:
        """Return whether the process ran on this machine and has ended; False if that cannot be determined here."""
        return self._is_of_this_machine() and _start(self.pid) != self.start

    def is_known_alive(self) -> bool:
        """Return whether it runs on this machine; False if that cannot be determined here."""
        return self._is_of_this_machine() and _start(self.pid) == self.start

    def _is_of_this_machine(self) -> bool:
        return bool(self.boot and self.start) and (self.host, self.boot) == (socket.gethostname(), _boot())


def _boot() -> str:
    # A container has the boot id of its machine, but pids of its own.
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return ""


def _start(pid: int) -> str:
    """Return when a process started; empty if it does not exist or is a zombie."""
    try:
        # The name in parentheses may hold any character. The state is the first field after it, the start the 20th.
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in "ZX" else fields[19]
