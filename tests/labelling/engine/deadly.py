"""Stand-ins for what kills or stops a worker; in a file of their own, as a user's would be."""

import os
import signal
import time
from pathlib import Path

import pyarrow as pa

from raysp import Transcript
from raysp.ops.forward import Forward, Rows
from raysp.specs import spec

CRASH_FRAMES, HANG_FRAMES = 99, 149
"""Of recordings of 2 and of 3 seconds; those of digits are all shorter."""


@spec
class DeadlyTranscript(Transcript):
    """A transcript that segmentation faults or hangs over recordings of certain lengths."""

    def op(self, checkpoint, loaded=None):
        op = super().op(checkpoint, loaded)
        return op if loaded is None else _Deadly(op)


class _Deadly:
    def __init__(self, op) -> None:
        self.op, self.schema, self.staged, self.layers = op, op.schema, op.staged, op.layers

    def select(self, forward: Forward):
        return self.op.select(forward)

    def columns(self, arrays, rows: Rows):
        frames = rows.lengths.frames
        if CRASH_FRAMES in frames:
            os.kill(os.getpid(), signal.SIGSEGV)
            time.sleep(10_000)  # another thread may take the signal, and this one would go on until it is through
        if HANG_FRAMES in frames:
            time.sleep(10_000)
        return self.op.columns(arrays, rows)

    def empty(self):
        return self.op.empty()


def spares_nobody(table: pa.Table) -> list[bool]:
    """Keep all rows, unless one is called `deadly`."""
    if "deadly" in table.column("id").to_pylist():
        os.kill(os.getpid(), signal.SIGKILL)
    return [True] * table.num_rows


@spec
class UnloadableTranscript(Transcript):
    """A transcript whose op cannot be made in the first `failures` processes that try."""

    folder: str = ""
    failures: int = 1
    crashes: bool = False

    def op(self, checkpoint, loaded=None):
        if loaded is None:
            return super().op(checkpoint)
        for number in range(self.failures):
            try:
                (Path(self.folder) / f"load-{number}").touch(exist_ok=False)
            except FileExistsError:
                continue
            if self.crashes:
                os.kill(os.getpid(), signal.SIGKILL)
            raise OSError(28, "No space left on device")
        return super().op(checkpoint, loaded)
