"""Word errors of runs, and `raysp report --normalise`: those of finished labels by a named normalisation."""

from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import raysp
from tests.corpora import CHECKPOINT, damaged, digits_table, write_shard

DIGITS = digits_table(6)
CORRECT = [text.lower() for text in DIGITS.column("text").to_pylist()]
LABEL = raysp.Label(str(CHECKPOINT), outputs=[raysp.Transcript()])


def made(tmp_path, text="text", label=LABEL, **fields: object) -> raysp.Pipeline:
    source, sink = raysp.Shards(f"{tmp_path}/in/*.parquet", text=text), raysp.Parquet(f"{tmp_path}/out", **fields)
    return raysp.Pipeline(source, steps=[raysp.Decode(), label], sink=sink)


@pytest.fixture
def corpus(tmp_path):
    """Write rows with references in lower case, with a full stop, none, and of a row that cannot be decoded."""
    texts = [CORRECT[0], CORRECT[1].upper(), f"{CORRECT[2]}.", None, *CORRECT[4:]]
    place = DIGITS.column_names.index("text")
    table = damaged(DIGITS.set_column(place, "text", pa.array(texts)), 5)
    write_shard(tmp_path / "in" / "a.parquet", table=table.slice(0, 3))
    write_shard(tmp_path / "in" / "b.parquet", table=table.slice(3))
    return tmp_path


def _equal(out) -> int:
    """Return the number of rows whose label is the reference, character by character."""
    rows = [row for name in "ab" for row in pq.read_table(out / f"{name}.parquet").to_pylist()]
    return sum(row["pred_text"] == row["text"] for row in rows if row["status"] == "ok" and row["text"] is not None)


@pytest.mark.parametrize("rows", ["all", "ok"])
def test_a_run_its_status_and_its_report_ignore_case_and_punctuation_unless_told_otherwise(corpus, raysp_command, rows):
    found = raysp.run(made(corpus, rows=rows), engine="here").word_errors
    assert (found.errors, found.rows, found.words, found.unlabelled) == (0, 4, 4, 1)
    assert raysp.status(f"{corpus}/out").word_errors == found
    shown = " ".join(raysp_command("status", corpus / "out").out.split())
    assert "0.00% of 4 reference words in 4 labelled rows (ignoring case and punctuation)" in shown
    page = corpus / "page.html"
    assert raysp_command("report", corpus / "out", "--out", page).code == 0
    before = page.read_text()
    assert "case and punctuation are ignored" in before
    assert raysp_command("report", corpus / "out", "--out", page, "--normalise", "none").code == 0
    after = page.read_text()
    assert "normalised by none, Unicode NFC and single spaces only" in after
    wrong = (4 - _equal(corpus / "out")) / 4
    assert (f">{wrong:.2%}<" in before, f">{wrong:.2%}<" in after) == (False, True)


def test_it_is_refused_where_no_word_errors_are_counted(corpus, raysp_command):
    raysp.run(made(corpus, text=None), engine="here")
    for name, reason in (
        ("loud", "found the normalisation 'loud', expected one of none, lower, letters"),
        ("lower", "source.text=None; set it to the column of the reference texts"),
    ):
        ran = raysp_command("report", corpus / "out", "--normalise", name)
        assert ran.code != 0
        assert reason in " ".join(ran.err.split())
    embeddings = made(corpus, label=raysp.Label(str(CHECKPOINT), outputs=[raysp.Embedding()]))
    raysp.run(replace(embeddings, sink=raysp.Parquet(f"{corpus}/vectors")), engine="here")
    with pytest.raises(raysp.PlanError, match="found no transcript among its labels"):
        raysp.report(f"{corpus}/vectors", normalise="lower")
