"""`Agreement`: errors of a transcript against another text, in label shards and filters, as other packages count."""

import jiwer
import pyarrow as pa
import pytest

import raysp
from tests import kit
from tests.corpora import CHECKPOINT, a_pipeline, digits_table, write_shard


def labelled(folder, outputs, texts):
    table = digits_table(6).drop_columns(["text"]).append_column("text", pa.array(texts, pa.string()))
    write_shard(folder / "in" / "a.parquet", table=table)
    pipeline = a_pipeline(f"{folder}/in/*.parquet", f"{folder}/out", label={"outputs": outputs})
    raysp.run(pipeline, engine="here", progress=False)
    return kit.rows(folder / "out")


def test_the_text_is_compared_with_a_column_of_the_source(tmp_path):
    texts = [*digits_table(3).column("text").to_pylist(), "seven seven", "", None]
    found = labelled(tmp_path, [raysp.Transcript(), raysp.Agreement("text")], texts)
    assert [row["agreement"]["edits"] for row in found[:4]] == [0, 0, 0, 2]
    assert found[3]["agreement"] == {"wer": 1.0, "cer": pytest.approx(1.0, abs=0.4), "edits": 2, "words": 2}
    assert found[4]["agreement"]["wer"] == 1.0
    assert found[4]["agreement"]["words"] == 0
    assert found[5]["agreement"] is None


def respelled(rows: pa.Table) -> dict[str, list[str | None]]:
    return {"respelled": [text and f"{text.upper()} {text}" for text in rows["text"].to_pylist()]}


@pytest.mark.parametrize("label", [{}, {"window_seconds": 0.2, "overlap_seconds": 0.1}])
def test_a_column_that_a_step_adds_is_compared_in_rows_of_any_number_of_windows(tmp_path, label):
    write_shard(tmp_path / "in" / "a.parquet", table=digits_table(3))
    steps = [
        raysp.Map(respelled, reads=["text"], adds={"respelled": "string"}),
        raysp.Decode(),
        raysp.Label(str(CHECKPOINT), outputs=[raysp.Transcript(), raysp.Agreement("respelled")], **label),
    ]
    raysp.run(a_pipeline(f"{tmp_path}/in/*.parquet", f"{tmp_path}/out", steps=steps), engine="here", progress=False)
    for row, text in zip(kit.rows(tmp_path / "out"), digits_table(3).column("text").to_pylist(), strict=True):
        other = f"{text} {text}".lower()
        assert row["respelled"].lower() == other
        assert row["agreement"]["words"] == len(other.split())
        assert row["agreement"]["wer"] == pytest.approx(jiwer.wer(other, row["pred_text"].lower()))
        assert row["agreement"]["cer"] == pytest.approx(jiwer.cer(other, row["pred_text"].lower()))
