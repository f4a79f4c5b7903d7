"""Functions of raysp that some work calls: `python -m tests.house.traces NAME` prints their number as JSON.

Names are `batch`, `start` and `training`. `--names` lists the functions by file.
"""

import contextlib
import inspect
import io
import json
import os
import sys
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

CHECKOUT = Path(__file__).parents[2]
FIRST_PIECE = ("raysp/audio/isolation", "raysp/labelling/engine/piece_reading.py")
"""Files, by the beginnings of their paths, whose first call ends the trace of a start: recordings are read there."""


class Trace:
    """Functions of raysp that are called while it is entered, in every thread that starts meanwhile."""

    def __init__(self, ends_at: Sequence[str] = ()) -> None:
        self._ends_at = tuple(str(CHECKOUT / name) for name in ends_at)
        self._package = f"{CHECKOUT / 'raysp'}{os.sep}"
        self._codes: set[CodeType] = set()
        self._has_ended = False
        self._modules = 0

    def __enter__(self) -> "Trace":
        threading.settrace(self._on_call)
        sys.settrace(self._on_call)
        return self

    def __exit__(self, *_: object) -> None:
        sys.settrace(None)
        threading.settrace(None)

    def _on_call(self, frame: FrameType, _event: str, _: object) -> None:
        code = frame.f_code
        # Modules and bodies of classes, which are no functions, are run without this flag.
        if self._has_ended or not code.co_flags & inspect.CO_OPTIMIZED:
            return
        if code.co_filename.startswith(self._ends_at):
            self._has_ended, self._modules = True, _num_modules()
        elif code.co_filename.startswith(self._package):
            self._codes.add(code)

    def names(self) -> dict[str, list[str]]:
        """Return the names of the functions that were called, by file, in their order there."""
        found: dict[str, list[str]] = {}
        codes = (code for code in self._codes if not code.co_name.startswith("<"))
        for code in sorted(codes, key=lambda one: (one.co_filename, one.co_firstlineno)):
            found.setdefault(str(Path(code.co_filename).relative_to(CHECKOUT)), []).append(code.co_qualname)
        return found

    def figures(self) -> dict[str, int]:
        """Return the number of functions that were called, of their files, and of modules at the end of the trace."""
        names = self.names()
        functions = sum(map(len, names.values()))
        return {"functions": functions, "files": len(names), "modules": self._modules or _num_modules()}


def _num_modules() -> int:
    return sum(name.partition(".")[0] == "raysp" for name in sys.modules)


def trace_batch() -> Trace:
    """Trace one CTC batch of three rows, from a decoded block to columns, by an op that has labelled before."""
    import pyarrow.parquet as pq
    import soundfile
    import soxr

    import raysp
    from raysp.ops.labelling import Labelling
    from raysp.ops.rows import RowStatus, statuses_table, with_waves

    demo = CHECKOUT / "pipelines" / "demo"
    cells = pq.read_table(min((demo / "audio").glob("*.parquet")), columns=["audio"]).slice(0, 3).to_pylist()
    read = (soundfile.read(io.BytesIO(cell["audio"]["bytes"]), dtype="float32") for cell in cells)
    waves = [soxr.resample(wave, rate, 16_000) for wave, rate in read]
    block = with_waves(statuses_table([RowStatus(row) for row, _ in enumerate(waves)]), waves)
    output = raysp.Transcript()
    op = Labelling(
        str(demo / "unispeech-digits-ctc"),
        lambda loaded: [output.op(loaded.summary, loaded)],
        batch_seconds=30,
    )
    op(block)
    with Trace() as trace:
        op(block)
    return trace


def trace_start() -> Trace:
    """Trace `raysp run` of the demo in this process up to the first piece."""
    from raysp.cli import main

    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stderr(io.StringIO()) as errors:
        sink = f"sink.url={folder}/out"
        with Trace(FIRST_PIECE) as trace, contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()):
            main(["run", str(CHECKOUT / "pipelines" / "label_digits.py"), "--set", sink])
        if not any(Path(folder, "out").glob("*.parquet")):
            raise RuntimeError(f"the run of the demo failed: {errors.getvalue()}")
    return trace


def trace_training() -> Trace:
    """Trace a training of two steps on the demo in this process, from the recipe to its checkpoint."""
    import raysp

    with tempfile.TemporaryDirectory() as folder:
        recipe = _demo_recipe(folder)
        with Trace() as trace:
            raysp.finetune(recipe, engine="here")
    return trace


def _demo_recipe(folder: str) -> Any:
    import raysp

    demo = CHECKOUT / "pipelines" / "demo"
    return raysp.Finetune(
        raysp.Shards(f"{demo}/audio/*.parquet", text="text"),
        steps=[raysp.Decode()],
        objective=raysp.CTC(f"{demo}/unispeech-digits-ctc", text=raysp.Text("upper")),
        schedule=raysp.Schedule(steps=2),
        batching=raysp.Batching(seconds=4, micro_batches=2),
        pool=raysp.Pool(1, cpus=1),
        sink=raysp.Checkpoint(f"{folder}/out"),
    )


if __name__ == "__main__":
    works = {"batch": trace_batch, "start": trace_start, "training": trace_training}
    made = works[sys.argv[1]]()
    for file, functions in made.names().items() if "--names" in sys.argv else ():
        sys.stdout.write(f"{len(functions):3} {file}: {', '.join(functions)}\n")
    sys.stdout.write(f"{json.dumps(made.figures())}\n")
