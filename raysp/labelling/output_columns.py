"""Columns that the steps of a pipeline add to a label shard."""

from typing import TYPE_CHECKING

import pyarrow as pa

from raysp.sink.word_errors import TextColumns
from raysp.specs.pipeline import Pipeline
from raysp.specs.steps import EACH

if TYPE_CHECKING:
    from raysp.models.summary import CheckpointSummary


def added_schema(pipeline: Pipeline) -> pa.Schema:
    """Return the columns that steps before `Label` add."""
    return pa.schema([field for step in pipeline.before_label if step.columns for field in step.schema()])


def output_schema(pipeline: Pipeline, checkpoint: "CheckpointSummary") -> pa.Schema:
    """Return the columns that all steps add; where each channel is labelled, outputs are lists."""
    from raysp.ops.channels.channel_windows import listed

    outputs = pa.schema([field for output in pipeline.label.outputs for field in output.schema(checkpoint)])
    for output in pipeline.label.outputs:
        outputs = output.completed(outputs, pipeline.label.outputs)
    each_channel = pipeline.decode.channel == EACH
    return pa.schema([*added_schema(pipeline), *(listed(outputs) if each_channel else outputs)])


def text_columns(pipeline: Pipeline) -> TextColumns | None:
    """Return the columns of the reference and of the first transcript; None if either is missing."""
    reference = pipeline.source.text
    transcript = next((output.text_column for output in pipeline.label.outputs if output.text_column), None)
    return TextColumns(reference, transcript) if reference and transcript else None
