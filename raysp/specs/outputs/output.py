"""Base of the outputs of a `Label` step."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, ClassVar, Self, cast

from raysp.capabilities import Capability
from raysp.errors import CheckpointError
from raysp.specs.values import Column, JsonValue, Listed, hashed_fields, matching

if TYPE_CHECKING:
    import pyarrow as pa

    from raysp.models.labelled_passes import CheckpointSummary, LabellingModel, SpeakingModel
    from raysp.models.tokenizers.named_tokenizers import CTCTokenizer
    from raysp.ops.forward import OutputOp
    from raysp.ops.step_ops import ColumnOp


OWN_MODEL = "own"
"""Value of a field for the language model that comes with the checkpoint, and key of its digest."""
SPEECH_MODEL = "raysp[speech]"
"""Key of the model of speech in `raysp.checkpoints.packaged`."""
MOS_MODEL = "raysp[mos]"
"""Key of the model of opinion scores."""
TEXT_LANGUAGE_MODEL = "raysp[langid]"
"""Key of the model of languages of texts."""
Scalar = bool | int | float | str
GenerateValue = Scalar | None | Listed[Scalar] | Listed[Listed[Scalar]]


OutputName = Annotated[str, matching(r"[A-Za-z_]\w*", "the beginning of a column's name: letters, digits and _")]


class Output:
    """An output of the model of a `Label` step. `ops` implements it and is imported on the worker."""

    name: str
    """Name of the column, or prefix of the names of several."""
    language: str | Column | None = None
    """Language, or column of languages, that the step's checkpoint is used with for the output; None: as it is."""
    NOT_HASHED: ClassVar[tuple[str, ...]] = ()
    """Fields that change no label at their defaults, and are left out of the fingerprint then."""
    FILES: ClassVar[tuple[str, ...]] = ()
    """Fields with the url of a file that the output reads besides the checkpoint, `OWN_MODEL` or None."""
    CHECKPOINTS: ClassVar[tuple[str, ...]] = ()
    """Fields with a further checkpoint that the output uses: a folder, a url, an id of the hub or None."""
    MODELS: ClassVar[Mapping[str, str]] = {}
    """Models of packages that the output runs beside the checkpoint: keys of `raysp.checkpoints.packaged`, each with
    the name of its digest in the fingerprint; empty: a field of `label_fields` has it."""
    past_seconds: ClassVar[float] = 0.0
    """Seconds of a longer recording that the op reads before the end of the previous window (`raysp.ops.pasts`)."""
    follows_language: ClassVar[bool] = False
    """Whether an output without a language is in the language of the step's other outputs."""
    reads_whole_rows: ClassVar[bool] = False
    """Whether it reads columns for whole rows, not for windows, so that steps before it may add them."""

    @classmethod
    def examples(cls) -> tuple[Self, ...]:
        """Return outputs that show which checkpoints support the class; usually that with its defaults."""
        return (cls(),)

    @property
    def needs(self) -> tuple[Capability, ...]:
        """Capabilities of which a checkpoint must give one; empty: any checkpoint will do."""
        return ()

    @property
    def text_column(self) -> str | None:
        """Column with the transcript, which is compared with the reference texts; None: no transcript."""
        return None

    @property
    def language_of_row(self) -> str | Column | None:
        """Language of the output, for all rows or in a column that it reads."""
        return self.language

    @property
    def texts_read(self) -> Mapping[str, str]:
        """Columns of strings that the output needs, with their use for a message."""
        language = self.language_of_row
        return {language.name: "the languages of the rows"} if isinstance(language, Column) else {}

    @property
    def reads(self) -> tuple[str, ...]:
        """Columns of the source that the output needs."""
        return tuple(self.texts_read)

    @property
    def reads_digest(self) -> bool:
        """Whether the output needs the digest of the decoded samples, `raysp.columns.DIGEST`."""
        return False

    def check_order(self, before: "Sequence[Output]") -> None:
        """Check the outputs before this one in the step.

        Raises:
            ValueError: an output that this one needs does not come before it.
        """

    def notes(self, checkpoint: "CheckpointSummary", window_seconds: float) -> tuple[str, ...]:
        """Return sentences on its labels that a user may not expect."""
        return ()

    @property
    def allows_gaps(self) -> bool:
        """Whether the op joins windows between which silence is left out, as `Label(windows="speech")` does."""
        return False

    def check_gaps(self, checkpoint: "CheckpointSummary") -> None:
        """Check that `allows_gaps` holds for a checkpoint.

        Raises:
            CheckpointError: the output needs windows without gaps for this checkpoint.
        """

    def check_reads(self, schema: "pa.Schema") -> None:
        """Check the types of the columns that the output reads: those of `texts_read` must hold strings.

        Raises:
            ValueError: a column does not fit.
        """
        from raysp.specs.column_types import holds_strings

        for column, use in self.texts_read.items():
            if not holds_strings(kind := schema.field(column).type):
                raise ValueError(f"column {column!r} holds {kind}, expected strings: {use}")

    def schema(self, checkpoint: "CheckpointSummary") -> "pa.Schema":
        """Return the columns with their types."""
        raise NotImplementedError

    def completed(self, schema: "pa.Schema") -> "pa.Schema":
        """Return the columns of all outputs of the step as `row_op` leaves them."""
        return schema

    def op(self, checkpoint: "CheckpointSummary", loaded: "LabellingModel | None" = None) -> "OutputOp":
        """Return the op that computes the columns.

        Args:
            checkpoint: description of the checkpoint.
            loaded: the model; None: no weights are loaded, and the op joins rows of several windows alone.
        """
        raise NotImplementedError

    def row_op(self, outputs: "Sequence[Output]", checkpoint: "CheckpointSummary") -> "ColumnOp | None":
        """Return the op that completes the columns of whole rows from other columns of a label shard; None: no op does.

        Args:
            outputs: all outputs of the step, in order.
            checkpoint: description of the checkpoint.
        """
        return None

    @property
    def files(self) -> Mapping[str, str]:
        """Values of `FILES` that are set, by field."""
        return {field: url for field in self.FILES if (url := getattr(self, field)) is not None}

    @property
    def models(self) -> tuple[str, ...]:
        """Those of `MODELS` that the output runs with its settings."""
        return tuple(self.MODELS)

    @property
    def checkpoints(self) -> Mapping[str, str]:
        """Values of `CHECKPOINTS` that are set, by field."""
        return {field: url for field in self.CHECKPOINTS if (url := getattr(self, field)) is not None}

    def label_fields(self, digests: Mapping[str, str]) -> dict[str, JsonValue]:
        """Return the fields that can change a label as JSON, with the digests of files, checkpoints and models.

        Args:
            digests: digests of `files` and `checkpoints` by url, and of `models`.
        """
        from raysp.checkpoints.packaged import PACKAGED

        places = {**self.files, **self.checkpoints}
        names = {key: name for key, name in self.MODELS.items() if name and key in self.models}
        return {
            **hashed_fields(self),
            **{field: digests.get(url, url) for field, url in places.items()},
            **{name: digests.get(key) or PACKAGED[key].digest() for key, name in names.items()},
        }

    def check(self, checkpoint: "CheckpointSummary") -> None:
        """Check that the checkpoint supports the output, without its weights, and that `models` are there.

        Raises:
            CheckpointError: the checkpoint does not support it, has another rate than a model, or a package lacks.
        """
        from raysp.checkpoints.packaged import PACKAGED

        for model in (PACKAGED[key] for key in self.models):
            model.path()
            if model.rate not in (None, checkpoint.sample_rate):
                name = type(self).__name__
                raise CheckpointError(
                    f"{checkpoint.path}: the checkpoint takes {checkpoint.sample_rate} Hz, and the model of {name} "
                    f"{model.rate}; leave {name} out, or use another checkpoint"
                )

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns that the output adds."""
        return (self.name,)


def check_transcript(of: str, before: Sequence[Output], use: str) -> None:
    """Check that the transcript of a name is one of the outputs before an output, which the message describes.

    Raises:
        ValueError: no output before it writes the transcript.
    """
    names = [output.name for output in before if output.text_column is not None]
    if of not in names:
        raise ValueError(
            f"outputs.{len(before)} {use} the text of a Transcript before it in outputs; found "
            f"{', '.join(map(repr, names)) or 'none'} there. Put Transcript({of!r}) before it"
        )


def columns_of(name: str, **kinds: "pa.DataType") -> "pa.Schema":
    """Return columns `<name>_<kind>` with their types."""
    import pyarrow as pa

    return pa.schema([(f"{name}_{kind}", type_) for kind, type_ in kinds.items()])


def schema_of(columns: Sequence[str], **kinds: "pa.DataType") -> "pa.Schema":
    """Return columns `<name>_<kind>` with their types; those of scores, words and characters are known."""
    import pyarrow as pa

    types = {"score": pa.float32(), "words": spans_of("word"), "chars": spans_of("char"), **kinds}
    return pa.schema([(column, types[column.rpartition("_")[2]]) for column in columns])


def spans_of(name: str = "", kind: "pa.DataType | None" = None) -> "pa.DataType":
    """Return the type of a list of spans with times and scores; `name` is the field of their text or number, if any."""
    import pyarrow as pa

    fields = [(name, kind or pa.string())] if name else []
    return pa.list_(pa.struct([*fields, ("start", pa.float64()), ("end", pa.float64()), ("score", pa.float32())]))


def spoken(
    checkpoint: "CheckpointSummary", language: str | Column | None
) -> "tuple[CheckpointSummary, CTCTokenizer | None]":
    """Return the description of a CTC checkpoint in a language, and its tokenizer; None for a language by row.

    Raises:
        PlanError: the checkpoint does not have the language.
        CheckpointError: it cannot be used with languages, or its files do not fit.
        StoreError: the file of the language cannot be fetched.
    """
    from raysp.models.tokenizers.named_tokenizers import read_ctc_tokenizer

    if language is None:
        return checkpoint, read_ctc_tokenizer(checkpoint.path)
    from raysp.models.encoder.languages import language_tokenizer
    from raysp.models.loading import check_language, check_languages

    if isinstance(language, Column):
        check_languages(checkpoint)
        return checkpoint, None
    return check_language(checkpoint, language), language_tokenizer(checkpoint.path, language)


def spoken_by(
    loaded: "LabellingModel | None", checkpoint: "CheckpointSummary", language: str | None
) -> "tuple[CheckpointSummary, CTCTokenizer]":
    """Return the checkpoint and the tokenizer of a language, as `spoken`; a loaded model then uses this language."""
    if loaded is not None and language is not None:
        cast("SpeakingModel", loaded).use_language(language)
    elif loaded is not None:
        from raysp.models.loading import LoadedCheckpoint  # imports torch

        if isinstance(loaded, LoadedCheckpoint):
            return checkpoint, loaded.text_tokenizer
    return cast("tuple[CheckpointSummary, CTCTokenizer]", spoken(checkpoint, language))
