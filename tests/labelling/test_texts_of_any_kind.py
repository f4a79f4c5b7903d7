"""Ids and texts of any kind."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import raysp
from raysp import run
from tests.corpora import a_pipeline, digits_table


@pytest.mark.slow
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
