"""Times of given texts."""

from dataclasses import KW_ONLY
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from raysp.specs.outputs.output import Output, OutputName, spans_of
from raysp.specs.values import spec

if TYPE_CHECKING:
    import pyarrow as pa

    from raysp.models.base.capabilities import Capability
    from raysp.models.loading import LoadedCheckpoint
    from raysp.models.summary import CheckpointSummary
    from raysp.models.tokenizers.ctc import Wav2Vec2CTCTokenizer
    from raysp.ops.aligning import Aligning
    from raysp.ops.joining import JoinOp
    from raysp.ops.labelling import OutputOp


@spec
class Align(Output):
    """Times of the words of a given text, by forced alignment with the frames of a CTC checkpoint.

    Columns `<name>_score`, `<name>_skipped`, `<name>_words` and `<name>_chars`; null where the text is null.
    `<name>_score` is the log-probability of the text on its best path, less that of the best path of any text, by
    token; it is 0 if no text is more likely, and null without a path: if the text has no known character, needs more
    frames than the recording has, or more memory than is granted. `<name>_skipped` counts the characters of the text
    that the vocabulary lacks in any form.

    Attributes:
        text: column of the source with the texts.
        name: prefix of the columns' names.
        words: add `<name>_words`: each word as the text has it, with its start and end in seconds and its probability;
            these are null for words without a known character.
        chars: add `<name>_chars`: the same for each character.
        wildcard: allow other speech before, between and behind the words, for texts that are a part of what is said.
    """

    text: Annotated[str, Field(min_length=1)]
    _: KW_ONLY
    name: OutputName = "aligned"
    words: bool = True
    chars: bool = False
    wildcard: bool = False

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns that the output adds."""
        asked = [kind for kind, is_asked in (("words", self.words), ("chars", self.chars)) if is_asked]
        return tuple(f"{self.name}_{kind}" for kind in ("score", "skipped", *asked))

    @property
    def reads(self) -> tuple[str, ...]:
        """The column of the texts."""
        return (self.text,)

    @property
    def needs(self) -> "tuple[Capability, ...]":
        """Tokens of frames."""
        from raysp.models.base.capabilities import Capability

        return (Capability.CTC,)

    def check_reads(self, schema: "pa.Schema") -> None:
        """Check that the column holds strings.

        Raises:
            ValueError: it does not.
        """
        from raysp.specs.column_types import holds_strings

        if not holds_strings(found := schema.field(self.text).type):
            raise ValueError(f"column {self.text!r} holds {found}, expected strings: {type(self).__name__} aligns them")

    def schema(self, checkpoint: "CheckpointSummary") -> "pa.Schema":
        """Return the columns with their types."""
        import pyarrow as pa

        types: dict[str, pa.DataType] = {
            "score": pa.float32(),
            "skipped": pa.int32(),
            "words": spans_of("word"),
            "chars": spans_of("char"),
        }
        return pa.schema([(column, types[column.rpartition("_")[2]]) for column in self.columns])

    def op(self, loaded: "LoadedCheckpoint") -> "OutputOp":
        """Return the op that computes the columns."""
        return self._aligning(loaded.summary, loaded.text_tokenizer)

    def join_op(self, checkpoint: "CheckpointSummary") -> "JoinOp":
        """Return the op that computes the columns from the windows of a longer row."""
        from raysp.models.tokenizers.ctc import Wav2Vec2CTCTokenizer

        return self._aligning(checkpoint, Wav2Vec2CTCTokenizer.from_pretrained(checkpoint.path))

    def _aligning(self, checkpoint: "CheckpointSummary", tokenizer: "Wav2Vec2CTCTokenizer") -> "Aligning":
        import pyarrow as pa

        from raysp.ops.aligning import Aligning

        return Aligning(
            self.schema(checkpoint),
            pa.schema([(f"{self.name}_frames", pa.list_(pa.float32()))]),
            tokenizer,
            column=self.text,
            vocab_size=checkpoint.vocab_size or 0,
            frame_seconds=checkpoint.frame_seconds,
            wildcard=self.wildcard,
        )
