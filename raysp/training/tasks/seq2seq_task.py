"""Task of `Seq2Seq`: tokens of texts, written by a decoder."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from raysp.errors import CheckpointError
from raysp.models.auto import AutoConfig
from raysp.models.base.modeling import Model
from raysp.models.checking import load_feature_extractor
from raysp.models.tokenizers.text import TextTokenizer
from raysp.specs.values import JsonValue
from raysp.text.normalisation import TextRules
from raysp.text.targets import NO_TEXT, OUTSIDE, TOO_MANY, Target, contains_any
from raysp.training.data.micro_batches import MicroBatch, Objective
from raysp.training.objectives.decoder_tokens import DecoderTokens, SpecialIds, special_ids
from raysp.training.objectives.objective_models import begun, naming_masks
from raysp.training.objectives.seq2seq_objective import Seq2SeqObjective, load_encoder_decoder
from raysp.training.planning.training_plan import TrainingPlan
from raysp.training.specs.objectives import Seq2Seq
from raysp.training.tasks import task_texts
from raysp.training.tasks.task import Prediction
from raysp.words import count


class TokenTargets:
    """Ids of the tokens of texts, up to the end token.

    Args:
        rules: rules for the texts.
        tokens: ids of a text.
        most: positions of the decoder; a text with more tokens is left out.
    """

    def __init__(self, rules: TextRules, tokens: DecoderTokens, most: int) -> None:
        self.rules = rules
        self.tokens = tokens
        self.most = most
        self.reserved = [token for token in tokens.tokenizer.all_special_tokens if token.strip()]
        """Tokens that a text cannot contain: one that ends texts would cut it."""
        self.counts: Counter[str] = Counter()
        """Occurrences of each token in the texts so far."""

    def __call__(self, value: object) -> Target:
        """Return the target of a text, and count its tokens; None is an empty text."""
        text = self.rules("" if value is None else str(value))
        if not text:
            return Target((), NO_TEXT)
        if contains_any(self.reserved, text):
            return Target((), OUTSIDE)
        ids = self.tokens(text)
        self.counts.update(self.tokens.tokenizer.convert_ids_to_tokens(ids))
        return Target(ids) if len(ids) <= self.most else Target((), TOO_MANY)

    def misfit(self, target: Target, num_frames: int) -> str:
        """Return an empty text: a decoder writes any number of tokens."""
        return ""


@dataclass(frozen=True)
class Seq2SeqTask(task_texts.ComparedTexts):
    """Task of `Seq2Seq`.

    Attributes:
        spec: the objective.
        tokenizer: that of the decoder.
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
            raise CheckpointError(f"{folder}: {config.model_type} is no text model with a decoder: use one")
        tokenizer = TextTokenizer.from_pretrained(folder)
        return cls(spec, tokenizer, special_ids(tokenizer, config, of_decoder), int(num_positions))

    @property
    def index_parts(self) -> Mapping[str, JsonValue]:
        """Rules for the texts, tokens, and positions."""
        prompt: list[JsonValue] = [*self.spec.prompt_tokens]
        return {"text": self.spec.text.fields(), "tokens": self.digest, "prompt": prompt, "most": self.num_positions}

    @property
    def outputs(self) -> Mapping[str, JsonValue]:
        """The vocabulary."""
        return {"vocabulary": {**self.tokenizer.get_vocab()}}

    @property
    def digest(self) -> str:
        """Hash of the vocabulary and of the special tokens."""
        return task_texts.digest_of([self.tokenizer.get_vocab(), self.special])

    def settled(self, counts: Mapping[str, int]) -> "Seq2SeqTask":
        """Return the task: its vocabulary is that of the decoder."""
        return self

    def facts(self, counts: Mapping[str, int]) -> Mapping[str, str]:
        """Return the size of the vocabulary, the tokens that occur, and how often the unknown token does."""
        unknown = counts.get(self.tokenizer.unk_token or "", 0)
        more = f"; {self.tokenizer.unk_token!r} ({unknown:,})" if unknown else ""
        return {"tokens": f"{count(len(self.tokenizer), 'token')}, of which {len(counts):,} occur{more}"}

    def targets(self) -> TokenTargets:
        """Return the ids of tokens."""
        tokens = DecoderTokens(self.tokenizer, self.special, self.spec.prompt_tokens)
        return TokenTargets(task_texts.rules_of(self.spec.text), tokens, self.num_positions)

    def min_samples(self, plan: TrainingPlan) -> int:
        """Return the samples of one frame."""
        return plan.checkpoint.min_samples

    def objective(self, plan: TrainingPlan) -> Seq2SeqObjective:
        """Return the loss with its model."""
        spec, folder = self.spec, plan.checkpoint.path
        with naming_masks():
            model = load_encoder_decoder(
                folder,
                self.tokenizer,
                decoder=plan.decoder,
                masks=spec.masks,
                prompt_tokens=spec.prompt_tokens,
                generate=spec.generate,
                seed=plan.recipe.seed,
                random_weights=spec.random_weights,
            )
        model = begun(model, plan, spec.freeze, spec.lora)
        extractor, dtype = load_feature_extractor(folder), getattr(torch, plan.dtype)
        return Seq2SeqObjective(model, extractor, smoothing=spec.smoothing, dtype=dtype)

    def held(self, model: Model) -> Iterator[nn.Parameter]:
        """Yield the trained parameters of the encoder."""
        return (one for one in model.speech_encoder.parameters() if one.requires_grad)

    def shown(self, target: Sequence[float]) -> str:
        """Return the text of ids."""
        return str(self.tokenizer.decode([*map(int, target)], skip_special_tokens=True))

    def predict(self, objective: Objective, batch: MicroBatch) -> list[Prediction]:
        """Return the texts that the decoder writes."""
        assert isinstance(objective, Seq2SeqObjective)
        ids_BL, losses_B = objective.predict(batch)
        found = self.tokenizer.batch_decode(ids_BL, skip_special_tokens=True)
        return [Prediction(text.strip(), loss) for text, loss in zip(found, losses_B.tolist(), strict=True)]
