"""Vectors of recordings or frames."""

from dataclasses import KW_ONLY
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from raysp.specs.outputs.output import Output, OutputName
from raysp.specs.values import spec

if TYPE_CHECKING:
    import pyarrow as pa

    from raysp.models.base.capabilities import Capability
    from raysp.models.loading import LoadedCheckpoint
    from raysp.models.summary import CheckpointSummary
    from raysp.ops.embedding import FrameEmbeddings, MeanEmbedding, SpeakerEmbedding
    from raysp.ops.joining import JoinOp
    from raysp.ops.labelling import OutputOp


@spec
class Embedding(Output):
    """Embedding of a recording: column `<name>`.

    Attributes:
        name: name of the column.
        layer: -1 is `last_hidden_state`, k >= 0 is `hidden_states[k]` (0: the input of the first layer).
        pooling: "mean" over all frames; "none": a vector per frame; "xvector": the output of a speaker head.
        dtype: dtype of the stored numbers.
        normalize: scale vectors to length 1.
    """

    name: OutputName = "embedding"
    _: KW_ONLY
    layer: Annotated[int, Field(ge=-1)] = -1
    pooling: Literal["mean", "none", "xvector"] = "mean"
    dtype: Literal["float32", "float16"] = "float32"
    normalize: bool = False

    @property
    def columns(self) -> tuple[str, ...]:
        """Column that the output adds."""
        return (self.name,)

    @property
    def needs(self) -> "tuple[Capability, ...]":
        """Hidden states, or the vectors of a speaker head."""
        from raysp.models.base.capabilities import Capability

        return (Capability.XVECTOR,) if self.pooling == "xvector" else (Capability.HIDDEN_STATES,)

    def check(self, checkpoint: "CheckpointSummary") -> None:
        """Check that the checkpoint has the layer, or the speaker head.

        Raises:
            CheckpointError: it does not.
        """
        from raysp.errors import CheckpointError

        if self.pooling == "xvector" and not {*self.needs} & {*checkpoint.gives}:
            raise CheckpointError(
                f"{checkpoint.path}: {checkpoint.architecture} has no x-vectors; use pooling='mean' or a checkpoint "
                "of a ...ForXVector model"
            )
        if self.layer > checkpoint.num_layers:
            raise CheckpointError(
                f"{checkpoint.path}: layer={self.layer}, found {checkpoint.num_layers} layers; give -1 to "
                f"{checkpoint.num_layers}"
            )

    def schema(self, checkpoint: "CheckpointSummary") -> "pa.Schema":
        """Return the column: a list of the checkpoint's width, or a list of such lists."""
        import pyarrow as pa

        kind = pa.list_(pa.float32() if self.dtype == "float32" else pa.float16(), self._size(checkpoint))
        return pa.schema([(self.name, pa.list_(kind) if self.pooling == "none" else kind)])

    def _size(self, checkpoint: "CheckpointSummary") -> int:
        if self.pooling == "xvector":
            return checkpoint.xvector_size or 0
        return checkpoint.output_size if self.layer == -1 else checkpoint.hidden_size

    def op(self, loaded: "LoadedCheckpoint") -> "OutputOp":
        """Return the op that computes the column."""
        return self._embedding(loaded.summary)

    def join_op(self, checkpoint: "CheckpointSummary") -> "JoinOp":
        """Return the op that computes the column from the windows of a longer row."""
        return self._embedding(checkpoint)

    def _embedding(self, checkpoint: "CheckpointSummary") -> "MeanEmbedding | FrameEmbeddings | SpeakerEmbedding":
        import pyarrow as pa

        from raysp.ops.embedding import FrameEmbeddings, MeanEmbedding, SpeakerEmbedding

        schema, vector = self.schema(checkpoint), pa.list_(pa.float32(), self._size(checkpoint))
        if self.pooling == "none":
            staged = pa.schema([(f"{self.name}_frames", pa.list_(vector))])
            return FrameEmbeddings(schema, staged, layer=self.layer, normalize=self.normalize)
        staged = pa.schema([(f"{self.name}_sum", vector), (f"{self.name}_weight", pa.int32())])
        if self.pooling == "xvector":
            return SpeakerEmbedding(schema, staged, normalize=self.normalize)
        return MeanEmbedding(schema, staged, layer=self.layer, normalize=self.normalize)
