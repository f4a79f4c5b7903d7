"""The process that converts pickled weights, with bounds on its memory and time.

It reads one line of JSON from its standard input, and writes a line of JSON for each event to its standard output:
`{"bytes": n}` for every part that is written, `{"written": ...}` after a
file, `{"refused": reason}` or `{"failed": reason}` at its end. It ends with its standard input, hence with the process
that started it.
"""

import contextlib
import json
import os
import resource
import signal
import sys
import threading
from pathlib import Path

from raysp import bounds
from raysp.checkpoints.pickles.files import read_weights
from raysp.checkpoints.pickles.program import ITEM_BYTES, NotWeightsError
from raysp.checkpoints.pickles.safetensors import write_weights

MEMORY_BYTES = 512 * bounds.MIB
"""Address space beyond that of the started process."""
START_SECONDS, BYTES_PER_SECOND = 60, 5_000_000
"""Processor time: a constant, and more by the size of the files."""


def main() -> None:
    """Convert the files of the request on standard input."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is handled by the parent process
    request = bounds.parse_json(sys.stdin.buffer.readline())
    # After the request was read: the thread reads the same pipe up to its end.
    threading.Thread(target=_end_with_parent, daemon=True).start()
    files = [(Path(source), Path(target)) for source, target in request["files"]]
    limit_time(START_SECONDS + sum(source.stat().st_size for source, _ in files) // BYTES_PER_SECOND)
    for source, target in files:
        try:
            _convert(source, target, are_tied=request["are_tied"])
        except (NotWeightsError, bounds.TooLargeError) as error:
            _say(refused=str(error))
            return
        except MemoryError:
            _say(refused=f"reading it takes more than {MEMORY_BYTES:,} bytes of memory")
            return
        except OSError as error:
            _say(failed=error.strerror or str(error))
            return


def _convert(source: Path, target: Path, *, are_tied: bool) -> None:
    limit_memory(MEMORY_BYTES)
    weights = read_weights(source)
    views = [weight.view for weight in weights if not weight.view.is_contiguous]  # they are mapped as a whole
    limit_memory(MEMORY_BYTES + max((view.span * ITEM_BYTES[view.storage.dtype] for view in views), default=0))
    written = write_weights(source, weights, target, are_tied=are_tied, on_bytes=lambda found: _say(bytes=found))
    _say(written=written.digests, tied=written.tied)


def _say(**event: object) -> None:
    sys.stdout.buffer.write(json.dumps(event).encode() + b"\n")
    sys.stdout.buffer.flush()


def _end_with_parent() -> None:
    while os.read(0, 1):
        pass
    # Not `sys.exit`, which ends the calling thread alone.
    os._exit(1)


def limit_memory(more_bytes: int) -> None:
    """Limit the address space of this process. Without effect where the system has no /proc (macOS)."""
    if not Path("/proc/self/statm").exists():
        return
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    most = pages * resource.getpagesize() + more_bytes
    most = most if hard == resource.RLIM_INFINITY else min(most, hard)
    resource.setrlimit(resource.RLIMIT_AS, (most, hard))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def limit_time(seconds: int) -> None:
    """Limit the processor time of this process."""
    with contextlib.suppress(ValueError):  # a lower limit holds already
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))


if __name__ == "__main__":
    main()
