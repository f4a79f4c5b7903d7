"""A batch of any class and output costs one copy to the host and one wait, and nothing within its pass."""

import numpy as np
import pytest

from raysp.ops.labelling import Batch
from tests.device.class_cases import CASES as CLASSES
from tests.device.conftest import labelling
from tests.device.output_cases import ARPA, with_files
from tests.device.output_cases import CASES as OUTPUTS
from tests.device.stand_in import NAME, counted
from tests.ops.test_precision import noise

CASES = {**{f"class {name}": (name, outputs) for name, outputs in CLASSES.items()}, **OUTPUTS}
STEP_BY_STEP = {name for name in CASES if "generation" in name or "sampling" in name or "Decoder" in name} | {
    "class ParakeetForRNNT",
    "class ParakeetForTDT",
}
"""Texts that are written token by token: what comes next depends on values that the host reads."""
COSTS = {name: (2, 2) for name in CASES if name.startswith("turns by vectors")}
"""Waits and copies to the host. Regions of speech decide over the windows of which vectors are computed."""


@pytest.mark.parametrize("name", CASES)
def test_a_batch_has_one_copy_to_the_host_and_one_wait(name, checkpoints, tmp_path, monkeypatch):
    checkpoint, outputs = CASES[name]
    (tmp_path / "lm.arpa").write_text(ARPA)
    outputs = [with_files(output, checkpoints, str(tmp_path / "lm.arpa")) for output in outputs]
    waves = [(wave * 32767 / 2).astype(np.int16) for wave in noise([1.5, 1.5, 1.2], seed=1)]
    label = labelling(checkpoints(checkpoint), outputs, NAME, texts=["seven two", "two", "one"])
    label(waves)  # constants are made
    passes, run = [], Batch.forward

    def run_and_count(*args):
        with counted() as counts:
            result = run(*args)
        passes.append(counts)
        return result

    monkeypatch.setattr(Batch, "forward", run_and_count)  # no public name is a pass alone
    with counted() as counts:
        assert {row["status"] for row in label(waves)} == {"ok"}
    [within] = passes
    assert (within.waits, within.copies_in, counts.blocking) == ({}, {}, {})
    if name not in STEP_BY_STEP:
        assert (sum(counts.waits.values()), sum(counts.copies_out.values())) == COSTS.get(name, (1, 1)), counts
