"""Launches, waits, copies and bytes of one batch of each class and output, as in `figures.json`.

`python -m tests.device.test_figures` writes the file anew: look at its diff, since each number is time on a GPU.
`functions.json`, written with it, has the functions that cause them, so that a failure names the lines of what is new.
"""

import functools
import json
import re
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from raysp.ops.labelling import Labelling
from tests.corpora import CHECKPOINT
from tests.device.class_cases import CASES as CLASSES
from tests.device.class_cases import make_checkpoint
from tests.device.conftest import labelling
from tests.device.output_cases import ARPA, with_files
from tests.device.output_cases import CASES as OUTPUTS
from tests.device.stand_in import NAME, Counts, counted
from tests.ops.test_precision import noise

FILE = Path(__file__).with_name("figures.json")
FUNCTIONS = FILE.with_name("functions.json")
RANDOM = {"sampling", "sampling by beams"}
"""Cases with steps by chance."""
ALLOWED = ("crossing.py arrays", "crossing.py number", "models/decoder/logits.py __call__")
"""Functions that read values of the device; the last one has a result whose size depends on the texts so far."""
CASES = {**{f"class {name}": (name, outputs) for name, outputs in CLASSES.items()}, **OUTPUTS}


def measure(name: str, checkpoints: Callable[[str], Path], folder: Path) -> tuple[dict[str, int], Counts, Counts]:
    """Return the figures of a batch, what was counted, and what was counted within the pass alone."""
    checkpoint, outputs = CASES[name]
    (folder / "lm.arpa").write_text(ARPA)
    place = checkpoints(checkpoint)
    outputs = [with_files(output, checkpoints, str(folder / "lm.arpa")) for output in outputs]
    waves = [(wave * 32767 / 2).astype(np.int16) for wave in noise([1.5, 1.5, 1.2], seed=1)]
    label = labelling(place, outputs, NAME, texts=["seven two", "two", "one"])
    passes: list[Counts] = []
    run = Labelling.forward

    def run_and_count(*args: Any) -> Any:
        with counted() as of_pass:
            result = run(*args)
        passes.append(of_pass)
        return result

    label(waves)  # constants are made
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Labelling, "forward", run_and_count)
        with counted() as counts:
            rows = label(waves)
    assert {row["status"] for row in rows} == {"ok"}
    assert len(passes) == 1
    figures = {
        "launches": counts.launches,
        "waits": sum(counts.waits.values()),
        "copies in": sum(counts.copies_in.values()),
        "blocking in": sum(counts.blocking.values()),
        "pageable in": sum(counts.pageable_in.values()),
        "bytes in": counts.bytes_in,
        "copies out": sum(counts.copies_out.values()),
        "pageable out": sum(counts.pageable_out.values()),
        "bytes out": counts.bytes_out,
        "bytes moved": counts.bytes_moved,
        "largest bytes": counts.largest_bytes,
    }
    return figures, counts, passes[0]


@pytest.mark.parametrize("name", [name for name in CASES if name not in RANDOM])
def test_a_batch_costs_what_it_did(name, checkpoints, tmp_path):
    figures, counts, of_pass = measure(name, checkpoints, tmp_path)
    assert sum(of_pass.waits.values()) == 0, f"the host waits within the pass: {dict(of_pass.waits)}"
    assert of_pass.copies_in == {}, "copied within the pass"
    assert counts.blocking == {}, "copied to the device without pinned memory"
    assert [where for where in counts.waits if not function_of(where).endswith(ALLOWED)] == []
    recorded = json.loads(FILE.read_text())[name]
    new = "\n".join(lines_of_what_is_new(counts, json.loads(FUNCTIONS.read_text())[name]))
    assert figures == recorded, f"other than in functions.json:\n{new}"


def test_a_figure_that_grows_names_file_line_and_function_of_the_cause():
    counts = Counts(
        launches_at=Counter({"aten.add at a.py:3 f": 2, "aten.mul at a.py:9 f": 1, "aten.add at b.py:4 g": 5}),
        waits=Counter({"copy to the host at a.py:7 f": 1}),
    )
    recorded = {"launches": {"a.py f": 2, "b.py g": 5, "c.py h": 1}}
    assert [*lines_of_what_is_new(counts, recorded)] == [
        "launches, 3 and not 2 in a.py f: 2 aten.add at a.py:3 f; 1 aten.mul at a.py:9 f",
        "launches, 0 and not 1 in c.py h: ",
        "waits, 1 and not 0 in a.py f: 1 copy to the host at a.py:7 f",
    ]


def function_of(where: str) -> str:
    """Return file and function of a key of `Counts`, without the line, which moves with each change of a file."""
    return re.sub(r":\d+ ", " ", where.partition(" at ")[2])


def by_function(counts: Counts) -> dict[str, dict[str, int]]:
    """Return how often each function launched, waited and copied."""
    found: dict[str, dict[str, int]] = {}
    for kind, places in kinds_of(counts).items():
        sums = Counter[str]()
        for where, count in places.items():
            sums[function_of(where)] += count
        if sums:
            found[kind] = dict(sorted(sums.items()))
    return found


def kinds_of(counts: Counts) -> dict[str, Counter[str]]:
    return {
        "launches": counts.launches_at,
        "waits": counts.waits,
        "copies in": counts.copies_in,
        "copies out": counts.copies_out,
    }


def lines_of_what_is_new(counts: Counts, recorded: dict[str, dict[str, int]]) -> Iterator[str]:
    """Yield a line for each function with another number than was recorded, which names its lines."""
    found = by_function(counts)
    for kind, places in kinds_of(counts).items():
        now, before = found.get(kind, {}), recorded.get(kind, {})
        for function in sorted({*now, *before}):
            if now.get(function, 0) != before.get(function, 0):
                lines = "; ".join(f"{count} {at}" for at, count in places.items() if function_of(at) == function)
                yield f"{kind}, {now.get(function, 0)} and not {before.get(function, 0)} in {function}: {lines}"


def _made(folder: Path, name: str) -> Path:
    if name == "demo":
        return CHECKPOINT
    make_checkpoint(name, folder / "checkpoint")
    return folder / "checkpoint"


def write() -> None:
    found, functions = {}, {}
    for name in CASES:
        if name not in RANDOM:
            with tempfile.TemporaryDirectory() as folder:
                found[name], counts, of_pass = measure(name, functools.partial(_made, Path(folder)), Path(folder))
            functions[name] = by_function(counts)
            waits = "; ".join(f"{count} {where}" for where, count in (counts.waits + counts.copies_in).items())
            sys.stdout.write(f"{name}: {found[name]}\n    {waits}\n    pass: {of_pass.waits}, {of_pass.copies_in}\n")
    for file, rows in ((FILE, found), (FUNCTIONS, functions)):
        lines = ",\n".join(f"  {json.dumps(name)}: {json.dumps(row)}" for name, row in rows.items())
        file.write_text(f"{{\n{lines}\n}}\n")


if __name__ == "__main__":
    write()
