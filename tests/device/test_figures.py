"""Launches, waits and copies of one batch of each class and output, as in `figures.json`.

`python -m tests.device.test_figures` writes the file anew: look at its diff, since each number is time on a GPU.
"""

import json
import sys
import tempfile
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
RANDOM = {"sampling", "sampling by beams"}
"""Cases with steps by chance."""
SEARCHES = {"beams", "n-best texts", "beams with a language model", "beams over pieces"}
"""Cases whose number of steps depends on which tokens are likely, and so a little on the CPU."""
ALLOWED = ("crossing.py _unpacked", "crossing.py number", "models/decoder/logits.py __call__")
"""Functions that read values of the device; the last one has a result whose size depends on the texts so far."""
CASES = {**{f"class {name}": (name, outputs) for name, outputs in CLASSES.items()}, **OUTPUTS}


def measure(name: str, folder: Path) -> tuple[dict[str, int], Counts, Counts]:
    """Return the figures of a batch, what was counted, and what was counted within the pass alone."""
    checkpoint, outputs = CASES[name]
    (folder / "lm.arpa").write_text(ARPA)
    place = CHECKPOINT
    if checkpoint != "demo":
        place = folder / "checkpoint"
        make_checkpoint(checkpoint, place)
    outputs = [with_files(output, {"demo": CHECKPOINT}, str(folder / "lm.arpa")) for output in outputs]
    waves = [(wave * 32767 / 2).astype(np.int16) for wave in noise([1.5, 1.5, 1.2], seed=1)]
    label = labelling(place, outputs, NAME, texts=["seven two", "two", "one"])
    passes: list[Counts] = []
    run = Labelling._on_device

    def run_and_count(*args: Any) -> Any:
        with counted() as of_pass:
            result = run(*args)
        passes.append(of_pass)
        return result

    label(waves)  # constants are made
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Labelling, "_on_device", run_and_count)
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
    }
    return figures, counts, passes[0]


@pytest.mark.parametrize("name", [name for name in CASES if name not in RANDOM])
def test_a_batch_costs_what_it_did(name, tmp_path):
    figures, counts, of_pass = measure(name, tmp_path)
    assert sum(of_pass.waits.values()) == 0, f"the host waits within the pass: {dict(of_pass.waits)}"
    assert sum(of_pass.copies_in.values()) == 1, f"copied within the pass: {dict(of_pass.copies_in)}"
    assert [where for where in counts.waits if not where.endswith(ALLOWED)] == []
    places = "\n".join(
        f"  {count:4} {where}" for kind in (counts.waits, counts.copies_in) for where, count in kind.items()
    )
    recorded = json.loads(FILE.read_text())[name]
    for what, tolerance in (("launches", 0.02), ("bytes in", 0.02), ("bytes out", 0.02)):
        if name in SEARCHES and figures[what] == pytest.approx(recorded[what], rel=tolerance):
            figures[what] = recorded[what]
    assert figures == recorded, f"waits and copies to the device:\n{places}"


def write() -> None:
    found = {}
    for name in CASES:
        if name not in RANDOM:
            with tempfile.TemporaryDirectory() as folder:
                found[name], counts, of_pass = measure(name, Path(folder))
            waits = "; ".join(f"{count} {where}" for where, count in (counts.waits + counts.copies_in).items())
            sys.stdout.write(f"{name}: {found[name]}\n    {waits}\n    pass: {of_pass.waits}, {of_pass.copies_in}\n")
    lines = ",\n".join(f"  {json.dumps(name)}: {json.dumps(figures)}" for name, figures in found.items())
    FILE.write_text(f"{{\n{lines}\n}}\n")


if __name__ == "__main__":
    write()
