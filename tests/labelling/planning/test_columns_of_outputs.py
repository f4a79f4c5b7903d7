"""Columns of the source that outputs read: refused where they cannot be read, and part of the fingerprint."""

import pyarrow as pa
import pytest

import raysp
from raysp import CheckpointError, PlanError, SpecError
from tests.classifiers import make_classifier
from tests.corpora import CHECKPOINT, a_pipeline, rows_table, write_shard


def planned(folder, *outputs: object, checkpoint: object = CHECKPOINT):
    """Plan a pipeline with a step for each output over rows with a text, the same text as `said`, and a number."""
    rows = rows_table(2)
    rows = rows.append_column("said", rows.column("text")).append_column("length", pa.array([1, 2]))
    write_shard(folder / "in" / "a.parquet", table=rows)
    steps = [raysp.Decode(), *(raysp.Label(str(checkpoint), outputs=[one]) for one in outputs)]
    return raysp.plan(a_pipeline(f"{folder}/in/*.parquet", folder / "out", steps=steps))


def test_the_name_of_the_column_changes_the_fingerprint(tmp_path):
    found = {planned(tmp_path, raysp.Align(name)).fingerprint for name in ("text", "said")}
    assert len(found) == 2


@pytest.mark.parametrize(
    ("outputs", "message"),
    [
        ([raysp.Align("sentence")], "has no column 'sentence', expected one; its columns are id, audio, text, lang"),
        ([raysp.Align("length")], "column 'length' holds int64, expected strings: Align aligns them"),
        (
            [raysp.Transcript(), raysp.Align("pred_txt")],
            r"has no column 'pred_txt', .*; steps add pred_text, .* \(did you mean 'pred_text'\?\)",
        ),
    ],
)
def test_a_plan_refuses_a_column_that_cannot_be_aligned(tmp_path, outputs, message):
    with pytest.raises(PlanError, match=message):
        planned(tmp_path, *outputs)


@pytest.mark.parametrize(
    ("column", "message"),
    [
        ("pred_text", "Align reads the column 'pred_text', which steps.1. Label adds; outputs read columns"),
        ("audio", "Align reads the column 'audio', the recordings"),
    ],
)
def test_a_pipeline_refuses_a_column_that_is_no_text_of_the_source(column, message):
    with pytest.raises(SpecError, match=message):
        a_pipeline(label={"outputs": [raysp.Transcript(), raysp.Align(column)]})


def test_a_checkpoint_without_a_ctc_head_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match="does not support Align; it supports"):
        planned(tmp_path, raysp.Align("text"), checkpoint=make_classifier(tmp_path / "model", "a", "b"))
