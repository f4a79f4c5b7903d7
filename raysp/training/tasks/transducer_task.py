"""`Transducer`: pieces of texts, written between frames: loss and task."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from raysp.crossing import fetch, sent
from raysp.models.auto import AutoConfig, AutoModel
from raysp.models.base.modeling import Model, overridden
from raysp.models.decoder.transducer_loss import Moves
from raysp.models.features.processors import FeatureExtractor
from raysp.models.loading import load_feature_extractor
from raysp.models.parakeet_transducers import ParakeetForRNNT
from raysp.specs.values import JsonValue, hashed_fields
from raysp.text.targets import CharacterTargets
from raysp.training.characters import HeadTokenizer, encode_of, tokenizer_of
from raysp.training.data.micro_batches import Losses, MicroBatch, Objective
from raysp.training.objectives.objective_models import base_parameters, begun, naming_masks
from raysp.training.objectives.passes import Passes, evaluation_mode, padded_targets
from raysp.training.objectives.starting_model import Masks, anew
from raysp.training.planning.training_plan import TrainingPlan
from raysp.training.specs.objectives import Transducer
from raysp.training.tasks import task_texts
from raysp.training.tasks.task import Prediction


def load_transducer(folder: Any, masks: Masks, *, seed: int = 0, random_weights: bool = False) -> ParakeetForRNNT:  # noqa: ANN401 - a path
    """Load a transducer in training mode and float32.

    Args:
        folder: model folder.
        masks: fields of the encoder's configuration.
        seed: seed of initial weights.
        random_weights: whether all weights are initialised.
    """
    config: Any = AutoConfig.from_pretrained(folder)
    config.encoder_config = overridden(config.encoder_config, masks)
    model = AutoModel.from_pretrained(folder, config=config, dtype=torch.float32, strict=True)
    assert isinstance(model, ParakeetForRNNT)
    return (anew(model, seed=seed) if random_weights else model).train()


class TransducerObjective:
    """Loss of a transducer: the loss of each row divided by the number of its tokens, summed over rows.

    Rows with more tokens than their frames allow count as 0.

    Args:
        model: a transducer.
        feature_extractor: extractor of its checkpoint.
        dtype: dtype of the arithmetic; weights and loss stay in float32.
    """

    def __init__(
        self, model: ParakeetForRNNT, feature_extractor: FeatureExtractor, *, dtype: torch.dtype = torch.float32
    ) -> None:
        self.model = model
        self.feature_extractor = feature_extractor
        self.passes = Passes(model, feature_extractor, dtype)

    def __call__(self, batch: MicroBatch) -> Losses:
        """Run the model on a micro-batch of at least one row."""
        rows_B, _, _ = self._row_losses(batch)
        return Losses(rows_B.sum(), float(len(batch.rows)), rows_B.detach())

    def _row_losses(self, batch: MicroBatch) -> tuple[Tensor, Tensor, Tensor]:
        """Return the losses, the projected frames (B, T, J), and the number of frames of each row."""
        labels_BU = padded_targets(batch, self.model.config.vocab_size)
        num_labels_B = torch.tensor([len(target) for target in batch.targets])
        device = self.model.device

        def run(**features: Any) -> tuple[Tensor, Tensor]:  # noqa: ANN401 - of any extractor
            frames_BTJ: Tensor = self.model(**features).pooler_output
            num_frames_B = self.model.num_frames(torch.tensor([len(wave) for wave in batch.waves]))
            losses_B = self.model.row_losses(frames_BTJ, num_frames_B, labels_BU, num_labels_B)
            return losses_B, frames_BTJ

        (losses_B, frames_BTJ), num_frames_B = self.passes(run, batch.waves)
        return losses_B / sent(num_labels_B.clamp(min=1), device), frames_BTJ, num_frames_B

    @torch.inference_mode()
    def recognise(self, batch: MicroBatch, tokenizer: HeadTokenizer) -> list[tuple[str, float]]:
        """Return texts of recordings by greedy search in evaluation mode, and their losses."""
        with evaluation_mode(self.model):
            losses_B, frames_BTJ, num_frames_B = self._row_losses(batch)
            tokens_BS, losses = fetch(self.model.search(frames_BTJ, num_frames_B).tokens_BS, losses_B)
        rows = zip(tokens_BS.tolist(), losses.tolist(), strict=True)
        return [(self._text(tokens, tokenizer), loss) for tokens, loss in rows]

    def _text(self, tokens: Sequence[int], tokenizer: HeadTokenizer) -> str:
        left_out = (self.model.blank, tokenizer.pad_token_id)
        return str(tokenizer.decode([token for token in tokens if token not in left_out], group_tokens=False))


@dataclass(frozen=True)
class TransducerTask(task_texts.ComparedTexts):
    """Task of `Transducer`.

    Attributes:
        spec: the objective.
        tokenizer: tokenizer of the checkpoint.
        moves: moves of paths through frames and tokens.
    """

    spec: Transducer
    tokenizer: HeadTokenizer
    moves: Moves

    @classmethod
    def of(cls, spec: Transducer, plan: TrainingPlan) -> "TransducerTask":
        """Return the task."""
        folder = plan.checkpoint.path
        config: Any = AutoConfig.from_pretrained(folder)
        moves = Moves(config.blank_token_id, config.vocab_size, tuple(getattr(config, "durations", ())))
        return cls(spec, tokenizer_of(folder), moves)

    @property
    def index_parts(self) -> Mapping[str, JsonValue]:
        """Rules for the texts, and the vocabulary."""
        return {"text": hashed_fields(self.spec.text), **self.outputs}

    @property
    def outputs(self) -> Mapping[str, JsonValue]:
        """The vocabulary, and the durations of TDT."""
        return {"vocabulary": {**self.tokenizer.get_vocab()}, "durations": [*self.moves.durations]}

    @property
    def digest(self) -> str:
        """Hash of the vocabulary and of the durations."""
        return task_texts.digest_of(self.outputs)

    def settled(self, counts: Mapping[str, int]) -> "TransducerTask":
        """Return the task: its vocabulary is the checkpoint's."""
        return self

    def facts(self, counts: Mapping[str, int]) -> Mapping[str, str]:
        """Return the size of the vocabulary, and the characters outside it."""
        return {"characters": task_texts.described_characters(counts, self.tokenizer)}

    def targets(self) -> CharacterTargets:
        """Return the ids of pieces."""
        rules, encode = task_texts.rules_of(self.spec.text), encode_of(self.tokenizer)
        return CharacterTargets(rules, encode, lambda ids: self.moves.frames_needed(len(ids)))

    def objective(self, plan: TrainingPlan) -> TransducerObjective:
        """Return the loss with its model."""
        spec, folder = self.spec, plan.checkpoint.path
        with naming_masks():
            model = load_transducer(folder, spec.masks, seed=plan.recipe.seed, random_weights=spec.random_weights)
        model = begun(model, plan, spec.freeze)
        return TransducerObjective(model, load_feature_extractor(folder), dtype=getattr(torch, plan.dtype))

    def frozen_at_first(self, model: Model) -> Iterator[nn.Parameter]:
        """Yield the parameters of the encoder."""
        return base_parameters(model)

    def shown(self, target: Sequence[float]) -> str:
        """Return the text of ids."""
        return str(self.tokenizer.decode([*map(int, target)], group_tokens=False))

    def predict(self, objective: Objective, batch: MicroBatch) -> list[Prediction]:
        """Return texts by greedy search."""
        assert isinstance(objective, TransducerObjective)
        return [Prediction(text, loss) for text, loss in objective.recognise(batch, self.tokenizer)]
