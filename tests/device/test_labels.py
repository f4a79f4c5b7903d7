"""Every architecture, head, output and search on the stand-in device: the labels of the CPU, for one wait a batch."""

import numpy as np
import pytest

import raysp
from tests.backends import theirs
from tests.device.class_cases import CASES as CLASSES
from tests.device.conftest import assert_same, labelling, spoken
from tests.device.output_cases import ARPA, with_files
from tests.device.output_cases import CASES as OUTPUTS
from tests.device.stand_in import NAME, counted
from tests.ops.test_precision import noise
from tests.ops.waves import block_of

CASES = {**{f"class {name}": (name, outputs) for name, outputs in CLASSES.items()}, **OUTPUTS}
STEP_BY_STEP = {name for name in CASES if "generation" in name or "sampling" in name or "Decoder" in name} | {
    "class ParakeetForRNNT",
    "class ParakeetForTDT",
}
"""Texts that are written token by token: what comes next depends on values that the host reads."""
COSTS = {name: (2, 2) for name in CASES if name.startswith("turns by vectors")}
"""Waits and copies to the host. Regions of speech decide over the windows of which vectors are computed."""


@pytest.fixture(scope="module")
def rows_of():
    """Noise of one batch; real speech with its texts, one recording of several windows; a recording without a frame."""
    waves, texts = zip(*spoken(4), strict=True)
    noises = [(wave * 32767 / 2).astype(np.int16) for wave in noise([1.5, 1.5, 1.2, 0.02], seed=1)]
    return [*noises, *waves, np.concatenate(waves)], ["seven two", "two", "one", "one", *texts, " ".join(texts)]


@pytest.mark.parametrize("name", CASES)
def test_labels_are_those_of_the_cpu_and_a_batch_costs_one_copy_and_one_wait(name, rows_of, checkpoints, tmp_path):
    checkpoint, outputs = CASES[name]
    (tmp_path / "lm.arpa").write_text(ARPA)
    outputs = [with_files(output, checkpoints, str(tmp_path / "lm.arpa")) for output in outputs]
    waves, texts = rows_of
    label = labelling(checkpoints(checkpoint), outputs, NAME)
    rows = label(waves, texts)
    assert {row["error_type"] for row in rows} <= {None, "too_short"}
    assert [row["status"] for row in rows].count("ok") >= 4
    assert rows[-1]["status"] == "ok"
    if "turns" in name:
        assert rows[-1]["pred_turns"]
    assert_same(rows, labelling(checkpoints(checkpoint), outputs, "cpu")(waves, texts))
    with counted() as counts:
        assert {row["status"] for row in label(waves[:3], texts[:3])} == {"ok"}
    assert counts.blocking == {}
    if name not in STEP_BY_STEP:
        assert (sum(counts.waits.values()), sum(counts.copies_out.values())) == COSTS.get(name, (1, 1)), counts


@pytest.mark.filterwarnings("ignore:At least one mel filter has all zero values")
@pytest.mark.parametrize("kind", ["Whisper", "WavLMForCTC"])
def test_labels_of_transformers_are_those_of_the_cpu_and_features_come_from_no_value_of_the_device(kind, tmp_path):
    outputs = [raysp.Transcript(words=kind != "Whisper"), *([raysp.Embedding()] if kind == "Whisper" else [])]
    is_whisper = kind == "Whisper"
    folder = theirs.tiny_whisper(tmp_path) if is_whisper else theirs.tiny_waveform_model(tmp_path, kind)
    block = block_of([(32767 * wave).astype(np.int16) for wave in theirs.waves([16_000, 16_000, 9_600])])
    expected = theirs.labelling(folder, *outputs)(block)[0].to_pylist()
    op = theirs.labelling(folder, *outputs, device=NAME)
    op(block)  # constants are made
    with counted() as counts:
        rows = op(block)[0].to_pylist()
    assert [row["status"] for row in rows] == ["ok"] * 3
    assert_same(rows, expected)
    assert [one for one in (*counts.copies_out, *counts.waits) if "hugging_face/features" in one] == []
