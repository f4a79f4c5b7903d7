"""Functions of raysp that some work calls: `python -m tests.house.traces NAME` prints their number as JSON.

Names are `batch` and `training`. `--names` lists the functions by file.
"""

import inspect
import io
import json
import os
import sys
import tempfile
import threading
from pathlib import Path
from types import CodeType, FrameType

CHECKOUT = Path(__file__).parents[2]


class Trace:
    """Functions of raysp that are called while it is entered, in every thread that starts meanwhile."""

    def __init__(self) -> None:
        self._package = f"{CHECKOUT / 'raysp'}{os.sep}"
        self._codes: set[CodeType] = set()

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
        if code.co_flags & inspect.CO_OPTIMIZED and code.co_filename.startswith(self._package):
            self._codes.add(code)

    def names(self) -> dict[str, list[str]]:
        """Return the names of the functions that were called, by file, in their order there."""
        found: dict[str, list[str]] = {}
        codes = (code for code in self._codes if not code.co_name.startswith("<"))
        for code in sorted(codes, key=lambda one: (one.co_filename, one.co_firstlineno)):
            found.setdefault(str(Path(code.co_filename).relative_to(CHECKOUT)), []).append(code.co_qualname)
        return found

    def figures(self) -> dict[str, int]:
        """Return the number of functions that were called, and of their files."""
        names = self.names()
        functions = sum(map(len, names.values()))
        return {"functions": functions, "files": len(names)}


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


def trace_training() -> Trace:
    """Trace a training of two steps on the demo in this process, from the recipe to its checkpoint."""
    import raysp

    demo = CHECKOUT / "pipelines" / "demo"
    with tempfile.TemporaryDirectory() as folder:
        recipe = raysp.Finetune(
            raysp.Shards(f"{demo}/audio/*.parquet", text="text"),
            steps=[raysp.Decode()],
            objective=raysp.CTC(f"{demo}/unispeech-digits-ctc", text=raysp.Text("upper")),
            schedule=raysp.Schedule(steps=2),
            batching=raysp.Batching(seconds=4, micro_batches=2),
            pool=raysp.Pool(1, cpus=1),
            sink=raysp.Checkpoint(f"{folder}/out"),
        )
        with Trace() as trace:
            raysp.finetune(recipe, engine="here")
    return trace


if __name__ == "__main__":
    works = {"batch": trace_batch, "training": trace_training}
    made = works[sys.argv[1]]()
    for file, functions in made.names().items() if "--names" in sys.argv else ():
        sys.stdout.write(f"{len(functions):3} {file}: {', '.join(functions)}\n")
    sys.stdout.write(f"{json.dumps(made.figures())}\n")
