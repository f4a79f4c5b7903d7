"""Agreement of two texts of a row: of a transcript with another text, or of two columns."""

from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY
from typing import TYPE_CHECKING, ClassVar, Self

from raysp.specs.outputs.output import Output, OutputName, check_transcript
from raysp.specs.steps import Step
from raysp.specs.text_rules import Text, normalisation_of
from raysp.specs.values import Column, JsonValue, Named, spec

if TYPE_CHECKING:
    import pyarrow as pa

    from raysp.models.labelled_passes import CheckpointSummary
    from raysp.ops.agreeing import Agreeing


@spec
class Agreement(Output, Step):
    """Errors of a text against another text of the same recording: column `<name>`, a struct.

    An output of `Label`, where it compares a transcript; and a step before `Label` or without one, where it compares
    two columns.

    `wer` and `cer` are the edits between the two texts over the length of the other one, in words and in characters; a
    text without words counts as one of length 1, so two empty texts agree. `edits` is the number of edits in words,
    `words` that of the words of the other text. Null where one of the texts is null.

    Attributes:
        with_: column of the source, or of an earlier step, with the other text.
        of: name of the `Transcript` before it in the same step; or a `Column`, which a step needs.
        name: name of the column.
        normalise: normalisation of both texts, as of `evaluate`.
    """

    allows_gaps: ClassVar = True
    reads_whole_rows: ClassVar = True

    with_: Named
    _: KW_ONLY
    of: OutputName | Column = "pred"
    name: OutputName = "agreement"
    normalise: str | Text = "letters"

    @classmethod
    def examples(cls) -> tuple[Self, ...]:
        """Return an output for a column of texts, since there is no default."""
        return (cls("text"),)

    def __post_init__(self) -> None:
        """Check that there is such a normalisation.

        Raises:
            SpecError: its name is unknown, or its package is not installed.
        """
        normalisation_of(self.normalise)

    def check_order(self, before: Sequence[Output]) -> None:
        """Check that the transcript comes before this output.

        Raises:
            ValueError: it does not.
        """
        if isinstance(self.of, Column):
            return
        try:
            check_transcript(self.of, before, f"Agreement({self.with_!r}, of={self.of!r}) compares")
        except ValueError as error:
            raise ValueError(f"{error}, or compare a column: of=Column('{self.of}_text')") from None

    @property
    def texts_read(self) -> Mapping[str, str]:
        """The columns of the texts."""
        columns = (self.with_, self.of.name) if isinstance(self.of, Column) else (self.with_,)
        return dict.fromkeys(columns, "Agreement compares them")

    def check(self, facts: "pa.Schema | CheckpointSummary") -> None:
        """Check as a step that the texts are columns of strings; any checkpoint will do for an output.

        Raises:
            ValueError: a column holds values of another type.
        """
        import pyarrow as pa

        if isinstance(facts, pa.Schema):
            self.check_reads(facts)

    def label_fields(self, digests: Mapping[str, str]) -> dict[str, JsonValue]:
        """Return the fields that can change a label, with the version of a normalisation of another package."""
        return {**super().label_fields(digests), "rules": normalisation_of(self.normalise).description}

    def schema(self, checkpoint: object = None) -> "pa.Schema":
        """Return the column with its type."""
        import pyarrow as pa

        rates = [("wer", pa.float32()), ("cer", pa.float32())]
        return pa.schema([(self.name, pa.struct([*rates, ("edits", pa.int32()), ("words", pa.int32())]))])

    def op(self, facts: object = None, loaded: object = None) -> "Agreeing":
        """Return the op that computes the column."""
        from raysp.ops.agreeing import Agreeing

        return Agreeing(
            self.schema(),
            text=f"{self.of}_text" if isinstance(self.of, str) else self.of.name,
            other=self.with_,
            normalise=normalisation_of(self.normalise),
            is_column=isinstance(self.of, Column),
        )
