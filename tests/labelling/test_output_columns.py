"""Columns that are compared for word errors: the reference, and the first transcript of the outputs."""

import pytest

import raysp
from raysp.sink.receipts import TextColumns
from tests.corpora import a_pipeline
from tests.user_specs import Spelled


def compared(folder, *outputs, text="text"):
    """Return the columns that a run compares."""
    source = raysp.Shards(f"{folder}/in", text=text)
    found = TextColumns.of(a_pipeline(source, folder / "out", label={"outputs": list(outputs)}))
    return None if found is None else (found.reference, found.hypothesis)


@pytest.mark.parametrize(
    ("outputs", "column"),
    [
        ((raysp.Transcript(),), "pred_text"),
        ((raysp.Embedding(), raysp.Transcript("asr"), raysp.Transcript("other")), "asr_text"),
        ((raysp.Embedding(), Spelled()), "spelled"),
    ],
)
def test_the_first_output_with_a_transcript_is_compared_with_the_reference(tmp_path, outputs, column):
    assert compared(tmp_path, *outputs) == ("text", column)


def test_without_a_transcript_or_without_a_reference_nothing_is_compared(tmp_path):
    assert compared(tmp_path, raysp.Embedding(), raysp.Signals()) is None
    assert compared(tmp_path, raysp.Transcript(), text=None) is None
