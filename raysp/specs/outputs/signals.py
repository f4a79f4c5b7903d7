"""Signals of recordings and texts, to filter rows by."""

from collections.abc import Sequence
from dataclasses import KW_ONLY
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, cast

from raysp.errors import CheckpointError
from raysp.specs.outputs.output import TEXT_LANGUAGE_MODEL, Output, OutputName, columns_of
from raysp.specs.outputs.speech import Speech
from raysp.specs.values import Column, Url, spec

if TYPE_CHECKING:
    import pyarrow as pa

    from raysp.models.labelled_passes import CheckpointSummary, HearingModel, LabellingModel
    from raysp.ops.measuring import Measuring
    from raysp.ops.step_ops import ColumnOp

NO_SPEECH, PHRASES = "no_speech", "phrases"
LEVELS = ("loudness", "peak", "clipped", "noise", "snr", "bandwidth", "speech_share")
OF_TEXT = (
    *("chars_per_second", "words_per_second", "repetition", "repeats", "compression"),
    *("unique_words", "longest_word", "longest_ratio", "script_share", "unread", "unread_share"),
)
TEXT_LANGUAGE = ("text_language", "text_language_score")
AUDIO_DIGEST = "audio_digest"


@spec
class Signals(Output):
    """Signals of a recording and of its transcript, to filter rows by: column `<name>`, a struct of float32.

    `loudness` (LUFS, ITU-R BS.1770-4), `peak` (dBFS), `clipped` (share of the samples), `noise` (dBFS), `snr` (dB),
    `bandwidth` (Hz) and `speech_share`, by the regions of a `Speech` of the same step if there is one, else by levels.
    Of the first transcript of the same step, null without one: `chars_per_second` (without spaces),
    `words_per_second`, `repetition` (words of the longest sequence that occurs twice), `repeats` (how often it occurs),
    `compression` (bytes over their zlib compression), `unique_words` (different words over words), `longest_word`
    (characters), `longest_ratio` (of the longest word to the next), `script_share` (share of the letters that are of a
    script of the language; null where the language is unknown), `unread` (seconds of the longest speech without a
    word) and `unread_share` (share of the speech without a word). Both are of words with times: of the transcript,
    else of an `Align` of it or of the only text. Of a text without times they are null, but if it is empty, or if it
    has nothing of some windows of a longer row: then they are of the speech there.

    Attributes:
        name: name of the column.
        no_speech: add `no_speech`, the probability that a recording has no speech, the mean of its windows. For Whisper
            by CTranslate2.
        phrases: add `phrases`, the share of the words that belong to a phrase of a file: path or url of a text in
            UTF-8, one phrase per line. A url is read with the source's storage options if both have the same scheme.
        expected_language: language of the texts for `script_share`, such as "de", "deu" or "srp_Cyrl", or
            `raysp.Column("lang")`, the column of the source with that of each row. None: the one that the transcript
            has as its `language`, the same for all rows, or detects.
        text_language: add the columns `text_language` and `text_language_score`: the language that the text seems to
            be in, by py3langid (`raysp[langid]`), and its probability.
        audio_digest: add the column `audio_digest`: digest (BLAKE2b, 128 bits) of the samples as the model takes them,
            float32 at its rate, equal for exact duplicates; null in error rows.
    """

    NOT_HASHED: ClassVar = ("no_speech", "phrases", "expected_language", "text_language", "audio_digest")
    FILES: ClassVar = ("phrases",)
    MODELS: ClassVar = {TEXT_LANGUAGE_MODEL: TEXT_LANGUAGE_MODEL}

    name: OutputName = "signal"
    _: KW_ONLY
    no_speech: bool = False
    phrases: Url | None = None
    expected_language: str | Column | None = None
    text_language: bool = False
    audio_digest: bool = False

    def __post_init__(self) -> None:
        """Check that the scripts of the language are known.

        Raises:
            ValueError: they are not.
        """
        from raysp.text.scripts import scripts_of

        if isinstance(self.expected_language, str) and not scripts_of(self.expected_language):
            raise ValueError(
                f"found expected_language={self.expected_language!r}, expected a code of ISO 639 such as 'de', or one "
                "with its script such as 'srp_Cyrl': give it, or leave it out"
            )

    @property
    def reads_digest(self) -> bool:
        """Whether there is a column of digests."""
        return self.audio_digest

    @property
    def language_of_row(self) -> str | Column | None:
        """The expected language, which the checkpoint is not used with."""
        return self.expected_language

    @property
    def models(self) -> tuple[str, ...]:
        """The model of languages of texts, if they are recognised."""
        return super().models if self.text_language else ()

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns that the output adds."""
        more = (*(TEXT_LANGUAGE if self.text_language else ()), *((AUDIO_DIGEST,) if self.audio_digest else ()))
        return (self.name, *more)

    def schema(self, checkpoint: "CheckpointSummary") -> "pa.Schema":
        """Return the columns with their types; signals of recordings have fields that signals of texts need."""
        import pyarrow as pa

        spans = pa.list_(pa.struct([("start", pa.float64()), ("end", pa.float64())]))
        inner = [pa.field("speech", spans), pa.field("read", spans), pa.field("language", pa.string())]
        more = [pa.field(name, pa.float32() if name == TEXT_LANGUAGE[1] else pa.string()) for name in self.columns[1:]]
        return pa.schema([pa.field(self.name, self._struct(inner)), *more])

    def _struct(self, inner: "Sequence[pa.Field[Any]]" = ()) -> "pa.StructType":
        import pyarrow as pa

        more = (*((NO_SPEECH,) if self.no_speech else ()), *((PHRASES,) if self.phrases else ()))
        return pa.struct([*(pa.field(name, pa.float32()) for name in (*LEVELS, *OF_TEXT, *more)), *inner])

    def completed(self, schema: "pa.Schema") -> "pa.Schema":
        """Return the columns of the step; the struct of signals is without its internal fields."""
        import pyarrow as pa

        return pa.schema([field.with_type(self._struct()) if field.name == self.name else field for field in schema])

    def check(self, checkpoint: "CheckpointSummary") -> None:
        """Check that the checkpoint gives the probability of no speech, if it is asked for, and the package of texts.

        Raises:
            CheckpointError: `no_speech` is set, and the checkpoint does not give this probability; or `text_language`
                is, and the package is not installed.
        """
        if self.no_speech and not checkpoint.finds_silence:
            raise CheckpointError(
                f"{checkpoint.path}: Signals(no_speech=True) is for Whisper by CTranslate2; {checkpoint.architecture} "
                f"by backend={checkpoint.backend!r} gives no such probability: leave it out"
            )
        super().check(checkpoint)

    def row_op(self, outputs: Sequence[Output], checkpoint: "CheckpointSummary") -> "ColumnOp":
        """Return the op that adds the signals of the text; `phrases` is a local path by now."""
        import pyarrow as pa

        from raysp.ops.measuring_texts import TextMeasuring
        from raysp.text.phrases import Phrases

        transcript = next((output for output in outputs if output.text_column), None)
        detected = f"{transcript.name}_language" if transcript else ""
        language = self.expected_language or (transcript and transcript.language)
        columns = self.completed(self.schema(checkpoint))
        return TextMeasuring(
            pa.schema([field for field in columns if field.name != AUDIO_DIGEST]),
            text=transcript.text_column if transcript else None,
            words=_timed_words(outputs, transcript),
            speech=next((output.name for output in outputs if isinstance(output, Speech)), None),
            detected=detected if transcript and detected in transcript.columns else None,
            language=language if isinstance(language, str) else None,
            phrases=Phrases.read(Path(self.phrases)) if self.phrases else None,
        )

    def op(self, checkpoint: "CheckpointSummary", loaded: "LabellingModel | None" = None) -> "Measuring":
        """Return the op that computes the levels."""
        import pyarrow as pa

        from raysp.ops.measuring import Measuring

        staged = columns_of(
            self.name,
            energies=pa.list_(pa.float32()),
            weighted=pa.list_(pa.float32()),
            clipped=pa.list_(pa.int32()),
            cells=pa.int32(),
            peak=pa.float64(),
            spectrum=pa.list_(pa.float64()),
            **({NO_SPEECH: pa.float64()} if self.no_speech else {}),
        )
        return Measuring(
            self.schema(checkpoint),
            staged,
            sample_rate=checkpoint.sample_rate,
            frame_stride=checkpoint.frame_stride,
            at_quiet_points=checkpoint.writes_text,
            language=next(iter(self.reads), None),
            digest=AUDIO_DIGEST if self.audio_digest else None,
            silence=NO_SPEECH if self.no_speech else None,
            find=cast("HearingModel", loaded).no_speech if self.no_speech and loaded else None,
        )


def _timed_words(outputs: Sequence[Output], transcript: Output | None) -> str | None:
    """Return the name of the column with timed words of the transcript: its own words, or those of an `Align`.

    Without a transcript: the column of the first `Align`.
    """
    for output in outputs:
        is_of_text = output is transcript or transcript is None or getattr(output, "of", None) == transcript.name
        if is_of_text and (column := f"{output.name}_words") in output.columns:
            return column
    return None
