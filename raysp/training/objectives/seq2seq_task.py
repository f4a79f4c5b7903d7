"""`Seq2Seq`: tokens of texts, written by a decoder."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from raysp.crossing import sent
from raysp.errors import CheckpointError
from raysp.models.auto import AutoConfig
from raysp.models.base.configuration import Config
from raysp.models.base.modeling import Model, overridden
from raysp.models.decoder.generation_config import GenerationConfig
from raysp.models.encoder.heads import IGNORED_LABEL
from raysp.models.speech_encoder_decoder import SpeechEncoderDecoderConfig, SpeechEncoderDecoderModel
from raysp.models.tokenizers.text import TextTokenizer
from raysp.specs.pipeline import fingerprint
from raysp.specs.values import JsonValue
from raysp.text.error_rates import TextRules
from raysp.text.targets import NO_TEXT, OUTSIDE, TOO_MANY, Target, contains_any
from raysp.training.data.micro_batches import Losses, MicroBatch
from raysp.training.objectives.passes import Passes, padded_targets
from raysp.training.objectives.starting_model import NAMED_OUTPUTS, anew, loading
from raysp.training.objectives.task import TextTask
from raysp.training.planning.training_plan import TrainingPlan
from raysp.training.specs.objectives import Seq2Seq
from raysp.words import count

MAX_TOKENS = 256
"""Default of the tokens of the longest text that `generate` writes; 30 seconds of speech have fewer."""


class SpecialIds(NamedTuple):
    """Special tokens of a decoder."""

    start: int
    end: int
    padding: int


def special_ids(tokenizer: TextTokenizer, *configs: Config) -> SpecialIds:
    """Return the special tokens of a decoder.

    Args:
        tokenizer: the decoder's.
        configs: configurations, of which the first that has a `decoder_start_token_id` determines the start token.

    Raises:
        CheckpointError: there is no start token or no end token.
    """
    configured = (getattr(config, "decoder_start_token_id", None) for config in configs)
    start = _first(*configured, tokenizer.bos_token_id, tokenizer.cls_token_id)
    end = _first(tokenizer.eos_token_id, tokenizer.sep_token_id)
    padding = _first(tokenizer.pad_token_id, end)
    if start is None or end is None or padding is None:
        raise CheckpointError(
            f"the decoder's tokenizer has the special tokens {tokenizer.all_special_tokens}, expected one that begins "
            "a text (bos_token or cls_token) and one that ends it (eos_token or sep_token): set them in its files"
        )
    return SpecialIds(start, end, padding)


def _first(*ids: int | None) -> int | None:
    return next((index for index in ids if index is not None), None)


def token_ids(tokenizer: TextTokenizer, tokens: Sequence[str]) -> list[int]:
    """Return the ids of tokens.

    Raises:
        CheckpointError: the vocabulary lacks one.
    """
    vocabulary = tokenizer.get_vocab()
    if missing := [token for token in tokens if token not in vocabulary]:
        raise CheckpointError(f"{', '.join(map(repr, missing))}: not in the decoder's vocabulary; use its tokens")
    return [vocabulary[token] for token in tokens]


@dataclass
class TokenTargets:
    """Ids of the tokens of texts for a decoder: without the start token, up to the end token."""

    rules: TextRules
    tokenizer: TextTokenizer
    special: SpecialIds
    most: int
    """Positions of the decoder; a text with more tokens is left out."""
    prompt_tokens: Sequence[str] = ()
    """Tokens of the vocabulary that begin every text, such as a language's."""
    counts: Counter[str] = field(default_factory=Counter)
    """Occurrences of each token in the texts so far."""

    def __post_init__(self) -> None:
        self.prompt = token_ids(self.tokenizer, self.prompt_tokens)
        self.reserved = [token for token in self.tokenizer.all_special_tokens if token.strip()]
        """Tokens that a text cannot contain: one that ends texts would cut it."""

    def __call__(self, value: object) -> Target:
        """Return the target of a text, and count its tokens; None is an empty text."""
        text = self.rules("" if value is None else str(value))
        if not text:
            return Target((), NO_TEXT)
        if contains_any(self.reserved, text):
            return Target((), OUTSIDE)
        ids = self.ids(text)
        self.counts.update(self.tokenizer.convert_ids_to_tokens(ids))
        return Target(ids) if len(ids) <= self.most else Target((), TOO_MANY)

    def ids(self, text: str) -> list[int]:
        """Return the ids of a text."""
        ids: list[int] = self.tokenizer(text)["input_ids"]
        if ids[:1] == [self.special.start]:
            ids = ids[1:]
        if self.special.end in ids:
            ids = ids[: ids.index(self.special.end)]
        return [*self.prompt, *ids, self.special.end]

    def misfit(self, target: Target, num_frames: int) -> str:
        """Return an empty text: a decoder writes any number of tokens."""
        return ""


@dataclass(frozen=True)
class Seq2SeqTask(TextTask):
    """Task of `Seq2Seq`.

    Attributes:
        spec: the objective.
        tokenizer: tokenizer of the decoder.
        special: its special tokens.
        num_positions: tokens of the longest text of the decoder.
    """

    spec: Seq2Seq
    tokenizer: TextTokenizer
    special: SpecialIds
    num_positions: int

    @classmethod
    def of(cls, spec: Seq2Seq, plan: TrainingPlan) -> "Seq2SeqTask":
        """Return the task.

        Raises:
            CheckpointError: the decoder or its tokenizer cannot be used.
        """
        folder = plan.decoder or plan.checkpoint.path
        config: Any = AutoConfig.from_pretrained(folder)
        of_decoder = getattr(config, "decoder", None) or config
        num_positions = getattr(of_decoder, "max_position_embeddings", None)
        if num_positions is None:
            raise CheckpointError(f"{folder}: {config.model_type} is not a text model with a decoder: use one")
        tokenizer = TextTokenizer.from_pretrained(folder)
        return cls(spec, tokenizer, special_ids(tokenizer, config, of_decoder), int(num_positions))

    @property
    def index_parts(self) -> Mapping[str, JsonValue]:
        """Rules for the texts, tokens, and positions."""
        prompt: list[JsonValue] = [*self.spec.prompt_tokens]
        return {**super().index_parts, "special": [*self.special], "prompt": prompt, "most": self.num_positions}

    @property
    def digest(self) -> str:
        """Hash of the vocabulary and of the special tokens."""
        return fingerprint([self.vocabulary, self.special])

    def facts(self, counts: Mapping[str, int]) -> Mapping[str, str]:
        """Return the size of the vocabulary, the tokens that occur, and the count of the unknown token."""
        unknown = counts.get(self.tokenizer.unk_token or "", 0)
        more = f"; {self.tokenizer.unk_token!r} ({unknown:,})" if unknown else ""
        return {"tokens": f"{count(len(self.tokenizer), 'token')}, of which {len(counts):,} occur{more}"}

    def targets(self) -> TokenTargets:
        """Return the ids of tokens."""
        return TokenTargets(self.rules, self.tokenizer, self.special, self.num_positions, self.spec.prompt_tokens)

    def model(self, plan: TrainingPlan) -> SpeechEncoderDecoderModel:
        """Return the encoder-decoder, whose configuration has the special ids that training and `generate` need."""
        spec = self.spec
        with loading(plan.recipe.seed, spec.masks):
            model = _loaded(plan, spec.masks).float()
            if spec.random_weights:
                model = anew(model, seed=plan.recipe.seed)
            config: Any = model.config
            if len(self.tokenizer) > config.decoder.vocab_size:
                model.resize_token_embeddings(len(self.tokenizer))
        config.decoder_start_token_id, config.eos_token_id, config.pad_token_id = self.special
        for name, value in NAMED_OUTPUTS.items():
            setattr(config, name, value)
        options = GenerationConfig(
            max_length=min(MAX_TOKENS, model.decoder.num_positions),
            decoder_start_token_id=self.special.start,
            eos_token_id=self.special.end,
            pad_token_id=self.special.padding,
        )
        if plan.decoder is None:  # the options of a decoder's own checkpoint are for text
            options = options.merged(model.generation_config)
        if spec.prompt_tokens:
            options.forced_bos_token_id = token_ids(self.tokenizer, spec.prompt_tokens)[0]
        model.generation_config = options.merged(GenerationConfig.from_dict(spec.generate))
        return model

    def loss(self, passes: Passes, batch: MicroBatch) -> Losses:
        """Return the cross entropy of the next token, with label smoothing (Szegedy et al. 2016), summed over tokens.

        Targets end with the decoder's end token, and do not have its start token.
        """
        model: Any = passes.model
        targets_BL = padded_targets(batch, model.config.decoder.vocab_size)
        labels_BL = sent(targets_BL, model.device)
        inputs_BL = model.prepare_decoder_input_ids_from_labels(labels_BL)
        output, _ = passes(model, batch.waves, decoder_input_ids=inputs_BL, use_cache=False)
        num_tokens_B = (targets_BL != IGNORED_LABEL).sum(-1)
        return Losses.of(token_losses(output.logits, labels_BL, self.spec.smoothing), num_tokens_B)

    def frozen_at_first(self, model: Model) -> Iterator[nn.Parameter]:
        """Yield the trained parameters of the encoder."""
        return (weight for weight in model.speech_encoder.parameters() if weight.requires_grad)


def token_losses(logits_BLV: Tensor, labels_BL: Tensor, smoothing: float) -> Tensor:
    """Return the sum of the losses of each row's tokens, float32 (B,).

    Gradients are computed again from the logits, so that float32 values exist for one row at a time.
    """

    def loss(logits_LV: Tensor, labels_L: Tensor) -> Tensor:
        return F.cross_entropy(
            logits_LV.float(), labels_L, ignore_index=IGNORED_LABEL, reduction="sum", label_smoothing=smoothing
        )

    rows = zip(logits_BLV.unbind(), labels_BL, strict=True)
    return torch.stack([checkpoint(loss, *row, use_reentrant=False, preserve_rng_state=False) for row in rows])


def _loaded(plan: TrainingPlan, masks: Mapping[str, Any]) -> SpeechEncoderDecoderModel:
    """Load an encoder-decoder, or combine an encoder with a decoder."""
    folder = plan.checkpoint.path
    if plan.decoder is not None:
        of_encoder = {f"encoder_{name}": value for name, value in masks.items()}
        return SpeechEncoderDecoderModel.from_encoder_decoder_pretrained(folder, plan.decoder, **of_encoder)
    config = SpeechEncoderDecoderConfig.from_pretrained(folder)
    config.encoder = overridden(config.encoder, masks)
    return SpeechEncoderDecoderModel.from_pretrained(folder, config=config)
