"""Columns that a label shard carries over, and those that are compared for word errors."""

import pytest

import raysp
from raysp.labelling.planning.run_plan import text_columns
from raysp.sink.word_errors import TextColumns
from raysp.specs import spec
from raysp.specs.outputs.output import Output


@spec
class Spelling(Output):
    """An output of a user that has a transcript and is no `Transcript`."""

    name: str = "spelled"

    @property
    def columns(self):
        return (self.name,)

    @property
    def text_column(self):
        return self.name


def pipeline(*outputs, text="text"):
    source = raysp.Shards("in/*.parquet", text=text)
    steps = [raysp.Decode(), raysp.Label("model", outputs=list(outputs))]
    return raysp.Pipeline(source, steps=steps, sink=raysp.Parquet("out"))


@pytest.mark.parametrize(
    ("outputs", "column"),
    [
        ((raysp.Transcript(),), "pred_text"),
        ((raysp.Embedding(), raysp.Transcript("asr"), raysp.Transcript("other")), "asr_text"),
        ((raysp.Embedding(), Spelling()), "spelled"),
    ],
)
def test_the_first_output_with_a_transcript_is_compared_with_the_reference(outputs, column):
    assert text_columns(pipeline(*outputs)) == TextColumns("text", column)


def test_without_a_transcript_or_without_a_reference_nothing_is_compared():
    assert text_columns(pipeline(raysp.Embedding(), raysp.Classes())) is None
    assert text_columns(pipeline(raysp.Transcript(), text=None)) is None
