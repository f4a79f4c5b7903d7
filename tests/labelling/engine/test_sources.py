"""Runs over other sources than Parquet, and ids and texts of any kind."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import raysp
from raysp import run
from tests import kit
from tests.corpora import a_pipeline, digits_table

pytestmark = pytest.mark.slow
ROWS = 24


def labels_of(source, sink) -> list[tuple]:
    """Label a source, and return ids, texts and rounded scores in the order of the source."""
    assert run(a_pipeline(str(source), sink), engine="here", progress=False).exit_code == 0
    return [(row["id"], row["pred_text"], round(row["pred_score"], 3)) for row in kit.rows(sink)]


@pytest.fixture(scope="module")
def expected(tmp_path_factory) -> list[tuple]:
    """Labels of the recordings in Parquet."""
    folder = tmp_path_factory.mktemp("expected")
    return labels_of(kit.corpus(folder / "in", ROWS).url, folder / "out")


def test_a_saved_data_set_has_the_labels_of_parquet(expected, tmp_path):
    kit.corpus(tmp_path, ROWS)
    (folder := tmp_path / "in").mkdir()
    table = pq.read_table(tmp_path / "part-0.parquet")
    with pa.OSFile(str(folder / "m.arrow"), "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
        writer.write_table(table, max_chunksize=7)
    (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": "m.arrow"}]}))
    (folder / "cache-1234.arrow").write_bytes(b"what map left behind")
    assert labels_of(folder, tmp_path / "labels") == expected


def test_a_manifest_has_the_labels_of_parquet_and_added_lines_are_labelled(expected, tmp_path):
    manifest = kit.corpus(tmp_path / "in", 20, kind="manifest").url
    assert labels_of(manifest, tmp_path / "labels") == expected[:20]
    kit.corpus(tmp_path / "in", ROWS, kind="manifest")
    assert labels_of(manifest, tmp_path / "labels") == expected
    assert sorted(kit.label_shards(tmp_path / "labels")) == ["manifest-00000.parquet", "manifest-00001.parquet"]
    again = run(a_pipeline(manifest, tmp_path / "labels"), engine="here", progress=False)
    assert [again.head(number)["id"].to_pylist() for number in (3, 22)] == [
        [row[0] for row in expected[:number]] for number in (3, 22)
    ]


def test_ids_and_texts_of_any_kind_are_stored_without_loss(tmp_path):
    ids = [
        b"nul \0",
        b"lone \xed\xa0\x80 surrogate",
        "\u202eright to left".encode(),
        "\U0001f600".encode(),
        b"x" * 1_000_000,
    ]
    ids += [b"\x1b[2J\x07", b"00:01 --> 00:02", b"=cmd|' /C calc'!A0", b"<script>alert(1)</script>", b"", None]
    texts = pa.array(ids, pa.binary()).view(pa.string())
    audio = [digits_table(1).column("audio")[0].as_py()] * len(ids)
    pq.write_table(pa.table({"id": texts, "audio": audio, "text": texts}), tmp_path / "t.parquet")
    sink = raysp.Parquet(str(tmp_path / "labels"), keep=["text"])
    result = run(a_pipeline(str(tmp_path / "t.parquet"), sink), engine="here", progress=False)
    found = pq.read_table(tmp_path / "labels" / "t.parquet")
    assert found.column("id").cast(pa.binary()).to_pylist() == ids
    assert found.column("text").cast(pa.binary()).to_pylist() == ids
    shown = result.head(20).column("id").to_pylist()
    assert shown[1] == "lone \ufffd\ufffd\ufffd surrogate"
