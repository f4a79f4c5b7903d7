"""The outputs of a `Label` step, with their settings. `ops` implements them and is imported on the worker."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import KW_ONLY, field
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import AfterValidator, Field

from raysp.specs.values import JsonValue, Listed, Url, spec, to_json

if TYPE_CHECKING:
    import pyarrow as pa
    import torch

    from raysp.models.base.capabilities import Capability
    from raysp.models.loading import LoadedCheckpoint
    from raysp.models.summary import CheckpointSummary
    from raysp.models.tokenizers.ctc import Wav2Vec2CTCTokenizer
    from raysp.ops.aligning import Aligning
    from raysp.ops.classifying import Classifying, Segmenting
    from raysp.ops.embedding import FrameEmbeddings, MeanEmbedding, SpeakerEmbedding
    from raysp.ops.joining import JoinOp
    from raysp.ops.labelling import OutputOp
    from raysp.ops.searching import Searching
    from raysp.ops.transcribing import Transcribing

Scalar = bool | int | float | str
GenerateValue = Scalar | None | Listed[Scalar] | Listed[Listed[Scalar]]


def _column_prefix(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z_]\w*", name):
        raise ValueError(f"{name!r} cannot begin a column's name; use letters, digits and _")
    return name


MOST_BEAMS = 1024
OutputName = Annotated[str, AfterValidator(_column_prefix)]


class Output:
    """An output of the model of a `Label` step. `ops` implements it and is imported on the worker."""

    @property
    def needs(self) -> "tuple[Capability, ...]":
        """Capabilities of which a checkpoint must give one; empty: any checkpoint will do."""
        return ()

    @property
    def text_column(self) -> str | None:
        """Column with the transcript, which is compared with the reference texts; None: no transcript."""
        return None

    @property
    def reads(self) -> tuple[str, ...]:
        """Columns of the source that the output needs."""
        return ()

    def check_reads(self, schema: "pa.Schema") -> None:
        """Check the types of the columns that the output reads.

        Raises:
            ValueError: a column does not fit.
        """

    def schema(self, checkpoint: "CheckpointSummary") -> "pa.Schema":
        """Return the columns with their types."""
        raise NotImplementedError

    def op(self, loaded: "LoadedCheckpoint") -> "OutputOp":
        """Return the op that computes the columns."""
        raise NotImplementedError

    def join_op(self, checkpoint: "CheckpointSummary") -> "JoinOp":
        """Return the op that computes the columns from the staged columns of a longer row; loads no weights."""
        raise NotImplementedError

    @property
    def files(self) -> Mapping[str, str]:
        """Urls of files that the output reads besides the checkpoint, by field."""
        return {}

    def label_fields(self, digests: Mapping[str, str]) -> JsonValue:
        """Return as JSON what can change a label, with the digests of the contents of `files`, by url."""
        fields = to_json(self)
        if isinstance(fields, dict):
            fields |= {field: digests.get(url, url) for field, url in self.files.items()}
        return fields

    def check(self, checkpoint: "CheckpointSummary") -> None:
        """Check that the checkpoint supports the output, without its weights.

        Raises:
            CheckpointError: it does not.
        """

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns that the output adds."""
        raise NotImplementedError


@spec
class Transcript(Output):
    """Transcript of a recording: columns `<name>_text` and `<name>_score`.

    Attributes:
        name: prefix of the columns' names.
        generate: for checkpoints with a text decoder: options of `generate`, such as `{"num_beams": 4}`; with
            `do_sample` the samples depend only on `seed` and on the place of the row.
        words: add `<name>_words`: each word with its start and end in seconds and its probability.
        chars: add `<name>_chars`: the same for each character.
        beams: for CTC checkpoints: prefixes that a beam search keeps after each frame; 1: the best token of each frame.
        nbest: if above 1, add `<name>_nbest`: up to so many different texts with their scores, the best one first.
        lm: language model of words or of characters: path or url of an ARPA file, which may be compressed (.gz). A url
            is read with the source's storage options if both have the same scheme, as that of a checkpoint.
        lm_weight: factor of the natural log-probabilities of `lm`.
        word_bonus: added to the score for each word, or each character of a model of characters, if there is an `lm`.
        hot_words: words or phrases, and what is added to the score each time that a text contains them.
    """

    name: OutputName = "pred"
    _: KW_ONLY
    words: bool = False
    chars: bool = False
    generate: Mapping[str, GenerateValue] = field(default_factory=dict)
    beams: Annotated[int, Field(ge=1, le=MOST_BEAMS)] = 1
    nbest: Annotated[int, Field(ge=1)] = 1
    lm: Url | None = None
    lm_weight: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.5
    word_bonus: Annotated[float, Field(allow_inf_nan=False)] = 1.0
    hot_words: Mapping[str, Annotated[float, Field(gt=0, le=100)]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check the fields of beam search against each other."""
        if self.beams == 1 and (asked := [name for name in ("nbest", "lm", "hot_words") if self._sets(name)]):
            raise ValueError(f"{', '.join(asked)} given with beams=1; they need a beam search, such as beams=8")
        if self.nbest > self.beams:
            raise ValueError(f"nbest={self.nbest} is more than beams={self.beams}; raise beams, or lower nbest")
        if self.lm == "":
            raise ValueError("lm is empty; give the path or url of an ARPA file, or leave it out")
        if blank := [text for text in self.hot_words if text != " ".join(text.split()) or not text]:
            raise ValueError(f"hot_words holds {blank[0]!r}; give words separated by single spaces")

    def _sets(self, name: str) -> bool:
        return getattr(self, name) not in (1, None, {})

    @property
    def files(self) -> Mapping[str, str]:
        """The language model."""
        return {} if self.lm is None else {"lm": self.lm}

    def label_fields(self, digests: Mapping[str, str]) -> JsonValue:
        """Return what can change a label: settings of beam search only if there is one."""
        fields = super().label_fields(digests)
        unused = {"lm", "lm_weight", "word_bonus"} if self.lm is None else set()
        if self.beams == 1:
            unused |= {"beams", "nbest", "hot_words"}
        return (
            {key: value for key, value in fields.items() if key not in unused} if isinstance(fields, dict) else fields
        )

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns that the output adds."""
        kinds = (("words", self.words), ("chars", self.chars), ("nbest", self.nbest > 1))
        asked = [kind for kind, is_asked in kinds if is_asked]
        return tuple(f"{self.name}_{kind}" for kind in ("text", "score", *asked))

    @property
    def text_column(self) -> str:
        """Column with the transcript."""
        return f"{self.name}_text"

    @property
    def needs(self) -> "tuple[Capability, ...]":
        """Tokens, of frames or of a text decoder."""
        from raysp.models.base.capabilities import Capability

        return (Capability.CTC, Capability.TEXT_DECODER)

    def schema(self, checkpoint: "CheckpointSummary") -> "pa.Schema":
        """Return the columns with their types."""
        import pyarrow as pa

        types: dict[str, pa.DataType] = {
            "text": pa.string(),
            "score": pa.float32(),
            "words": _spans("word"),
            "chars": _spans("char"),
            "nbest": pa.list_(pa.struct([("text", pa.string()), ("score", pa.float32())])),
        }
        return pa.schema([(column, types[column.rpartition("_")[2]]) for column in self.columns])

    def check(self, checkpoint: "CheckpointSummary") -> None:
        """Check that words and chars are used with CTC checkpoints, and `generate` with a text decoder.

        Raises:
            CheckpointError: the checkpoint does not support a setting.
        """
        from raysp.errors import CheckpointError

        if checkpoint.writes_text and (self.words or self.chars):
            raise CheckpointError(
                f"{checkpoint.path}: words and chars need a CTC checkpoint, which gives times; "
                f"{checkpoint.architecture} writes text without times"
            )
        if self.beams > 1:
            self._check_search(checkpoint)
        if self.generate and not checkpoint.writes_text:
            raise CheckpointError(
                f"{checkpoint.path}: generate={dict(self.generate)!r} is for checkpoints with a text decoder; "
                f"{checkpoint.architecture} has none"
            )
        if checkpoint.writes_text:
            from raysp.models.checking import check_generation
            from raysp.ops.writing import ONE_TEXT, SEED

            for option, value in ONE_TEXT.items():
                if self.generate.get(option, value) != value:
                    raise CheckpointError(
                        f"Transcript.generate: {option} is {self.generate[option]!r}; a label holds only one text"
                    )
            check_generation(checkpoint.path, {key: value for key, value in self.generate.items() if key != SEED})

    def _check_search(self, checkpoint: "CheckpointSummary") -> None:
        from raysp.errors import CheckpointError
        from raysp.models.base.capabilities import Capability

        if checkpoint.writes_text:
            raise CheckpointError(
                f"{checkpoint.path}: beams={self.beams} is for CTC checkpoints; {checkpoint.architecture} writes text "
                f"by a decoder: use generate={{'num_beams': {self.beams}}}"
            )
        if Capability.CTC in checkpoint.gives and (self.lm is not None or self.hot_words):
            from raysp.models.tokenizers.ctc import Wav2Vec2CTCTokenizer
            from raysp.ops.searching import check_settings

            tokenizer = Wav2Vec2CTCTokenizer.from_pretrained(checkpoint.path)
            check_settings(tokenizer, checkpoint.vocab_size or 0, lm=self.lm, hot_words=self.hot_words)

    def op(self, loaded: "LoadedCheckpoint") -> "OutputOp":
        """Return the op that computes the columns."""
        if loaded.summary.writes_text:
            from raysp.ops.writing import Writing

            return Writing(
                self.schema(loaded.summary), self._parts(), loaded.model, loaded.tokenizer, options=self.generate
            )
        return self._transcribing(loaded.summary, loaded.text_tokenizer, loaded.model.device)

    def _parts(self) -> "pa.Schema":
        import pyarrow as pa

        kinds: dict[str, pa.DataType] = {"part": pa.string(), "part_score": pa.float64(), "part_tokens": pa.int64()}
        return pa.schema([(f"{self.name}_{column}", kind) for column, kind in kinds.items()])

    def join_op(self, checkpoint: "CheckpointSummary") -> "JoinOp":
        """Return the op that computes the columns from the windows of a longer row."""
        if checkpoint.writes_text:
            from raysp.ops.writing import Writing

            return Writing(self.schema(checkpoint), self._parts())
        from raysp.models.tokenizers.ctc import Wav2Vec2CTCTokenizer

        return self._transcribing(checkpoint, Wav2Vec2CTCTokenizer.from_pretrained(checkpoint.path))

    def _transcribing(
        self, checkpoint: "CheckpointSummary", tokenizer: "Wav2Vec2CTCTokenizer", device: "torch.device | str" = "cpu"
    ) -> "Transcribing | Searching":
        import pyarrow as pa

        from raysp.ops.transcribing import Transcribing

        frames: dict[str, pa.DataType] = {"frame_ids": pa.list_(pa.int32()), "frame_scores": pa.list_(pa.float32())}
        greedy = Transcribing(
            self.schema(checkpoint),
            pa.schema([(f"{self.name}_{column}", kind) for column, kind in frames.items()]),
            tokenizer,
            frame_seconds=checkpoint.frame_seconds,
            words=self.words,
            chars=self.chars,
        )
        if self.beams == 1:
            return greedy
        from raysp.ops.searching import Searching

        return Searching(
            greedy,
            vocab_size=checkpoint.vocab_size or 0,
            beams=self.beams,
            nbest=self.nbest,
            lm=self.lm,
            lm_weight=self.lm_weight,
            word_bonus=self.word_bonus,
            hot_words=self.hot_words,
            device=device,
        )


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


@spec
class Classes(Output):
    """Class of a recording by a classification checkpoint: columns `<name>` and `<name>_scores`.

    Attributes:
        name: name of the first column, and prefix of the second.
        top_k: number of classes. The columns are lists if it is above 1, and for multi-label checkpoints, which return
            all classes with a probability above 0.5.
    """

    name: OutputName = "pred_label"
    _: KW_ONLY
    top_k: Annotated[int, Field(ge=1)] = 1

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns that the output adds."""
        return (self.name, f"{self.name}_scores")

    @property
    def needs(self) -> "tuple[Capability, ...]":
        """Classes of recordings."""
        from raysp.models.base.capabilities import Capability

        return (Capability.CLASSES,)

    def schema(self, checkpoint: "CheckpointSummary") -> "pa.Schema":
        """Return the columns with their types."""
        import pyarrow as pa

        kinds: list[pa.DataType] = [pa.string(), pa.float32()]
        if self.top_k > 1 or checkpoint.is_multi_label:
            kinds = [pa.list_(kind) for kind in kinds]
        return pa.schema(list(zip(self.columns, kinds, strict=True)))

    def op(self, loaded: "LoadedCheckpoint") -> "OutputOp":
        """Return the op that computes the columns."""
        return self._classifying(loaded.summary)

    def join_op(self, checkpoint: "CheckpointSummary") -> "JoinOp":
        """Return the op that computes the columns from the windows of a longer row."""
        return self._classifying(checkpoint)

    def _classifying(self, checkpoint: "CheckpointSummary") -> "Classifying":
        import pyarrow as pa

        from raysp.ops.classifying import Classifying

        staged = pa.schema([(f"{self.name}_logits", pa.list_(pa.float32())), (f"{self.name}_weight", pa.int32())])
        return Classifying(
            self.schema(checkpoint),
            staged,
            checkpoint.labels,
            top_k=self.top_k,
            problem_type=checkpoint.problem_type,
        )


@spec
class Segments(Output):
    """Segments in which a frame classifier detects each of its classes, such as a speaker: column `<name>`.

    Attributes:
        name: name of the column.
        threshold: a class is detected in frames where its probability exceeds this.
        min_seconds: shorter segments are dropped.
    """

    name: OutputName = "pred_segments"
    _: KW_ONLY
    threshold: Annotated[float, Field(ge=0, le=1)] = 0.5
    min_seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0

    @property
    def columns(self) -> tuple[str, ...]:
        """Column that the output adds."""
        return (self.name,)

    @property
    def needs(self) -> "tuple[Capability, ...]":
        """Classes of frames."""
        from raysp.models.base.capabilities import Capability

        return (Capability.FRAME_CLASSES,)

    def schema(self, checkpoint: "CheckpointSummary") -> "pa.Schema":
        """Return the column with its type."""
        import pyarrow as pa

        times = [(part, pa.float64()) for part in ("start", "end")]
        return pa.schema([(self.name, pa.list_(pa.struct([("label", pa.string()), *times, ("score", pa.float32())])))])

    def op(self, loaded: "LoadedCheckpoint") -> "OutputOp":
        """Return the op that computes the column."""
        return self._segmenting(loaded.summary)

    def join_op(self, checkpoint: "CheckpointSummary") -> "JoinOp":
        """Return the op that computes the column from the windows of a longer row."""
        return self._segmenting(checkpoint)

    def _segmenting(self, checkpoint: "CheckpointSummary") -> "Segmenting":
        import pyarrow as pa

        from raysp.ops.classifying import Segmenting

        return Segmenting(
            self.schema(checkpoint),
            pa.schema([(f"{self.name}_probabilities", pa.list_(pa.float32()))]),
            checkpoint.labels,
            frame_seconds=checkpoint.frame_seconds,
            threshold=self.threshold,
            min_seconds=self.min_seconds,
        )


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
            "words": _spans("word"),
            "chars": _spans("char"),
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


def _spans(name: str) -> "pa.DataType":
    """Return the type of a list of words or characters with times."""
    import pyarrow as pa

    times = [(part, pa.float64()) for part in ("start", "end")]
    return pa.list_(pa.struct([(name, pa.string()), *times, ("score", pa.float32())]))


OUTPUTS: tuple[Output, ...] = (Transcript(), Align("text"), Embedding(), Classes(), Segments())
"""The outputs of raysp, with their defaults."""


def outputs_of(gives: "Iterable[Capability]") -> tuple[str, ...]:
    """Return the names of the outputs that need one of some capabilities, in the order of the capabilities."""
    found = [type(one).__name__ for capability in gives for one in OUTPUTS if capability in one.needs]
    return tuple(dict.fromkeys(found))
