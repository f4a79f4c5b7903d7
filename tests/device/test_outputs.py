"""Every output, search and kind of decoding on the stand-in device: the labels of the CPU."""

import numpy as np
import pyarrow.parquet as pq
import pytest

import raysp
from raysp.audio import decode
from raysp.ops.labelling import Labelling
from raysp.ops.rows import Place, with_places
from tests.corpora import CHECKPOINT, DEMO
from tests.device.conftest import assert_same, labelling
from tests.device.output_cases import ARPA, CASES, with_files
from tests.device.stand_in import NAME
from tests.ops.test_labelling import block_of


@pytest.fixture(scope="module")
def spoken():
    """Real speech with its texts: five digits, and four of them in one recording of several windows."""
    cells = pq.ParquetFile(min((DEMO / "audio").glob("*.parquet"))).read_row_group(0, ["audio", "text"]).to_pylist()
    waves = [decode(cell["audio"]["bytes"], sample_rate=16_000) for cell in cells[:5]]
    texts = [cell["text"] for cell in cells[:5]]
    return [*waves, np.concatenate(waves[:4])], [*texts, " ".join(texts[:4])]


@pytest.fixture(scope="module")
def language_model(tmp_path_factory):
    path = tmp_path_factory.mktemp("lm") / "lm.arpa"
    path.write_text(ARPA)
    return str(path)


@pytest.mark.parametrize("name", CASES)
def test_labels_are_those_of_the_cpu(name, spoken, checkpoints, language_model):
    checkpoint, outputs = CASES[name]
    outputs = [with_files(output, checkpoints, language_model) for output in outputs]
    waves, texts = spoken
    rows = labelling(checkpoints(checkpoint), outputs, NAME, texts=texts)(waves)
    # Speaker vectors need more frames than the shortest digit has.
    assert {row["error_type"] for row in rows} <= {None, "too_short" if "vectors" in name else None}
    assert rows[-1]["status"] == "ok"
    if "turns" in name:
        assert rows[-1]["pred_turns"]
    assert_same(rows, labelling(checkpoints(checkpoint), outputs, "cpu", texts=texts)(waves))


@pytest.mark.parametrize(
    "output",
    [raysp.Transcript(words=True), raysp.Transcript(beams=4), raysp.Transcript(beams=4, hot_words={"seven": 4.0})],
    ids=["greedy", "beams", "hot words"],
)
def test_windows_that_are_cut_at_pauses_are_joined_as_on_the_cpu(output, spoken):
    waves = [(wave * 32767).astype(np.int16) if wave.dtype != np.int16 else wave for wave in spoken[0][:2]]
    places = [Place(3, 0, len(wave) // 320 - 1, np.ones(4, np.float32), 0, len(wave)) for wave in waves]

    def label(device: str) -> list[dict[str, object]]:
        op = Labelling(
            str(CHECKPOINT), lambda loaded: [output.op(loaded.summary, loaded)], batch_seconds=8, device=device
        )
        return op(with_places(block_of(waves), places))[0].to_pylist()

    assert_same(label(NAME), label("cpu"))
