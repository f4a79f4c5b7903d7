"""An objective of one's own: transducers, RNN-T or TDT, whose vocabulary stays."""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from transducer_loss import row_losses

import raysp
from raysp.models import AutoConfig, AutoModel, ParakeetForRNNT
from raysp.models.base.modeling import overridden
from raysp.specs import spec
from raysp.text.targets import CharacterTargets, Target
from raysp.training.data.micro_batches import Losses, MicroBatch
from raysp.training.objectives.head_tokenizers import HeadTokenizer, encode_of, tokenizer_of
from raysp.training.objectives.passes import Passes, padded_targets
from raysp.training.objectives.starting_model import anew, loading
from raysp.training.objectives.task import TextTask
from raysp.training.planning.training_plan import TrainingPlan


@spec
class Transducer(raysp.TextObjective):
    """Training of a transducer with the tokens of its checkpoint."""

    TASK: ClassVar[str] = f"{__name__}:TransducerTask"


@dataclass(frozen=True)
class TransducerTask(TextTask):
    """Targets, model and loss of `Transducer`."""

    spec: Transducer
    tokenizer: HeadTokenizer

    @classmethod
    def of(cls, spec: Transducer, plan: TrainingPlan) -> "TransducerTask":
        """Return the task with the tokenizer of the checkpoint."""
        return cls(spec, tokenizer_of(plan.checkpoint.path))

    def targets(self) -> CharacterTargets:
        """Return the ids of the tokens of texts."""
        return TokenTargets(self.rules, encode_of(self.tokenizer))

    def model(self, plan: TrainingPlan) -> ParakeetForRNNT:
        """Return the transducer of the checkpoint."""
        config: Any = AutoConfig.from_pretrained(plan.checkpoint.path)
        with loading(plan.recipe.seed, self.spec.masks):
            config.encoder_config = overridden(config.encoder_config, self.spec.masks)
            model = AutoModel.from_pretrained(plan.checkpoint.path, config=config, dtype=torch.float32)
        assert isinstance(model, ParakeetForRNNT)
        return anew(model, seed=plan.recipe.seed) if self.spec.random_weights else model

    def loss(self, passes: Passes, batch: MicroBatch) -> Losses:
        """Return the loss of each row divided by the number of its tokens; 0 for rows with too many of them."""
        model = passes.model
        assert isinstance(model, ParakeetForRNNT)
        labels_BU = padded_targets(batch, model.config.vocab_size)
        num_labels_B = torch.tensor([len(target) for target in batch.targets])
        output, num_frames_B = passes(model, batch.waves)
        losses_B = row_losses(model, output.pooler_output, num_frames_B, labels_BU, num_labels_B)
        return Losses.of(losses_B / num_labels_B.clamp(min=1).to(losses_B.device))


class TokenTargets(CharacterTargets):
    """Ids of the tokens of texts, of which there may be more than frames."""

    def misfit(self, target: Target, num_frames: int) -> str:
        """Return an empty text: any number of tokens may be written in a frame."""
        return ""
