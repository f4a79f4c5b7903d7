"""Regions of speech in recordings."""

from dataclasses import KW_ONLY
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from raysp.specs.outputs.output import SPEECH_MODEL, Output, OutputName, columns_of, spans_of
from raysp.specs.values import NotNegative, spec

if TYPE_CHECKING:
    import pyarrow as pa

    from raysp.models.labelled_passes import CheckpointSummary, LabellingModel
    from raysp.ops.speech.speaking import Speaking


@spec
class Speech(Output):
    """Regions of a recording in which there is speech, found by Silero VAD (`raysp[speech]`): column `<name>`.

    The weights are from the package's safetensors, not from its program: they miss less speech.

    Attributes:
        name: name of the column.
        threshold: probability of speech at which a region begins; it ends 0.15 below.
        min_speech_seconds: shorter regions are dropped.
        min_silence_seconds: shorter pauses do not end a region.
    """

    MODELS: ClassVar = {SPEECH_MODEL: "weights"}
    allows_gaps: ClassVar = True  # regions cover the whole recording

    name: OutputName = "pred_speech"
    _: KW_ONLY
    threshold: Annotated[float, Field(gt=0, le=1)] = 0.5
    min_speech_seconds: NotNegative = 0.25
    min_silence_seconds: NotNegative = 0.1

    def schema(self, checkpoint: "CheckpointSummary") -> "pa.Schema":
        """Return the column with its type."""
        import pyarrow as pa

        return pa.schema([(self.name, spans_of())])

    def op(self, checkpoint: "CheckpointSummary", loaded: "LabellingModel | None" = None) -> "Speaking":
        """Return the op that computes the column, with its model on the device of the checkpoint's."""
        import pyarrow as pa

        from raysp.ops.speech.speaking import Speaking

        model = None
        if loaded is not None:
            from raysp.models.silero_vad import SileroVAD

            model = SileroVAD.from_package().to(loaded.device)
        return Speaking(
            self.schema(checkpoint),
            columns_of(self.name, probabilities=pa.list_(pa.float32()), offset=pa.int32(), samples=pa.int64()),
            model,
            frame_stride=checkpoint.frame_stride,
            threshold=self.threshold,
            min_speech_seconds=self.min_speech_seconds,
            min_silence_seconds=self.min_silence_seconds,
        )
