"""Mean opinion scores of recordings."""

from dataclasses import KW_ONLY
from typing import TYPE_CHECKING, ClassVar

from raysp.specs.outputs.output import MOS_MODEL, Output, OutputName, columns_of
from raysp.specs.values import spec

if TYPE_CHECKING:
    import pyarrow as pa

    from raysp.models.labelled_passes import CheckpointSummary, LabellingModel
    from raysp.ops.rating import Rating


@spec
class Mos(Output):
    """Mean opinion scores of a recording, 1 to 5, by DNSMOS P.835 (`raysp[mos]`): column `<name>`, a struct of float32.

    `signal`, `background` and `overall` rate the speech, the quiet of its background, and both. They are those of
    `speechmos.dnsmos.run` for the samples that the checkpoint hears, on one CPU thread each.

    Attributes:
        name: name of the column.
    """

    MODELS: ClassVar = {MOS_MODEL: "weights"}
    past_seconds: ClassVar = 10.0  # of a segment of 9.01 s and the hop, which begins at whole seconds

    name: OutputName = "mos"
    _: KW_ONLY

    def schema(self, checkpoint: "CheckpointSummary") -> "pa.Schema":
        """Return the column with its type."""
        import pyarrow as pa

        scores = [(score, pa.float32()) for score in ("signal", "background", "overall")]
        return pa.schema([(self.name, pa.struct(scores))])

    def op(self, checkpoint: "CheckpointSummary", loaded: "LabellingModel | None" = None) -> "Rating":
        """Return the op that computes the column, with its model if the model of the step is loaded."""
        import pyarrow as pa

        from raysp.ops.rating import Rating, dnsmos

        staged = columns_of(self.name, outputs=pa.list_(pa.float32()))
        return Rating(self.schema(checkpoint), staged, None if loaded is None else dnsmos())
