"""Signals of recordings and texts, to filter rows by."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from raysp.specs.outputs.output import Output, OutputName
from raysp.specs.outputs.speech import Speech
from raysp.specs.values import spec

if TYPE_CHECKING:
    import pyarrow as pa

    from raysp.models.labelled_passes import LabellingModel
    from raysp.models.summary import CheckpointSummary
    from raysp.ops.adding import ColumnOp
    from raysp.ops.joining import JoinOp
    from raysp.ops.labelling import OutputOp
    from raysp.ops.measuring import Measuring

LEVELS = ("loudness", "peak", "clipped", "noise", "snr", "bandwidth", "speech_share")
OF_TEXT = ("chars_per_second", "words_per_second", "repetition", "repeats", "compression")


@spec
class Signals(Output):
    """Signals of a recording and of its transcript, to filter rows by: column `<name>`, a struct of float32.

    `loudness` (LUFS, ITU-R BS.1770-4), `peak` (dBFS), `clipped` (share of the samples), `noise` (dBFS), `snr` (dB),
    `bandwidth` (Hz) and `speech_share`, by the regions of a `Speech` of the same step if there is one, else by levels.
    Of the first transcript of the same step, null without one: `chars_per_second` (without spaces),
    `words_per_second`, `repetition` (words of the longest sequence that occurs twice), `repeats` (how often it occurs),
    `compression` (bytes over their zlib compression).

    Attributes:
        name: name of the column.
    """

    name: OutputName = "signal"

    @property
    def columns(self) -> tuple[str, ...]:
        """Column that the output adds."""
        return (self.name,)

    def schema(self, checkpoint: "CheckpointSummary") -> "pa.Schema":
        """Return the column with its type."""
        return self._schema()

    def _schema(self) -> "pa.Schema":
        import pyarrow as pa

        return pa.schema([(self.name, pa.struct([(field, pa.float32()) for field in (*LEVELS, *OF_TEXT)]))])

    def op(self, loaded: "LabellingModel") -> "OutputOp":
        """Return the op that computes the levels."""
        return self._measuring(loaded.summary)

    def join_op(self, checkpoint: "CheckpointSummary") -> "JoinOp":
        """Return the op that computes the levels from the windows of a longer row."""
        return self._measuring(checkpoint)

    def row_op(self, outputs: Sequence[Output]) -> "ColumnOp":
        """Return the op that adds the signals of the text."""
        from raysp.ops.measuring import TextMeasuring

        return TextMeasuring(
            self._schema(),
            text=next((one.text_column for one in outputs if one.text_column), None),
            speech=next((one.name for one in outputs if isinstance(one, Speech)), None),
        )

    def _measuring(self, checkpoint: "CheckpointSummary") -> "Measuring":
        import pyarrow as pa

        from raysp.ops.measuring import Measuring

        staged: dict[str, pa.DataType] = {
            "energies": pa.list_(pa.float32()),
            "weighted": pa.list_(pa.float32()),
            "clipped": pa.list_(pa.int32()),
            "cells": pa.int32(),
            "peak": pa.float64(),
            "spectrum": pa.list_(pa.float64()),
        }
        return Measuring(
            self._schema(),
            pa.schema([(f"{self.name}_{column}", kind) for column, kind in staged.items()]),
            sample_rate=checkpoint.sample_rate,
            frame_stride=checkpoint.frame_stride,
            at_quiet_points=checkpoint.writes_text,
        )
