"""Columns of the source that outputs read: refused where they cannot be read, and part of the fingerprint."""

from dataclasses import replace

import pyarrow as pa
import pytest

import raysp
from raysp import CheckpointError, PlanError, SpecError
from tests.classifiers import make_classifier
from tests.corpora import CHECKPOINT, a_pipeline, rows_table, write_shard

ALIGN = raysp.Align("text")


@pytest.fixture
def rows() -> pa.Table:
    return rows_table(2)


def test_the_name_of_the_column_changes_the_fingerprint(rows, tmp_path):
    table = rows.append_column("said", rows.column("text"))
    write_shard(tmp_path / "in" / "a.parquet", table=table)
    plans = [
        raysp.plan(a_pipeline(f"{tmp_path}/in/*.parquet", tmp_path / "out", label={"outputs": [raysp.Align(name)]}))
        for name in ("text", "said")
    ]
    assert plans[0].fingerprint != plans[1].fingerprint


@pytest.mark.parametrize(
    ("output", "message"),
    [
        (
            raysp.Align("sentence"),
            "has no column 'sentence', expected one; its columns are id, audio, text, language",
        ),
        (raysp.Align("length"), "column 'length' holds int64, expected strings: Align aligns them"),
    ],
)
def test_a_plan_refuses_a_column_that_cannot_be_aligned(rows, tmp_path, output, message):
    table = rows.append_column("length", pa.array(range(rows.num_rows)))
    write_shard(tmp_path / "in" / "a.parquet", table=table if output.text == "length" else rows)
    with pytest.raises(PlanError, match=message):
        raysp.plan(a_pipeline(f"{tmp_path}/in/*.parquet", tmp_path / "out", label={"outputs": [output]}))


@pytest.mark.parametrize(
    ("output", "message"),
    [
        (
            raysp.Align("pred_text"),
            "Align reads the column 'pred_text', which steps.1. Label adds; outputs read columns",
        ),
        (raysp.Align("audio"), "Align reads the column 'audio', the recordings"),
    ],
)
def test_a_pipeline_refuses_a_column_that_is_no_text_of_the_source(output, message):
    with pytest.raises((SpecError, ValueError), match=message):
        a_pipeline(label={"outputs": [raysp.Transcript(), output]})


def test_a_misspelt_column_of_an_earlier_step_has_a_suggestion(rows, tmp_path):
    write_shard(tmp_path / "in" / "a.parquet", table=rows)
    first, late = (raysp.Label(str(CHECKPOINT), outputs=[one]) for one in (raysp.Transcript(), raysp.Align("pred_txt")))
    steps = [raysp.Decode(), first, late]
    said = r"has no column 'pred_txt', expected one; .*; steps add pred_text, .* \(did you mean 'pred_text'\?\)"
    with pytest.raises(PlanError, match=said):
        raysp.plan(a_pipeline(f"{tmp_path}/in/*.parquet", tmp_path / "out", steps=steps))


def test_a_checkpoint_without_a_ctc_head_is_refused(rows, tmp_path):
    write_shard(tmp_path / "in" / "a.parquet", table=rows)
    pipeline = a_pipeline(f"{tmp_path}/in/*.parquet", tmp_path / "out", label={"outputs": [ALIGN]})
    label = replace(pipeline.label, checkpoint=make_classifier(tmp_path / "model", "a", "b"))
    with pytest.raises(CheckpointError, match="does not support Align; it supports"):
        raysp.plan(replace(pipeline, steps=[raysp.Decode(), label]))
