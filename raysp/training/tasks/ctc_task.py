"""`CTC`: characters of texts, read from frames: loss and task."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from raysp.crossing import sent
from raysp.models.base.modeling import Model
from raysp.models.encoder.heads import IGNORED_LABEL, ctc_loss
from raysp.models.features.processors import FeatureExtractor
from raysp.models.loading import load_feature_extractor
from raysp.models.tokenizers.pieces import ParakeetTokenizer, merges_of
from raysp.specs.values import JsonValue, hashed_fields
from raysp.text import targets as vocabularies
from raysp.text.targets import CharacterTargets
from raysp.training.characters import HeadTokenizer, encode_of, tokenizer_for
from raysp.training.data.micro_batches import Losses, MicroBatch
from raysp.training.objectives.language_objective import adapter_options
from raysp.training.objectives.objective_models import base_parameters, ctc_model
from raysp.training.objectives.passes import Passes, padded_targets
from raysp.training.planning.objective_checks import KEEP
from raysp.training.planning.training_plan import TrainingPlan
from raysp.training.specs.objectives import CTC, pieces_of
from raysp.training.tasks import task_texts
from raysp.words import count


class CTCObjective:
    """Loss of a CTC head: the loss of each row divided by the number of its labels, summed over rows.

    Rows with more labels than their frames allow count as 0.

    Args:
        model: a model with a CTC head.
        feature_extractor: extractor of its checkpoint.
        dtype: dtype of the arithmetic; weights and loss stay in float32.
    """

    def __init__(
        self, model: Model, feature_extractor: FeatureExtractor, *, dtype: torch.dtype = torch.float32
    ) -> None:
        self.model = model
        self.passes = Passes(model, feature_extractor, dtype)
        self.config: Any = model.config

    def __call__(self, batch: MicroBatch) -> Losses:
        """Run the model on a micro-batch of at least one row."""
        labels_BL = padded_targets(batch, self.config.vocab_size)
        output, num_frames_B = self.passes(self.model, batch.waves)
        blank = self.config.pad_token_id
        losses_B = ctc_loss(output.logits, num_frames_B, labels_BL, blank=blank, reduction="none", zero_infinity=True)
        num_labels_B = ((labels_BL != IGNORED_LABEL) & (labels_BL != blank)).sum(-1).clamp(min=1)
        rows_B = losses_B / sent(num_labels_B, losses_B.device)
        return Losses(rows_B.sum(), float(len(batch.rows)), rows_B.detach())


@dataclass(frozen=True)
class CTCTask(task_texts.ComparedTexts):
    """Task of `CTC`.

    Attributes:
        spec: the objective.
        head_tokenizer: tokenizer of the head; None: built from the texts.
    """

    spec: CTC
    head_tokenizer: HeadTokenizer | None

    @classmethod
    def of(cls, spec: CTC, plan: TrainingPlan) -> "CTCTask":
        """Return the task before its corpus is indexed.

        Raises:
            PlanError: the vocabulary cannot be used.
            CheckpointError: the checkpoint can have no adapter layers, or lacks their language.
        """
        if spec.adapter is not None:
            adapter_options(spec.checkpoint, plan.checkpoint.path, spec.adapter, is_new=spec.vocabulary != KEEP)
        return cls(spec, task_texts.given_tokenizer(spec.vocabulary, plan, spec.adapter))

    @property
    def num_pieces(self) -> int:
        """Tokens of a vocabulary of pieces that is learnt from the texts; 0: it is another one."""
        return pieces_of(self.spec.vocabulary)

    @property
    def tokenizer(self) -> HeadTokenizer:
        """Tokenizer of the head."""
        assert self.head_tokenizer is not None
        return self.head_tokenizer

    @property
    def index_parts(self) -> Mapping[str, JsonValue]:
        """Rules for the texts, and the vocabulary if the objective sets it."""
        words = {"counts": "words"} if self.num_pieces else {}
        return {
            "text": hashed_fields(self.spec.text),
            "vocabulary": {**self.head_tokenizer.get_vocab()} if self.head_tokenizer else None,
            **words,
        }

    @property
    def outputs(self) -> Mapping[str, JsonValue]:
        """The vocabulary."""
        return {"vocabulary": {**self.tokenizer.get_vocab()}}

    @property
    def digest(self) -> str:
        """Hash of the vocabulary, and of how its pieces are joined if they are learnt."""
        if self.num_pieces:
            assert isinstance(self.tokenizer, ParakeetTokenizer)
            return task_texts.digest_of([self.tokenizer.get_vocab(), merges_of(self.tokenizer)])
        return task_texts.digest_of(self.tokenizer.get_vocab())

    def settled(self, counts: Mapping[str, int]) -> "CTCTask":
        """Return the task with a vocabulary of characters or pieces, unless the objective sets it.

        Raises:
            PlanError: the texts have more characters than the vocabulary tokens.
        """
        if self.head_tokenizer:
            return self
        if self.num_pieces:
            return replace(self, head_tokenizer=task_texts.learnt_tokenizer(counts, self.num_pieces))
        return replace(self, head_tokenizer=tokenizer_for(vocabularies.build(counts), self.spec.adapter))

    def facts(self, counts: Mapping[str, int]) -> Mapping[str, str]:
        """Return the size of the vocabulary, and the characters outside it."""
        if self.num_pieces:
            words = count(len(task_texts.learnt_words(counts)), "different word")
            return {"pieces": f"{count(len(self.tokenizer.get_vocab()), 'token')}, learnt from {words}"}
        return {"characters": task_texts.described_characters(counts, self.tokenizer)}

    def targets(self) -> CharacterTargets:
        """Return the ids of characters or pieces; before pieces are learnt, one for each word."""
        rules = task_texts.rules_of(self.spec.text)
        if self.num_pieces and self.head_tokenizer is None:
            return task_texts.word_targets(rules)
        return CharacterTargets(rules, encode_of(self.head_tokenizer) if self.head_tokenizer else None)

    def objective(self, plan: TrainingPlan) -> CTCObjective:
        """Return the loss with its model."""
        model = ctc_model(plan, self.spec, self.tokenizer)
        extractor = load_feature_extractor(plan.checkpoint.path)
        return CTCObjective(model, extractor, dtype=getattr(torch, plan.dtype))

    def frozen_at_first(self, model: Model) -> Iterator[nn.Parameter]:
        """Yield the parameters of all but the head."""
        return base_parameters(model)
