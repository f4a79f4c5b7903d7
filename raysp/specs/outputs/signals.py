"""Signals of recordings and texts, to filter rows by."""

from collections.abc import Sequence
from dataclasses import KW_ONLY
from typing import TYPE_CHECKING, ClassVar, cast

from raysp.errors import CheckpointError
from raysp.specs.outputs.output import Output, OutputName, columns_of
from raysp.specs.outputs.speech import Speech
from raysp.specs.values import spec

if TYPE_CHECKING:
    import pyarrow as pa

    from raysp.models.labelled_passes import CheckpointSummary, HearingModel, LabellingModel
    from raysp.ops.measuring import Measuring, Silence
    from raysp.ops.step_ops import ColumnOp

NO_SPEECH = "no_speech"
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
        no_speech: add `no_speech`, the probability that a recording has no speech, the mean of its windows. For Whisper
            by CTranslate2.
    """

    NOT_HASHED: ClassVar = {"no_speech": False}

    name: OutputName = "signal"
    _: KW_ONLY
    no_speech: bool = False

    def schema(self, checkpoint: "CheckpointSummary") -> "pa.Schema":
        """Return the column with its type."""
        import pyarrow as pa

        more = (NO_SPEECH,) if self.no_speech else ()
        return pa.schema([(self.name, pa.struct([(field, pa.float32()) for field in (*LEVELS, *OF_TEXT, *more)]))])

    def check(self, checkpoint: "CheckpointSummary") -> None:
        """Check that the checkpoint gives the probability of no speech, if it is asked for.

        Raises:
            CheckpointError: `no_speech` is set, and the checkpoint does not give this probability.
        """
        if self.no_speech and not checkpoint.finds_silence:
            raise CheckpointError(
                f"{checkpoint.path}: Signals(no_speech=True) is for Whisper by CTranslate2; {checkpoint.architecture} "
                f"by backend={checkpoint.backend!r} gives no such probability: leave it out"
            )

    def row_op(self, outputs: Sequence[Output], checkpoint: "CheckpointSummary") -> "ColumnOp":
        """Return the op that adds the signals of the text."""
        from raysp.ops.measuring import TextMeasuring

        return TextMeasuring(
            self.schema(checkpoint),
            text=next((output.text_column for output in outputs if output.text_column), None),
            speech=next((output.name for output in outputs if isinstance(output, Speech)), None),
        )

    def op(self, checkpoint: "CheckpointSummary", loaded: "LabellingModel | None" = None) -> "Measuring | Silence":
        """Return the op that computes the levels."""
        import pyarrow as pa

        from raysp.ops.measuring import Measuring, Silence

        staged = columns_of(
            self.name,
            energies=pa.list_(pa.float32()),
            weighted=pa.list_(pa.float32()),
            clipped=pa.list_(pa.int32()),
            cells=pa.int32(),
            peak=pa.float64(),
            spectrum=pa.list_(pa.float64()),
        )
        levels = Measuring(
            self.schema(checkpoint),
            staged,
            sample_rate=checkpoint.sample_rate,
            frame_stride=checkpoint.frame_stride,
            at_quiet_points=checkpoint.writes_text,
        )
        if not self.no_speech:
            return levels
        return Silence(levels, NO_SPEECH, None if loaded is None else cast("HearingModel", loaded).no_speech)
