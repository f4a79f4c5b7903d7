"""Classes of recordings, and segments of classes."""

from dataclasses import KW_ONLY
from typing import TYPE_CHECKING, ClassVar, Literal, Self

from raysp.capabilities import Capability
from raysp.errors import CheckpointError
from raysp.specs.outputs.output import Output, OutputName, columns_of, spans_of
from raysp.specs.values import Count, NotNegative, Share, spec
from raysp.words import count

if TYPE_CHECKING:
    import pyarrow as pa

    from raysp.models.labelled_passes import CheckpointSummary, LabellingModel
    from raysp.ops.classifying import Classifying, Segmenting


@spec
class Classes(Output):
    """Classes or numbers of a recording by a classification checkpoint: columns `<name>` and `<name>_scores`.

    The `problem_type` of config.json decides: one class of several with probabilities (softmax), independent classes
    (multi-label, sigmoid), or numbers (regression), whose scores are the values of the head.

    Attributes:
        name: name of the first column, and prefix of the second.
        top_k: number of classes, the most likely first. The columns are lists if it is above 1, for "all", and for
            multi-label checkpoints, which return all classes above `threshold`, or "all". A regression has one number,
            or with "all" the numbers of all outputs in the order of the head.
        threshold: for multi-label checkpoints: classes with a probability above it; None: 0.5.
    """

    needs: ClassVar = (Capability.CLASSES,)
    allows_gaps: ClassVar = True
    NOT_HASHED: ClassVar = ("threshold",)

    name: OutputName = "pred_label"
    _: KW_ONLY
    top_k: Count | Literal["all"] = 1
    threshold: Share | None = None

    @classmethod
    def examples(cls) -> tuple[Self, ...]:
        """Return the default, and an output of all numbers of a regression, which have no best one."""
        return (cls(), cls(top_k="all"))

    def __post_init__(self) -> None:
        """Check that a threshold leaves out classes."""
        if self.top_k == "all" and self.threshold is not None:
            raise ValueError(f"found threshold={self.threshold:g} with top_k='all', which returns all classes")

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns that the output adds."""
        return (self.name, f"{self.name}_scores")

    def schema(self, checkpoint: "CheckpointSummary") -> "pa.Schema":
        """Return the columns with their types."""
        import pyarrow as pa

        kinds: list[pa.DataType] = [pa.string(), pa.float32()]
        if self.top_k != 1 or checkpoint.is_multi_label:
            kinds = [pa.list_(kind) for kind in kinds]
        return pa.schema(list(zip(self.columns, kinds, strict=True)))

    def check(self, checkpoint: "CheckpointSummary") -> None:
        """Check `top_k` and `threshold` against the kind of the checkpoint's outputs.

        Raises:
            CheckpointError: one has no meaning there.
        """
        if not {*self.needs} & {*checkpoint.gives}:
            return
        where, number = f"{checkpoint.path}: Classes(top_k={self.top_k!r})", len(checkpoint.labels)
        if self.threshold is not None and not checkpoint.is_multi_label:
            raise CheckpointError(
                f"{checkpoint.path}: Classes(threshold={self.threshold:g}) is for multi-label checkpoints; "
                f"problem_type is {checkpoint.problem_type!r}; leave it out"
            )
        if checkpoint.is_multi_label and self.top_k not in (1, "all"):
            raise CheckpointError(
                f"{where}: the checkpoint is multi-label, its classes are independent; give threshold=..., or "
                "top_k='all' for all probabilities"
            )
        if checkpoint.is_regression and self.top_k not in ((1, "all") if number == 1 else ("all",)):
            raise CheckpointError(
                f"{where}: the checkpoint is a regression with {count(number, 'number')}, which have no order; give "
                f"top_k='all'{' or 1' if number == 1 else ''}"
            )

    def op(self, checkpoint: "CheckpointSummary", loaded: "LabellingModel | None" = None) -> "Classifying":
        """Return the op that computes the columns."""
        import pyarrow as pa

        from raysp.ops.classifying import Classifying

        return Classifying(
            self.schema(checkpoint),
            columns_of(self.name, logits=pa.list_(pa.float32()), weight=pa.int32()),
            checkpoint.labels,
            top_k=len(checkpoint.labels) if self.top_k == "all" else self.top_k,
            problem_type=checkpoint.problem_type,
            threshold=-1 if self.top_k == "all" else 0.5 if self.threshold is None else self.threshold,
            as_list=self.top_k != 1,
        )


@spec
class Segments(Output):
    """Segments in which a frame classifier detects each of its classes, such as a speaker: column `<name>`.

    Attributes:
        name: name of the column.
        threshold: a segment of a class begins where its probability exceeds this.
        end_threshold: it ends where its probability no longer exceeds this; None: `threshold`.
        min_seconds: shorter segments are dropped.
        merge_seconds: segments of a class with a shorter gap between them become one, before short ones are dropped.
    """

    needs: ClassVar = (Capability.FRAME_CLASSES,)
    allows_gaps: ClassVar = True
    NOT_HASHED: ClassVar = ("end_threshold", "merge_seconds")

    name: OutputName = "pred_segments"
    _: KW_ONLY
    threshold: Share = 0.5
    end_threshold: Share | None = None
    min_seconds: NotNegative = 0
    merge_seconds: NotNegative = 0

    def __post_init__(self) -> None:
        """Check the order of the thresholds."""
        if self.end_threshold is not None and self.end_threshold > self.threshold:
            raise ValueError(
                f"found end_threshold={self.end_threshold:g}; expected at most threshold={self.threshold:g}, at which "
                "a segment begins"
            )

    def schema(self, checkpoint: "CheckpointSummary") -> "pa.Schema":
        """Return the column with its type."""
        import pyarrow as pa

        return pa.schema([(self.name, spans_of("label"))])

    def op(self, checkpoint: "CheckpointSummary", loaded: "LabellingModel | None" = None) -> "Segmenting":
        """Return the op that computes the column."""
        import pyarrow as pa

        from raysp.ops.classifying import Segmenting

        return Segmenting(
            self.schema(checkpoint),
            columns_of(self.name, probabilities=pa.list_(pa.float32())),
            checkpoint.labels,
            frame_seconds=checkpoint.frame_seconds,
            threshold=self.threshold,
            end_threshold=self.end_threshold,
            min_seconds=self.min_seconds,
            merge_seconds=self.merge_seconds,
        )
