"""Task of `Pretrain`: codes of masked frames, and characters of the texts that there are."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from raysp.errors import CheckpointError, PlanError
from raysp.evaluation.intervals import Bootstrap
from raysp.evaluation.scores import Columns, Comparison, no_metrics
from raysp.models.auto import AutoConfig
from raysp.models.base.modeling import Model
from raysp.models.checking import load_feature_extractor
from raysp.models.unispeech import UniSpeechForPreTraining
from raysp.specs.values import JsonValue
from raysp.text import vocabulary as vocabularies
from raysp.text.targets import NO_TEXT, CharacterTargets, Target
from raysp.training.characters import HeadTokenizer, encode_of, tokenizer_for
from raysp.training.data.micro_batches import MicroBatch, Objective
from raysp.training.objectives.objective_models import begun, naming_masks
from raysp.training.objectives.pretraining_objective import (
    PretrainingObjective,
    Temperature,
    check_masks,
    load_pretraining_model,
)
from raysp.training.planning.objective_checks import KEEP
from raysp.training.planning.training_plan import TrainingPlan
from raysp.training.specs.objectives import Pretrain
from raysp.training.specs.recipe import Evaluation
from raysp.training.tasks import task_texts as texts
from raysp.training.tasks.task import Prediction


class OptionalTexts:
    """Ids of the characters of texts; empty, and no reason to leave a row out, where there is no text.

    Args:
        texts: targets of rows with a text; None: no row has one.
    """

    def __init__(self, texts: CharacterTargets | None) -> None:
        self.texts = texts
        self.counts: Counter[str] = Counter() if texts is None else texts.counts
        """Occurrences of each character in the texts so far."""

    def __call__(self, value: object) -> Target:
        """Return the target of a text, and count its characters."""
        target = Target((), NO_TEXT) if self.texts is None else self.texts(value)
        return Target(()) if target.reason == NO_TEXT else target

    def misfit(self, target: Target, num_frames: int) -> str:
        """Return the reason of a text that needs more frames for CTC, else an empty text."""
        return "" if self.texts is None else self.texts.misfit(target, num_frames)


@dataclass(frozen=True)
class PretrainingTask:
    """Task of `Pretrain`.

    Attributes:
        spec: the objective.
        tokenizer: of the CTC head; None: it is built from the texts, or there are none.
        has_texts: whether any row of the corpus has a text; until it is known, True.
    """

    spec: Pretrain
    tokenizer: HeadTokenizer | None
    has_texts: bool = True

    tags = ("pretraining", "raysp")

    @classmethod
    def of(cls, spec: Pretrain, plan: TrainingPlan) -> "PretrainingTask":
        """Return the task before its corpus is known.

        Raises:
            PlanError: the vocabulary or the masks cannot be used.
            CheckpointError: the vocabulary to be kept is not there, or not that of the head.
        """
        folder = plan.checkpoint.path
        masks: dict[str, Any] = {**spec.masks}
        config: Any = AutoConfig.from_pretrained(folder, **masks)
        try:
            check_masks(config)
        except ValueError as error:
            raise PlanError(f"objective.masks: {error}") from None
        if spec.vocabulary == KEEP and not (folder / "vocab.json").is_file():
            raise CheckpointError(
                f"{spec.checkpoint}: vocab.json not found, so there is no vocabulary to keep; set "
                "objective.vocabulary='build', or to the url of a vocab.json"
            )
        tokenizer = texts.given_tokenizer(spec.vocabulary, plan)
        if tokenizer is not None and _keeps_head(spec, plan):
            _check_head(spec, config, tokenizer)
        return cls(spec, tokenizer)

    @property
    def index_parts(self) -> Mapping[str, JsonValue]:
        """Rules for the texts, and the vocabulary if it is given; rows without a text are kept."""
        return {"text": self.spec.text.fields(), "vocabulary": self._vocabulary, "without_text": "kept"}

    @property
    def outputs(self) -> Mapping[str, JsonValue]:
        """The vocabulary, if there is one."""
        return {"vocabulary": self._vocabulary}

    @property
    def digest(self) -> str:
        """Hash of the vocabulary."""
        return texts.digest_of(self._vocabulary)

    @property
    def _vocabulary(self) -> dict[str, JsonValue] | None:
        return {**self.tokenizer.get_vocab()} if self.tokenizer else None

    def settled(self, counts: Mapping[str, int]) -> "PretrainingTask":
        """Return the task with a vocabulary of the characters, unless it is given or there are no texts."""
        if self.tokenizer or not counts:
            return replace(self, has_texts=bool(counts))
        return replace(self, tokenizer=tokenizer_for(vocabularies.build(counts)))

    def facts(self, counts: Mapping[str, int]) -> Mapping[str, str]:
        """Return the size of the vocabulary, and the characters outside it."""
        if not self.tokenizer or not self.has_texts:
            return {"characters": "no row has a text: the CTC head is not trained"}
        return {"characters": texts.described_characters(counts, self.tokenizer)}

    def targets(self) -> OptionalTexts:
        """Return the ids of characters."""
        if not self.has_texts:
            return OptionalTexts(None)
        encode = encode_of(self.tokenizer) if self.tokenizer else None
        return OptionalTexts(CharacterTargets(texts.rules_of(self.spec.text), encode))

    def min_samples(self, plan: TrainingPlan) -> int:
        """Return the samples of one frame."""
        return plan.checkpoint.min_samples

    def objective(self, plan: TrainingPlan) -> PretrainingObjective:
        """Return the loss with its model."""
        spec, folder, tokenizer = self.spec, plan.checkpoint.path, self.tokenizer
        is_new = tokenizer is not None and not _keeps_head(spec, plan)
        with naming_masks():
            model = load_pretraining_model(
                folder,
                num_classes=len(tokenizer.get_vocab()) if tokenizer and is_new else None,
                blank=tokenizer.pad_token_id if tokenizer else None,
                masks=spec.masks,
                seed=plan.recipe.seed,
                random_weights=spec.random_weights,
            )
        model.ctc_proj.requires_grad_(self.has_texts)
        return PretrainingObjective(
            begun(model, plan, None),
            load_feature_extractor(folder),
            alpha=spec.alpha,
            temperature=Temperature(spec.temperature, spec.final_temperature, spec.temperature_decay),
            dtype=getattr(torch, plan.dtype),
        )

    def held(self, model: Model) -> Iterator[nn.Parameter]:
        """Yield nothing: all is trained from the first step on."""
        return iter(())

    def shown(self, target: Sequence[float]) -> str:
        """Return an empty text: no text is predicted."""
        return ""

    def reference(self, value: object) -> str | None:
        """Return an empty text: rows without a text are evaluated too."""
        return ""

    def predict(self, objective: Objective, batch: MicroBatch) -> list[Prediction]:
        """Return the losses."""
        assert isinstance(objective, PretrainingObjective)
        return [Prediction("", loss) for loss in objective.evaluate(batch).tolist()]

    def compare(
        self,
        references: Sequence[str],
        predictions: Sequence[Prediction],
        columns: Columns,
        evaluation: Evaluation,
        bootstrap: Bootstrap | None,
    ) -> Comparison:
        """Return no metrics: there is the loss alone."""
        return no_metrics(len(references))


def _keeps_head(spec: Pretrain, plan: TrainingPlan) -> bool:
    """Return whether the CTC head is that of the checkpoint."""
    return spec.vocabulary == KEEP and plan.checkpoint.architecture == UniSpeechForPreTraining.__name__


def _check_head(spec: Pretrain, config: Any, tokenizer: HeadTokenizer) -> None:  # noqa: ANN401 - a configuration
    """Raise CheckpointError if a tokenizer is not that of the CTC head of its checkpoint."""
    found = (len(tokenizer.get_vocab()), tokenizer.pad_token_id)
    if found != (config.num_ctc_classes, config.pad_token_id):
        raise CheckpointError(
            f"{spec.checkpoint}: vocab.json has {found[0]} tokens with the blank {found[1]}, the head "
            f"{config.num_ctc_classes} with the blank {config.pad_token_id} (config.json: num_ctc_classes, "
            "pad_token_id); set objective.vocabulary='build', or to the url of a vocab.json"
        )
