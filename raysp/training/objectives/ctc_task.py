"""`CTC`: characters or pieces of texts, read from frames."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch

from raysp.crossing import sent
from raysp.errors import PlanError
from raysp.models.auto import AutoModelForCTC
from raysp.models.base.modeling import Model
from raysp.models.encoder.encoder_heads import ForCTC
from raysp.models.encoder.heads import IGNORED_LABEL, ctc_loss
from raysp.models.tokenizers.pieces import ParakeetTokenizer, merges_of
from raysp.specs.pipeline import fingerprint
from raysp.specs.values import JsonValue
from raysp.text import targets as vocabularies
from raysp.text.targets import CharacterTargets
from raysp.training.data.micro_batches import Losses, MicroBatch
from raysp.training.objectives.head_tokenizers import (
    PIECES,
    HeadTokenizer,
    described_characters,
    encode_of,
    learnt_tokenizer,
    learnt_words,
    read_vocabulary,
    tokenizer_for,
    tokenizer_of,
    word_targets,
)
from raysp.training.objectives.language_adapters import adapter_options, train_language
from raysp.training.objectives.passes import Passes, padded_targets
from raysp.training.objectives.starting_model import anew, loading
from raysp.training.objectives.task import TextTask
from raysp.training.planning.training_plan import TrainingPlan
from raysp.training.specs.objectives import BUILD, CTC, KEEP
from raysp.words import count


@dataclass(frozen=True)
class CTCTask(TextTask):
    """Task of `CTC`.

    Attributes:
        spec: the objective.
        tokenizer: tokenizer of the head; None: built from the texts.
    """

    spec: CTC
    tokenizer: HeadTokenizer | None

    @classmethod
    def of(cls, spec: CTC, plan: TrainingPlan) -> "CTCTask":
        """Return the task before its corpus is indexed.

        Raises:
            PlanError: the vocabulary cannot be used.
            CheckpointError: the checkpoint can have no adapter layers, or lacks their language.
        """
        vocabulary, language, checkpoint = spec.vocabulary, spec.adapter, plan.checkpoint
        if language is not None:
            adapter_options(checkpoint.path, language, is_new=vocabulary != KEEP)
        if spec.num_pieces:
            return cls(spec, None)
        if vocabulary == KEEP:
            return cls(spec, tokenizer_of(checkpoint.path, language))
        if checkpoint.model_type in PIECES:
            raise PlanError(
                f"objective.vocabulary: found {vocabulary!r}, a vocabulary of characters; {checkpoint.architecture} "
                f"has one of pieces of words: use vocabulary={KEEP!r}, which keeps the vocabulary of its "
                "tokenizer.json, or 'bpe:1024'"
            )
        if vocabulary == BUILD:
            return cls(spec, None)
        return cls(spec, tokenizer_for(read_vocabulary(vocabulary, plan.recipe.source.storage_options), language))

    @property
    def index_parts(self) -> Mapping[str, JsonValue]:
        """Rules for the texts, and the vocabulary if the objective sets it."""
        return {**super().index_parts, "counts": "words" if self.spec.num_pieces else "characters"}

    @property
    def digest(self) -> str:
        """Hash of the vocabulary, and of how its pieces are joined if they are learnt."""
        if self.spec.num_pieces and isinstance(self.tokenizer, ParakeetTokenizer):
            return fingerprint([self.vocabulary, merges_of(self.tokenizer)])
        return fingerprint(self.vocabulary)

    def settled(self, counts: Mapping[str, int]) -> "CTCTask":
        """Return the task with a vocabulary of characters or pieces, unless the objective sets it.

        Raises:
            PlanError: the texts have more characters than the vocabulary tokens.
        """
        if self.tokenizer is not None:
            return self
        if self.spec.num_pieces:
            return replace(self, tokenizer=learnt_tokenizer(counts, self.spec.num_pieces))
        return replace(self, tokenizer=tokenizer_for(vocabularies.build(counts), self.spec.adapter))

    def facts(self, counts: Mapping[str, int]) -> Mapping[str, str]:
        """Return the size of the vocabulary, and the characters outside it."""
        assert self.tokenizer is not None
        if self.spec.num_pieces:
            words = count(len(learnt_words(counts)), "different word")
            return {"pieces": f"{count(len(self.tokenizer.get_vocab()), 'token')}, learnt from {words}"}
        return {"characters": described_characters(counts, self.tokenizer)}

    def targets(self) -> CharacterTargets:
        """Return the ids of characters or pieces; before pieces are learnt, one for each word."""
        if self.tokenizer is None and self.spec.num_pieces:
            return word_targets(self.rules)
        return CharacterTargets(self.rules, None if self.tokenizer is None else encode_of(self.tokenizer))

    def model(self, plan: TrainingPlan) -> Model:
        """Return a model with a CTC head, which is new unless the vocabulary is kept."""
        assert self.tokenizer is not None
        spec, is_new, folder = self.spec, self.spec.vocabulary != KEEP, plan.checkpoint.path
        fields: dict[str, Any] = dict(spec.masks)
        if is_new:
            fields |= {"vocab_size": len(self.tokenizer.get_vocab()), "pad_token_id": self.tokenizer.pad_token_id}
        options: dict[str, Any] = {"dtype": torch.float32, "strict": not is_new, "ignore_mismatched_sizes": is_new}
        if spec.adapter is not None:
            options |= {**adapter_options(folder, spec.adapter, is_new=is_new), "strict": False}
        elif not is_new and plan.checkpoint.adapter is not None:
            options["target_lang"] = plan.checkpoint.language  # the main weights may hold another adapter
        with loading(plan.recipe.seed, spec.masks):
            model: Model = AutoModelForCTC.from_pretrained(folder, **options, **fields)
            if isinstance(model, ForCTC):
                model.target_lang = None  # an adapter is saved only where it is trained
            if spec.adapter is not None:
                train_language(model, spec.adapter, is_new=is_new)
            if spec.random_weights:
                model = anew(model, seed=plan.recipe.seed)
            if is_new or spec.random_weights:
                _begin_head(model, self.tokenizer.pad_token_id, spec.blank_bias)
        return model

    def loss(self, passes: Passes, batch: MicroBatch) -> Losses:
        """Return the CTC loss of each row divided by the number of its labels, summed over rows.

        Rows with more labels than their frames allow count as 0.
        """
        config: Any = passes.model.config
        blank, labels_BL = config.pad_token_id, padded_targets(batch, config.vocab_size)
        output, num_frames_B = passes(passes.model, batch.waves)
        losses_B = ctc_loss(output.logits, num_frames_B, labels_BL, blank=blank, reduction="none", zero_infinity=True)
        num_labels_B = ((labels_BL != IGNORED_LABEL) & (labels_BL != blank)).sum(-1).clamp(min=1)
        return Losses.of(losses_B / sent(num_labels_B, losses_B.device))


def _begin_head(model: Model, blank: int, blank_bias: float) -> None:
    """Initialise a head, even if the checkpoint has a head of equal size for other tokens."""
    assert isinstance(model, ForCTC)
    head: Any = model.head  # a dense layer, or a convolution of one tap
    with torch.no_grad():
        head.weight.normal_(0.0, getattr(model.config, "initializer_range", 0.02))
        head.bias.zero_()
        head.bias[blank] = blank_bias
