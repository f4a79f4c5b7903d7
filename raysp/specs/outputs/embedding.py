"""Vectors of recordings or frames."""

from collections.abc import Sequence
from dataclasses import KW_ONLY
from typing import TYPE_CHECKING, Annotated, Literal, cast

from pydantic import Field

from raysp.capabilities import Capability
from raysp.errors import CheckpointError
from raysp.specs.outputs.output import Output, OutputName
from raysp.specs.values import Listed, spec

if TYPE_CHECKING:
    import pyarrow as pa

    from raysp.models.labelled_passes import CheckpointSummary, LabellingModel
    from raysp.models.loading import LoadedCheckpoint
    from raysp.ops.embeddings import FrameEmbeddings, MeanEmbedding, SeveralLayers, SpeakerEmbedding


Layer = Annotated[int, Field(ge=-1)]


@spec
class Embedding(Output):
    """Embedding of a recording: column `<name>`.

    Attributes:
        name: name of the column.
        layer: -1 is `last_hidden_state`, k >= 0 is `hidden_states[k]` (0: the input of the first layer). Several layers
            give a list of their embeddings in this order, "all" for all `hidden_states`. "mix" is the sum of all
            `hidden_states`, weighted as a head of the checkpoint learned (`use_weighted_layer_sum`).
        pooling: "mean" over all frames; "none": a vector per frame; "xvector": the output of a speaker head.
        dtype: dtype of the stored numbers.
        normalize: scale vectors to length 1.
    """

    name: OutputName = "embedding"
    _: KW_ONLY
    layer: Layer | Listed[Layer] | Literal["all", "mix"] = -1
    pooling: Literal["mean", "none", "xvector"] = "mean"
    dtype: Literal["float32", "float16"] = "float32"
    normalize: bool = False

    def __post_init__(self) -> None:
        """Check that layers are named once, and only for outputs without a speaker head."""
        if isinstance(self.layer, tuple) and (not self.layer or len({*self.layer}) < len(self.layer)):
            raise ValueError(f"found layer={self.layer!r}; expected different layers, at least one")
        if self.pooling == "xvector" and self.layer != -1:
            raise ValueError(f"found layer={self.layer!r} with pooling='xvector', which reads no layer; leave it out")

    @property
    def allows_gaps(self) -> bool:
        """Whether windows may leave out silence: vectors of frames without times would lose their places."""
        return self.pooling != "none"

    @property
    def is_one_vector(self) -> bool:
        """Whether a recording has one vector, not one for each frame or layer."""
        return self.pooling != "none" and not self._is_several

    @property
    def needs(self) -> tuple[Capability, ...]:
        """The capability of hidden states, or for `pooling="xvector"` of speaker vectors."""
        return (Capability.XVECTOR,) if self.pooling == "xvector" else (Capability.HIDDEN_STATES,)

    def check(self, checkpoint: "CheckpointSummary") -> None:
        """Check that the checkpoint has the layer, or the speaker head.

        Raises:
            CheckpointError: the checkpoint lacks it.
        """
        if self.pooling == "xvector" and not {*self.needs} & {*checkpoint.gives}:
            raise CheckpointError(
                f"{checkpoint.path}: {checkpoint.architecture} has no x-vectors; use pooling='mean' (such as --set "
                "steps.1.outputs.0.pooling=mean) or a checkpoint of a ...ForXVector model"
            )
        highest = checkpoint.num_hidden_states - 1
        if self.layer == "mix" and not checkpoint.has_layer_weights:
            raise CheckpointError(
                f"{checkpoint.path}: layer='mix', but no head of {checkpoint.architecture} has weights of layers "
                "(use_weighted_layer_sum); use layer='all' and weigh them yourself"
            )
        if max(layers := self._layers(checkpoint)) > highest:
            raise CheckpointError(
                f"{checkpoint.path}: layer={max(layers)}, found {highest} layers; give -1 to {highest}"
            )
        if len({self._size_of(layer, checkpoint) for layer in layers}) > 1:
            raise CheckpointError(
                f"{checkpoint.path}: layer={self.layer!r}, but -1 has {checkpoint.output_size} numbers and the others "
                f"{checkpoint.hidden_size}; use an output for each"
            )

    def schema(self, checkpoint: "CheckpointSummary") -> "pa.Schema":
        """Return the column: a list of the checkpoint's width, or a list of such lists; for each layer if several."""
        import pyarrow as pa

        kind = pa.list_(pa.float32() if self.dtype == "float32" else pa.float16(), self._size(checkpoint))
        of_layer = pa.list_(kind) if self.pooling == "none" else kind
        if self._is_several:
            return pa.schema([(self.name, pa.list_(of_layer, len(self._layers(checkpoint))))])
        return pa.schema([(self.name, of_layer)])

    @property
    def _is_several(self) -> bool:
        return self.layer == "all" or isinstance(self.layer, tuple)

    def _layers(self, checkpoint: "CheckpointSummary") -> Sequence[int]:
        """Return the numbers of the layers; 0 in place of a sum of all."""
        if self.layer == "all":
            return range(checkpoint.num_hidden_states)
        if self.layer == "mix":
            return (0,)
        return (self.layer,) if isinstance(self.layer, int) else self.layer

    def _size(self, checkpoint: "CheckpointSummary") -> int:
        if self.pooling == "xvector":
            return checkpoint.xvector_size or 0
        return self._size_of(self._layers(checkpoint)[0], checkpoint)

    @staticmethod
    def _size_of(layer: int, checkpoint: "CheckpointSummary") -> int:
        return checkpoint.output_size if layer == -1 else checkpoint.hidden_size

    def op(
        self, checkpoint: "CheckpointSummary", loaded: "LabellingModel | None" = None
    ) -> "MeanEmbedding | FrameEmbeddings | SpeakerEmbedding | SeveralLayers":
        """Return the op that computes the column."""
        from raysp.ops.embeddings import LEARNED_SUM, SeveralLayers, SpeakerEmbedding

        schema = self.schema(checkpoint)
        if self.pooling == "xvector":
            return SpeakerEmbedding(schema, self._staged(checkpoint, self.name), self.normalize)
        if self._is_several:
            ops = [self._of_layer(checkpoint, layer, f"{self.name}.{layer}") for layer in self._layers(checkpoint)]
            return SeveralLayers(schema, ops)
        [layer] = (LEARNED_SUM,) if self.layer == "mix" else self._layers(checkpoint)
        return self._of_layer(checkpoint, layer, self.name, loaded)

    def _of_layer(
        self, checkpoint: "CheckpointSummary", layer: int, prefix: str, loaded: "LabellingModel | None" = None
    ) -> "MeanEmbedding | FrameEmbeddings":
        from raysp.ops.embeddings import ChosenFrames, FrameEmbeddings, MeanEmbedding

        op = FrameEmbeddings if self.pooling == "none" else MeanEmbedding
        weighs = loaded is not None and checkpoint.has_layer_weights
        frames = ChosenFrames(layer, cast("LoadedCheckpoint", loaded).layer_weights if weighs else None)
        return op(self.schema(checkpoint), self._staged(checkpoint, prefix), frames, self.normalize)

    def _staged(self, checkpoint: "CheckpointSummary", prefix: str) -> "pa.Schema":
        import pyarrow as pa

        vector = pa.list_(pa.float32(), self._size(checkpoint))
        if self.pooling == "none":
            return pa.schema([(f"{prefix}_frames", pa.list_(vector))])
        return pa.schema([(f"{prefix}_sum", vector), (f"{prefix}_weight", pa.int32())])
