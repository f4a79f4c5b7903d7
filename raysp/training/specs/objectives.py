"""Objectives of trainings: texts, classes, speakers."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, field
from typing import Annotated, Literal

from pydantic import Field

from raysp.specs.outputs.output import GenerateValue
from raysp.specs.text_rules import Text as Text
from raysp.specs.values import Listed, Url, spec
from raysp.training.specs.adaptation import Language, LoRA, check_parts

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1)]
Column = Annotated[str, Field(min_length=1)]
Masks = Mapping[str, float | int | bool]
Steps = Annotated[int, Field(ge=0)]
FrozenPart = Literal["feature_encoder", "base"] | None


@spec
class CTC:
    """Training of a CTC head on characters.

    Attributes:
        checkpoint: model folder or hub id to begin with; without a CTC head, a new one is made.
        text: rules for the reference texts.
        vocabulary: "keep": the checkpoint's; "build": the characters of the texts; "bpe:500": 500 pieces of
            their words by byte-pair encoding; or the url of a vocab.json.
        freeze: part that is not trained: "feature_encoder", the convolutions; or "base", all but the head.
        freeze_steps: steps for which all but the head is not trained, regardless of `freeze`.
        masks: fields of the model's configuration for training, such as mask_time_prob or layerdrop.
        random_weights: whether to begin with random weights, drawn by the recipe's seed, in place of the checkpoint's.
        blank_bias: initial bias of the blank in a new head.
        lora: LoRA of the encoder, which is trained with the head in place of all weights.
        adapter: language, such as "tur", whose adapter layers are trained with the head in place of all weights; they
            are new unless `vocabulary` is "keep".
    """

    checkpoint: Url
    _: KW_ONLY
    text: Text = field(default_factory=Text)
    vocabulary: str = "keep"
    freeze: FrozenPart = None
    freeze_steps: Steps = 0
    masks: Masks = field(default_factory=dict)
    random_weights: bool = False
    blank_bias: Annotated[float, Field(allow_inf_nan=False)] = 3.0
    lora: LoRA | None = None
    adapter: Language | None = None

    def __post_init__(self) -> None:
        """Check that the trained parts fit together."""
        check_parts(self.freeze, self.lora, self.adapter, random_weights=self.random_weights, steps=self.freeze_steps)
        if pieces_of(self.vocabulary) and self.adapter is not None:
            raise ValueError(
                f"found vocabulary={self.vocabulary!r} and adapter={self.adapter!r}; vocabularies of languages are of "
                "characters: use vocabulary='build'"
            )


@spec
class Seq2Seq:
    """Training of an encoder of speech with a decoder of text.

    Attributes:
        checkpoint: model folder or hub id of an encoder-decoder; with `decoder`, of an encoder of speech.
        decoder: model folder or hub id of a text model with a decoder, whose tokenizer is used; None: `checkpoint` has
            both.
        text: rules for the reference texts.
        prompt_tokens: tokens of the decoder's vocabulary that begin every text, such as a language's.
        smoothing: share of the probability of each token that is spread over the vocabulary.
        freeze: part that is not trained: "feature_encoder", the convolutions; or "encoder", all of it.
        freeze_steps: steps for which the encoder is not trained, regardless of `freeze`.
        masks: fields of the encoder's configuration for training, such as mask_time_prob or layerdrop.
        random_weights: whether to begin with random weights, drawn by the recipe's seed, in place of the checkpoint's.
        generate: options of `generate` for the trained checkpoint, such as `{"num_beams": 4}`.
        lora: LoRA of encoder and decoder, which is trained in place of all weights, with the parts that are new.
    """

    checkpoint: Url
    _: KW_ONLY
    decoder: Url | None = None
    text: Text = field(default_factory=Text)
    prompt_tokens: Listed[str] = ()
    smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.1
    freeze: Literal["feature_encoder", "encoder"] | None = None
    freeze_steps: Steps = 0
    masks: Masks = field(default_factory=dict)
    random_weights: bool = False
    generate: Mapping[str, GenerateValue] = field(default_factory=dict)
    lora: LoRA | None = None

    def __post_init__(self) -> None:
        """Check that the trained parts fit together."""
        check_parts(self.freeze, self.lora, random_weights=self.random_weights, steps=self.freeze_steps)


@spec
class Classify:
    """Training of a head that classifies recordings.

    Attributes:
        checkpoint: model folder or hub id to begin with; without these classes, a new head is made.
        column: column of the targets: a class for each recording.
        classes: names of the classes; None: the values of the column, sorted.
        freeze: part that is not trained: "feature_encoder", the convolutions; or "base", all but the head.
        freeze_steps: steps for which all but the head is not trained, regardless of `freeze`.
        masks: fields of the model's configuration for training, such as mask_time_prob or layerdrop.
        random_weights: whether to begin with random weights, drawn by the recipe's seed, in place of the checkpoint's.
        lora: LoRA of the encoder, which is trained with the head in place of all weights.
    """

    checkpoint: Url
    _: KW_ONLY
    column: Column
    classes: Listed[str] | None = None
    freeze: FrozenPart = None
    freeze_steps: Steps = 0
    masks: Masks = field(default_factory=dict)
    random_weights: bool = False
    lora: LoRA | None = None

    def __post_init__(self) -> None:
        """Check the names of the classes, and that the trained parts fit together."""
        check_parts(self.freeze, self.lora, random_weights=self.random_weights, steps=self.freeze_steps)
        _check_classes(self.classes)


@spec
class Speakers:
    """Training of speaker embeddings, with a margin between the speakers (AM-softmax).

    Attributes:
        checkpoint: model folder or hub id to begin with; without these speakers, their weights are new.
        column: column of the speakers.
        classes: names of the speakers; None: the values of the column, sorted.
        margin: margin between the cosines of speakers.
        margin_warmup: share of the training over which the margin grows from 0.
        crop_seconds: duration to which longer recordings are cut, at random places; None: they are not.
        freeze: part that is not trained: "feature_encoder", the convolutions; or "base", all but the head.
        freeze_steps: steps for which all but the head is not trained, regardless of `freeze`.
        masks: fields of the model's configuration for training, such as mask_time_prob or layerdrop.
        random_weights: whether to begin with random weights, drawn by the recipe's seed, in place of the checkpoint's.
        lora: LoRA of the encoder, which is trained with the head in place of all weights.
    """

    checkpoint: Url
    _: KW_ONLY
    column: Column
    classes: Listed[str] | None = None
    margin: Share = 0.4
    margin_warmup: Share = 0.2
    crop_seconds: Positive | None = 3.0
    freeze: FrozenPart = None
    freeze_steps: Steps = 0
    masks: Masks = field(default_factory=dict)
    random_weights: bool = False
    lora: LoRA | None = None

    def __post_init__(self) -> None:
        """Check the names of the speakers, and that the trained parts fit together."""
        check_parts(self.freeze, self.lora, random_weights=self.random_weights, steps=self.freeze_steps)
        _check_classes(self.classes)


Objective = CTC | Seq2Seq | Classify | Speakers
"""Objectives of recipes."""
LEAST_CLASSES = 2
"""Classes of a classification."""
LEAST_PIECES, MOST_PIECES = 10, 100_000
"""Tokens of a vocabulary of pieces."""


def target_column(objective: Objective) -> str | None:
    """Return the column of an objective's targets; None: the column of the reference texts."""
    return getattr(objective, "column", None)


def needs_texts(objective: Objective) -> bool:
    """Return whether an objective cannot be trained without a column of reference texts."""
    return isinstance(objective, CTC | Seq2Seq)


def pieces_of(vocabulary: str) -> int:
    """Return the number of tokens of a vocabulary "bpe:500"; 0 for another one.

    Raises:
        ValueError: there is no such number.
    """
    kind, colon, number = vocabulary.partition(":")
    if (kind.lower(), colon) != ("bpe", ":"):
        return 0
    if not (number.isdecimal() and LEAST_PIECES <= int(number) <= MOST_PIECES):
        raise ValueError(
            f"found vocabulary={vocabulary!r}; expected a number of tokens from {LEAST_PIECES} to {MOST_PIECES:,}, "
            "such as 'bpe:500'"
        )
    return int(number)


def metrics_of(objective: Objective) -> tuple[str, ...]:
    """Return the metrics by which the weights of an objective can be compared."""
    if needs_texts(objective):
        return ("wer", "cer", "loss")
    if isinstance(objective, Speakers):
        return ("eer", "accuracy", "f1", "loss")
    return ("accuracy", "f1", "loss")


def checkpoints_of(objective: Objective) -> dict[str, str]:
    """Return the checkpoints that an objective begins with, by the names of their fields."""
    urls = {name: getattr(objective, name, None) for name in ("checkpoint", "decoder")}
    return {name: url for name, url in urls.items() if url is not None}


def trains_few_weights(objective: Objective) -> bool:
    """Return whether an objective trains LoRA or adapter layers in place of the weights of its checkpoint."""
    return objective.lora is not None or getattr(objective, "adapter", None) is not None


def _check_classes(classes: Sequence[str] | None) -> None:
    """Raise ValueError for too few names, empty names, or a name that occurs twice."""
    if classes is None:
        return
    if len(classes) < LEAST_CLASSES:
        raise ValueError(
            f"found classes {[*classes]}; expected at least {LEAST_CLASSES}, or None for those of the data"
        )
    wrong = [name for name, number in Counter(classes).items() if number > 1 or not name]
    if wrong:
        raise ValueError(f"found classes {[*classes]}; {wrong[0]!r} is empty or occurs twice: name each class once")
