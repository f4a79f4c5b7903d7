"""Objectives of trainings: texts by CTC or a decoder, classes of recordings, speakers, and the base of your own."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import KW_ONLY, field
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from raysp.capabilities import Capability
from raysp.errors import CheckpointError
from raysp.specs.outputs.output import GenerateValue
from raysp.specs.text_rules import Text as Text
from raysp.specs.values import Listed, Named, NotNegative, Positive, Share, Url, spec
from raysp.training.specs.adaptation import Language, LoRA

if TYPE_CHECKING:
    from raysp.models.labelled_passes import CheckpointSummary

KEEP, BUILD = "keep", "build"
"""Values of `CTC.vocabulary`: the checkpoint's, or a vocabulary built from the texts."""
LEAST_PIECES, MOST_PIECES = 10, 100_000
"""Tokens of a vocabulary of pieces."""


@spec
class Objective:
    """Base of `TextObjective` and `ClassObjective`, from which your own derives (docs/train.md).

    Attributes:
        checkpoint: model folder or hub id to begin with.
        freeze: part that is not trained: "feature_encoder", the convolutions; or "base", all but the head.
        freeze_steps: steps for which all but the head is not trained, regardless of `freeze`.
        masks: fields of the encoder's configuration for training, such as mask_time_prob or layerdrop.
        random_weights: whether to begin with random weights, drawn by the recipe's seed, in place of the checkpoint's.
        lora: LoRA matrices to train in place of the base model's weights; a head and new weights are trained too.
    """

    TASK: ClassVar[str]
    """Targets, model and loss: a subclass of `raysp.training.objectives.task.Task`, as "module:Class"."""
    METRICS: ClassVar[tuple[str, ...]] = ()
    """Metrics by which weights can be compared; none: they are not evaluated."""

    checkpoint: Url
    _: KW_ONLY
    freeze: Literal["feature_encoder", "encoder", "base"] | None = None
    freeze_steps: Annotated[int, Field(ge=0)] = 0
    masks: Mapping[str, NotNegative | Annotated[int, Field(ge=0)] | bool] = field(default_factory=dict)
    random_weights: bool = False
    lora: LoRA | None = None

    def __post_init__(self) -> None:
        """Check that the trained parts fit together."""
        freeze = self.freeze
        methods = [name for name, value in (("lora", self.lora), ("adapter", self.language)) if value is not None]
        kept = ["freeze", *methods] if freeze else methods
        if self.random_weights and kept:
            raise ValueError(f"found random_weights and {kept[0]}, which would keep some of them; leave one out")
        if len(methods) > 1:
            raise ValueError("found lora and adapter, which both choose the weights that are trained; leave one out")
        if freeze in ("base", "encoder") and self.freeze_steps:
            raise ValueError(
                f"found freeze={freeze!r}, which holds to the end, and freeze_steps={self.freeze_steps}; leave freeze "
                "out to train all after these steps, or freeze_steps"
            )
        if freeze == "base" and methods:
            raise ValueError(
                f"found freeze='base' and {methods[0]}, which trains parts of the base model; leave one out"
            )

    @property
    def target(self) -> str | None:
        """Column of the targets; None: the column of the reference texts."""
        return None

    @property
    def checkpoints(self) -> dict[str, str]:
        """Checkpoints to begin with, by the names of their fields."""
        return {"checkpoint": self.checkpoint}

    @property
    def language(self) -> str | None:
        """Language whose adapter layers are trained; None: there are none."""
        return None

    @property
    def kept_language(self) -> str | None:
        """Language whose adapter layers the checkpoint has; None: they are new, or there are none."""
        return None

    @property
    def trains_few_weights(self) -> bool:
        """Whether LoRA or adapter layers are trained in place of the weights of the checkpoint."""
        return self.lora is not None or self.language is not None

    @property
    def described(self) -> str:
        """The objective as text for users."""
        return type(self).__name__

    @property
    def details(self) -> str:
        """Text after `described`: weights that are trained, and random weights."""
        few = f", adapter of {self.language}" if self.language else ""
        few = f", LoRA of rank {self.lora.rank}" if self.lora else few
        return few + (", from random weights" if self.random_weights else "")

    def check(self, checkpoint: "CheckpointSummary") -> None:
        """Check a checkpoint, without its weights.

        Raises:
            CheckpointError: it cannot be trained for the objective.
        """


@spec
class TextObjective(Objective):
    """Base of objectives whose targets are texts.

    Attributes:
        text: rules for the reference texts.
    """

    METRICS: ClassVar[tuple[str, ...]] = ("wer", "cer", "loss")

    _: KW_ONLY
    text: Text = field(default_factory=Text)


@spec
class ClassObjective(Objective):
    """Base of objectives whose targets are classes of recordings.

    Attributes:
        column: column of the classes.
        classes: names of the classes; None: the values of the column, sorted.
    """

    METRICS: ClassVar[tuple[str, ...]] = ("accuracy", "f1", "loss")

    _: KW_ONLY
    column: Named
    classes: Annotated[Listed[Named], Field(min_length=2)] | None = None
    freeze: Literal["feature_encoder", "base"] | None = None

    def __post_init__(self) -> None:
        """Check that each class occurs once, and that the trained parts fit together."""
        super().__post_init__()
        twice = [name for name, number in Counter(self.classes).items() if number > 1]
        if twice:
            raise ValueError(f"found {twice[0]!r} twice in classes; name each class once")

    @property
    def target(self) -> str:
        """Column of the classes."""
        return self.column

    @property
    def described(self) -> str:
        """The objective as text for users."""
        return f"{type(self).__name__}, of the column {self.column}"

    def check(self, checkpoint: "CheckpointSummary") -> None:
        """Check that the checkpoint is an encoder."""
        _check_encoder(self, checkpoint)


@spec
class CTC(TextObjective):
    """Training of a CTC head on characters; without one in the checkpoint, a new one is made.

    Attributes:
        vocabulary: "keep": the checkpoint's; "build": the characters of the texts; "bpe:500": 500 pieces of
            their words by byte-pair encoding; or the url of a vocab.json.
        blank_bias: initial bias of the blank in a new head.
        adapter: language, such as "tur", whose adapter layers are trained with the head in place of all weights; they
            are new unless `vocabulary` is "keep".
    """

    TASK: ClassVar[str] = "raysp.training.objectives.ctc_task:CTCTask"

    _: KW_ONLY
    freeze: Literal["feature_encoder", "base"] | None = None
    vocabulary: str = KEEP
    blank_bias: Annotated[float, Field(allow_inf_nan=False)] = 3.0
    adapter: Language | None = None

    def __post_init__(self) -> None:
        """Check that vocabulary and trained parts fit together."""
        super().__post_init__()
        if self.num_pieces and self.adapter is not None:
            raise ValueError(
                f"found vocabulary={self.vocabulary!r} and adapter={self.adapter!r}; vocabularies of adapters consist "
                "of characters: use vocabulary='build'"
            )

    @property
    def num_pieces(self) -> int:
        """Number of tokens of a vocabulary "bpe:500"; 0 for another one.

        Raises:
            ValueError: it is out of range.
        """
        kind, colon, number = self.vocabulary.partition(":")
        if (kind.lower(), colon) != ("bpe", ":"):
            return 0
        if not (number.isdecimal() and LEAST_PIECES <= int(number) <= MOST_PIECES):
            raise ValueError(
                f"found vocabulary={self.vocabulary!r}; expected a number of tokens from {LEAST_PIECES} to "
                f"{MOST_PIECES:,}, such as 'bpe:500'"
            )
        return int(number)

    @property
    def language(self) -> str | None:
        """Language whose adapter layers are trained."""
        return self.adapter

    @property
    def kept_language(self) -> str | None:
        """Language whose adapter layers the checkpoint has."""
        return self.adapter if self.vocabulary == KEEP else None

    @property
    def described(self) -> str:
        """The objective as text for users."""
        texts = {KEEP: "vocabulary of the checkpoint", BUILD: "vocabulary built from the texts"}
        return f"CTC, {texts.get(self.vocabulary, f'vocabulary {self.vocabulary}')}"

    def check(self, checkpoint: "CheckpointSummary") -> None:
        """Check that the checkpoint is an encoder, with a head if its vocabulary is kept."""
        _check_encoder(self, checkpoint)
        if self.vocabulary == KEEP and Capability.CTC not in checkpoint.gives:
            raise CheckpointError(
                f"{self.checkpoint}: {checkpoint.architecture} has no CTC head whose vocabulary could be kept; set "
                "objective.vocabulary='build' or 'bpe:500', or to the url of a vocab.json"
            )


@spec
class Seq2Seq(TextObjective):
    """Training of an encoder of speech with a decoder of text.

    Attributes:
        checkpoint: model folder or hub id of an encoder-decoder; with `decoder`, of an encoder of speech.
        decoder: model folder or hub id of a text model with a decoder, whose tokenizer is used; None: `checkpoint` has
            both.
        prompt_tokens: tokens of the decoder's vocabulary that begin every text, such as a language's.
        smoothing: share of the probability of each token that is spread over the vocabulary.
        freeze: part that is not trained: "feature_encoder", the convolutions; or "encoder", all of it.
        freeze_steps: steps for which the encoder is not trained, regardless of `freeze`.
        generate: options of `generate` for the trained checkpoint, such as `{"num_beams": 4}`.
    """

    TASK: ClassVar[str] = "raysp.training.objectives.seq2seq_task:Seq2SeqTask"

    _: KW_ONLY
    freeze: Literal["feature_encoder", "encoder"] | None = None
    decoder: Url | None = None
    prompt_tokens: Listed[str] = ()
    smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.1
    generate: Mapping[str, GenerateValue] = field(default_factory=dict)

    @property
    def checkpoints(self) -> dict[str, str]:
        """Checkpoints to begin with, by the names of their fields."""
        return {"checkpoint": self.checkpoint, **({"decoder": self.decoder} if self.decoder else {})}

    @property
    def described(self) -> str:
        """The objective as text for users."""
        return "Seq2Seq, " + (f"decoder {self.decoder}" if self.decoder else "decoder of the checkpoint")

    def check(self, checkpoint: "CheckpointSummary") -> None:
        """Check that there is exactly one text decoder."""
        if self.decoder is not None:
            _check_encoder(self, checkpoint)
        elif Capability.TEXT_DECODER not in checkpoint.gives:
            raise CheckpointError(
                f"{self.checkpoint}: {checkpoint.architecture} has no text decoder; set objective.decoder to a "
                "text model with one"
            )


@spec
class Classify(ClassObjective):
    """Training of a head that classifies recordings; without these classes in the checkpoint, a new head is made."""

    TASK: ClassVar[str] = "raysp.training.objectives.classify_task:ClassifyTask"


@spec
class Speakers(ClassObjective):
    """Training of speaker embeddings, with a margin between the speakers (AM-softmax).

    Attributes:
        column: column of the speakers.
        classes: names of the speakers; None: the values of the column, sorted.
        margin: margin between the cosines of speakers.
        margin_warmup: share of the training over which the margin grows from 0.
        crop_seconds: duration to which longer recordings are cut, at random places; None: they are not.
    """

    TASK: ClassVar[str] = "raysp.training.objectives.speakers_task:SpeakersTask"
    METRICS: ClassVar[tuple[str, ...]] = ("eer", "accuracy", "f1", "loss")

    _: KW_ONLY
    margin: Share = 0.4
    margin_warmup: Share = 0.2
    crop_seconds: Positive | None = 3.0


def _check_encoder(objective: Objective, checkpoint: "CheckpointSummary") -> None:
    """Raise CheckpointError for a checkpoint with a text decoder, and for a transducer."""
    name = type(objective).__name__
    if Capability.TRANSDUCER in checkpoint.gives:
        raise CheckpointError(
            f"{objective.checkpoint}: {checkpoint.architecture} is a transducer, which {name} cannot train: choose a "
            "checkpoint of another architecture, or an objective of your own"
        )
    if Capability.TEXT_DECODER in checkpoint.gives:
        raise CheckpointError(
            f"{objective.checkpoint}: {checkpoint.architecture} has a text decoder; {name} needs an encoder: give the "
            "checkpoint of the encoder"
        )
