"""Task of `CTC`: characters of texts, read from frames."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import nn

from raysp.models.base.modeling import Model
from raysp.models.checking import load_feature_extractor
from raysp.specs.values import JsonValue
from raysp.text import vocabulary as vocabularies
from raysp.text.targets import CharacterTargets
from raysp.training.characters import HeadTokenizer, encode_of, tokenizer_for
from raysp.training.data.micro_batches import MicroBatch, Objective
from raysp.training.objectives.ctc_objective import CTCObjective
from raysp.training.objectives.language_objective import adapter_options
from raysp.training.objectives.objective_models import ctc_model, held_below_head
from raysp.training.planning.objective_checks import KEEP
from raysp.training.planning.training_plan import TrainingPlan
from raysp.training.specs.objectives import CTC
from raysp.training.tasks import task_texts
from raysp.training.tasks.task import Prediction


@dataclass(frozen=True)
class CTCTask(task_texts.ComparedTexts):
    """Task of `CTC`.

    Attributes:
        spec: the objective.
        known: tokenizer of the head; None: it is built from the texts.
    """

    spec: CTC
    known: HeadTokenizer | None

    @classmethod
    def of(cls, spec: CTC, plan: TrainingPlan) -> "CTCTask":
        """Return the task before its corpus is known.

        Raises:
            PlanError: the given vocabulary cannot be used.
            CheckpointError: the checkpoint can have no adapter layers, or lacks their language.
        """
        if spec.adapter is not None:
            adapter_options(spec.checkpoint, plan.checkpoint.path, spec.adapter, is_new=spec.vocabulary != KEEP)
        return cls(spec, task_texts.given_tokenizer(spec.vocabulary, plan, spec.adapter))

    @property
    def tokenizer(self) -> HeadTokenizer:
        """Tokenizer of the head."""
        assert self.known is not None
        return self.known

    @property
    def index_parts(self) -> Mapping[str, JsonValue]:
        """Rules for the texts, and the vocabulary if it is given."""
        return {"text": self.spec.text.fields(), "vocabulary": {**self.known.get_vocab()} if self.known else None}

    @property
    def outputs(self) -> Mapping[str, JsonValue]:
        """The vocabulary."""
        return {"vocabulary": {**self.tokenizer.get_vocab()}}

    @property
    def digest(self) -> str:
        """Hash of the vocabulary."""
        return task_texts.digest_of(self.tokenizer.get_vocab())

    def settled(self, counts: Mapping[str, int]) -> "CTCTask":
        """Return the task with a vocabulary of the characters, unless it is given."""
        if self.known:
            return self
        return replace(self, known=tokenizer_for(vocabularies.build(counts), self.spec.adapter))

    def facts(self, counts: Mapping[str, int]) -> Mapping[str, str]:
        """Return the size of the vocabulary, and the characters outside it."""
        return {"characters": task_texts.described_characters(counts, self.tokenizer)}

    def targets(self) -> CharacterTargets:
        """Return the ids of characters."""
        return CharacterTargets(task_texts.rules_of(self.spec.text), encode_of(self.known) if self.known else None)

    def min_samples(self, plan: TrainingPlan) -> int:
        """Return the samples of one frame."""
        return plan.checkpoint.min_samples

    def objective(self, plan: TrainingPlan) -> CTCObjective:
        """Return the loss with its model."""
        model = ctc_model(plan, self.spec, self.tokenizer)
        return CTCObjective(
            model,
            load_feature_extractor(plan.checkpoint.path),
            dtype=getattr(torch, plan.dtype),
            label_prior=self.spec.label_prior,
        )

    def held(self, model: Model) -> Iterator[nn.Parameter]:
        """Yield the parameters of all but the head."""
        return held_below_head(model)

    def shown(self, target: Sequence[float]) -> str:
        """Return the text of ids."""
        return str(self.tokenizer.decode([*map(int, target)], group_tokens=False))

    def predict(self, objective: Objective, batch: MicroBatch) -> list[Prediction]:
        """Return texts by greedy decoding."""
        assert isinstance(objective, CTCObjective)
        return [Prediction(text, loss) for text, loss in objective.recognise(batch, self.tokenizer)]
