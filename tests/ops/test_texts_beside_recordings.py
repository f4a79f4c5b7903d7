"""Outputs that read columns of the source: from every kind of source, through every way of a run."""

import io

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile

import raysp
from benchmarks.inputs.corpus import join, read_utterances
from tests.corpora import AUDIO, CHECKPOINT, DEMO, a_pipeline, write_shard

pytestmark = pytest.mark.slow

ALIGN = raysp.Align("text")
LABEL = {"outputs": [raysp.Transcript(), ALIGN], "window_seconds": 1, "overlap_seconds": 0.3}
ADDED = ["pred_text", "pred_score", *ALIGN.columns]
LABEL_COLUMNS = ["id", "row", "seconds", "status", "error_type", "error_message"]


@pytest.fixture(scope="module")
def rows() -> pa.Table:
    """Joined digits, half of them longer than a window; one has no text, one the wrong one, and one no recording."""
    speakers = list(read_utterances(str(DEMO / "audio" / "*.parquet")).values())
    found = []
    for number, seconds in enumerate([2, 0.3, 3, 2.5, 0.3, 2, 0.3, 4]):
        samples, chosen = join(np.random.default_rng(number), speakers[number % len(speakers)], seconds)
        file = io.BytesIO()
        soundfile.write(file, samples, chosen[0].sample_rate, format="FLAC")
        audio = {"bytes": file.getvalue(), "path": None}
        found.append({"id": f"r{number}", "audio": audio, "text": " ".join(one.text for one in chosen)})
    found[2]["text"] = None
    found[3]["text"] = "zero six seven " * 2
    found[4]["audio"] = {"bytes": b"", "path": None}
    schema = pa.schema({"id": pa.string(), "audio": AUDIO, "text": pa.string()})
    return pa.Table.from_pylist(found, schema)


@pytest.fixture(scope="module")
def labels(rows, tmp_path_factory) -> list[dict]:
    """Label rows of a run over a shard, in which some rows have several windows."""
    folder = tmp_path_factory.mktemp("aligned")
    write_shard(folder / "in" / "a.parquet", table=rows, row_group_size=5)
    raysp.run(a_pipeline(f"{folder}/in/*.parquet", folder / "out", label=LABEL), engine="here", progress=False)
    return pq.read_table(folder / "out" / "a.parquet").to_pylist()


def test_rows_are_aligned_with_their_own_texts(labels, rows):
    for row, text in zip(labels, rows.column("text").to_pylist(), strict=True):
        if row["status"] != "ok" or text is None:
            assert [row[name] for name in ALIGN.columns] == [None] * 3
            continue
        assert [word["word"] for word in row["aligned_words"] or ()] in (text.split(), [])
        if text != "zero six seven zero six seven ":
            assert row["aligned_score"] > -1
    assert labels[2]["status"] == "ok"
    assert labels[3]["aligned_score"] is None or labels[3]["aligned_score"] < -3
    assert labels[4]["error_type"] == "no_audio"


def alike(value: object) -> object:
    """Return a label to compare with another, whose numbers agree to 0.001."""
    if isinstance(value, float):
        return pytest.approx(value, rel=1e-3, abs=1e-3)
    if isinstance(value, list):
        return [*map(alike, value)]
    return {name: alike(one) for name, one in value.items()} if isinstance(value, dict) else value


@pytest.mark.parametrize("kept", [[], ["text"]])
def test_a_table_labelled_in_a_program_has_the_same_labels(labels, rows, kept):
    steps = [raysp.Decode(), raysp.Label(str(CHECKPOINT), **LABEL)]
    with raysp.Labeller(steps, keep=kept) as labeller:
        found = labeller(rows)
    assert found.column_names == ["id", *kept, *LABEL_COLUMNS[1:], *ADDED]
    for row, expected in zip(found.select(ADDED).to_pylist(), labels, strict=True):
        assert row == alike({name: expected[name] for name in ADDED})


def counted(table: pa.Table) -> dict[str, list[int]]:
    return {"characters": [len(text or "") for text in table.column("text").to_pylist()]}


def whole_rows(table: pa.Table) -> list[bool]:
    return [True] * table.num_rows


@pytest.mark.parametrize("reads_all", [False, True])
def test_steps_that_read_the_same_column_leave_it_to_outputs(labels, rows, tmp_path, reads_all):
    write_shard(tmp_path / "in" / "a.parquet", table=rows)
    adds = raysp.Map(counted, adds={"characters": "int64"}, reads=["text"])
    keep = [raysp.Keep(where="tests.ops.test_texts_beside_recordings:whole_rows")] if reads_all else []
    steps = [raysp.Decode(), adds, *keep, raysp.Label(str(CHECKPOINT), **LABEL)]
    raysp.run(a_pipeline(f"{tmp_path}/in/*.parquet", tmp_path / "out", steps=steps), engine="here", progress=False)
    found = pq.read_table(tmp_path / "out" / "a.parquet")
    assert found.column_names == [*LABEL_COLUMNS, "characters", *ADDED]
    words = [[one["word"] for one in row or ()] for row in found.column("aligned_words").to_pylist()]
    assert words == [[one["word"] for one in row["aligned_words"] or ()] for row in labels]


def test_rows_recomputed_alone_agree(rows, tmp_path):
    write_shard(tmp_path / "in" / "a.parquet", table=rows)
    raysp.run(a_pipeline(f"{tmp_path}/in/*.parquet", tmp_path / "out", label=LABEL), engine="here", progress=False)
    assert raysp.verify(str(tmp_path / "out"), sample=8, trust=True).differences == ()
