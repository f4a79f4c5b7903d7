"""The process that converts pickles, with a reader that does what the content of a file names."""

import os
import signal
import time
from pathlib import Path

from raysp.checkpoints.pickles import process
from raysp.checkpoints.pickles.files import Weight


def read_weights(path: Path) -> list[Weight]:
    match path.read_bytes():
        case b"memory":
            held = []
            while True:
                held.append(bytes(1 << 24))  # takes addresses alone, and so little processor time
        case b"time":
            while True:
                pass
        case b"silence":
            while True:
                time.sleep(60)
        case b"crash":
            os.kill(os.getpid(), signal.SIGSEGV)
    return []


if __name__ == "__main__":
    process.read_weights = read_weights
    process.START_SECONDS = 1
    process.main()
