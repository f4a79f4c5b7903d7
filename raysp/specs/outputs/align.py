"""Times of given texts."""

from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY
from typing import TYPE_CHECKING, ClassVar, Literal, Self, cast

from raysp.capabilities import Capability
from raysp.errors import CheckpointError
from raysp.specs.outputs.output import (
    Output,
    OutputName,
    check_transcript,
    columns_of,
    schema_of,
    spoken,
    spoken_by,
)
from raysp.specs.values import Column, Named, spec

if TYPE_CHECKING:
    import pyarrow as pa

    from raysp.models.labelled_passes import CheckpointSummary, LabellingModel
    from raysp.ops.forward import OutputOp


@spec
class Align(Output):
    """Times of the words of a text, by forced alignment with the frames of a CTC checkpoint.

    The text comes from the source or an earlier `Label` step (`text`), or from a transcript of the same step (`of`).

    Columns `<name>_score`, `<name>_skipped`, `<name>_words` and `<name>_chars`; null where the text is null.
    `<name>_score` is the log-probability of the text on its best path, less the best path of any text, by
    token; it is 0 if no text is more likely, and null without a path: if the text has no known character, needs more
    frames than the recording has, or more memory than is granted. `<name>_skipped` counts the characters of the text
    that the vocabulary lacks in any form.

    A threshold of the score between about -1 and -0.3 separates right from wrong texts; look at a sample. Characters
    take the first form that the vocabulary has: as they are, in the other case, in Unicode's compatibility forms,
    without accents. The token between words costs nothing at the ends and between words.

    Attributes:
        text: column of the source, or of an earlier `Label` step, with the texts.
        of: name of a `Transcript` before this output in the step, whose text is aligned in place of one of the source.
        name: prefix of the columns' names.
        words: add `<name>_words`: each word as the text has it, with its start and end in seconds and its probability;
            these are null for words without a known character.
        chars: add `<name>_chars`: the same for each character.
        wildcard: allow other speech before, between and after the words, for texts that are a part of the speech.
        unknown: "skip", or "wildcard": letters, figures and signs that the vocabulary lacks, such as "25" and "%", are
            aligned with any speech, so that their words have times. Their scores are null.
        case_rules: "tr" or "az": İ and i, I and ı are pairs where the text has another case than the vocabulary. None:
            the case rules that most languages share, by which I and i are one.
        language: language of a CTC checkpoint with adapters, or the column of the source with the language of each row;
            see `Transcript`. None: the language of the step's other outputs.
    """

    needs: ClassVar = (Capability.CTC,)
    allows_gaps: ClassVar = True
    follows_language: ClassVar = True
    NOT_HASHED: ClassVar = ("of", "unknown", "case_rules", "language")

    text: Named | None = None
    _: KW_ONLY
    of: OutputName | None = None
    name: OutputName = "aligned"
    words: bool = True
    chars: bool = False
    wildcard: bool = False
    unknown: Literal["skip", "wildcard"] = "skip"
    case_rules: Literal["tr", "az"] | None = None
    language: Named | Column | None = None

    @classmethod
    def examples(cls) -> tuple[Self, ...]:
        """Return an output for a column of texts, since there is no default."""
        return (cls("text"),)

    def __post_init__(self) -> None:
        """Check that there is one text, and that other speech has one place.

        Raises:
            ValueError: neither or both of `text` and `of` are set, or both kinds of wildcards.
        """
        if (self.text is None) == (self.of is None):
            arguments = "none" if self.text is None else f"text={self.text!r} and of={self.of!r}"
            raise ValueError(f"Align needs a column of the source, Align('text'), or of='pred'; found {arguments}")
        if self.wildcard and self.unknown == "wildcard":
            raise ValueError(
                "Align with wildcard=True has texts that are a part of what is said, and unknown='wildcard' texts that "
                "are all of it; found both: where an unknown word is spoken cannot be told. Set one of the two"
            )

    def check_order(self, before: Sequence[Output]) -> None:
        """Check that the transcript that `of` names comes before this output.

        Raises:
            ValueError: no output before this one writes it.
        """
        if self.of is not None:
            check_transcript(self.of, before, f"Align(of={self.of!r}) aligns")

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns that the output adds."""
        times = [kind for kind, is_set in (("words", self.words), ("chars", self.chars)) if is_set]
        return tuple(f"{self.name}_{kind}" for kind in ("score", "skipped", *times))

    @property
    def texts_read(self) -> Mapping[str, str]:
        """The columns of the texts, unless the step writes them, and of the languages of rows."""
        own = {} if self.text is None else {self.text: f"{type(self).__name__} aligns them"}
        return {**own, **super().texts_read}

    def check(self, checkpoint: "CheckpointSummary") -> None:
        """Check the language, and that the CTC head is not one over pieces of words.

        Raises:
            CheckpointError: it is, or the checkpoint has not this language.
        """
        if Capability.CTC not in checkpoint.gives:
            return
        _, tokenizer = spoken(checkpoint, self.language)
        if tokenizer is not None and tokenizer.begins_words:
            raise CheckpointError(
                f"{checkpoint.path}: Align spells texts by letters, and this vocabulary has pieces of words: "
                "align in a second Label step with a CTC checkpoint of letters"
            )

    def schema(self, checkpoint: "CheckpointSummary") -> "pa.Schema":
        """Return the columns with their types."""
        import pyarrow as pa

        return schema_of(self.columns, skipped=pa.int32())

    def op(self, checkpoint: "CheckpointSummary", loaded: "LabellingModel | None" = None) -> "OutputOp":
        """Return the op that computes the columns."""
        import pyarrow as pa

        from raysp.ops.aligning import Aligning

        schemas = self.schema(checkpoint), columns_of(self.name, frames=pa.list_(pa.float32()))
        if isinstance(self.language, Column):
            from raysp.ops.row_languages import WithoutLanguage

            return cast("OutputOp", WithoutLanguage(*schemas, (None,) * len(self.columns)))
        summary, tokenizer = spoken_by(loaded, checkpoint, self.language)
        return Aligning(
            *schemas,
            tokenizer,
            column=self.text or f"{self.of}_text",
            is_result=self.text is None,
            vocab_size=summary.vocab_size or 0,
            frame_seconds=summary.frame_seconds,
            wildcard=self.wildcard,
            unknown_as_wildcard=self.unknown == "wildcard",
            case_rules=self.case_rules,
        )
