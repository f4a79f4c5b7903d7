"""Training of CTC heads."""

from typing import Any

import torch
from torch import Tensor

from raysp.crossing import sent
from raysp.models.base.modeling import Model
from raysp.models.encoder.heads import IGNORED_LABEL, ctc_loss
from raysp.models.features.processors import FeatureExtractor
from raysp.training.characters import HeadTokenizer
from raysp.training.data.micro_batches import Losses, MicroBatch
from raysp.training.objectives.passes import Passes, evaluation_mode, padded_targets
from raysp.training.objectives.priors import prior_ctc_loss


class CTCObjective:
    """Loss of a CTC head: of each row by the number of its labels, summed over rows.

    Rows with more labels than their frames allow count as 0.

    Args:
        model: a model with a CTC head.
        feature_extractor: that of its checkpoint.
        dtype: dtype of the arithmetic; weights and loss stay in float32.
        label_prior: power of the label priors (`priors`), 0 for the usual loss. Evaluations have the usual loss.
    """

    terms: tuple[str, ...] = ()

    def __init__(
        self,
        model: Model,
        feature_extractor: FeatureExtractor,
        *,
        dtype: torch.dtype = torch.float32,
        label_prior: float = 0.0,
    ) -> None:
        self.model = model
        self.feature_extractor = feature_extractor
        self.passes = Passes(model, feature_extractor, dtype)
        self.config: Any = model.config
        self.label_prior = label_prior

    def __call__(self, batch: MicroBatch) -> Losses:
        """Run the model on a micro-batch of at least one row."""
        labels_BL = padded_targets(batch, self.config.vocab_size)
        output, num_frames_B = self.passes(self.model, batch.waves)
        rows_B = self._row_losses(output.logits, num_frames_B, labels_BL, label_prior=self.label_prior)
        return Losses(rows_B.sum(), float(len(batch.rows)), rows_B.detach())

    def _row_losses(
        self, logits_BTV: Tensor, num_frames_B: Tensor, labels_BL: Tensor, *, label_prior: float = 0.0
    ) -> Tensor:
        blank = self.config.pad_token_id
        if label_prior:
            losses_B = prior_ctc_loss(logits_BTV, num_frames_B, labels_BL, blank=blank, power=label_prior)
        else:
            losses_B = ctc_loss(logits_BTV, num_frames_B, labels_BL, blank=blank, reduction="none", zero_infinity=True)
        num_labels_B = ((labels_BL != IGNORED_LABEL) & (labels_BL != blank)).sum(-1).clamp(min=1)
        rows_B: Tensor = losses_B / sent(num_labels_B, losses_B.device)
        return rows_B

    @torch.inference_mode()
    def recognise(self, batch: MicroBatch, tokenizer: HeadTokenizer) -> list[tuple[str, float]]:
        """Return texts of recordings by greedy decoding in evaluation mode, and their losses."""
        with evaluation_mode(self.model):
            labels_BL = padded_targets(batch, self.config.vocab_size)
            output, num_frames_B = self.passes(self.model, batch.waves)
            losses_B = self._row_losses(output.logits, num_frames_B, labels_BL)
        ids_BT = output.logits.argmax(-1).cpu()
        rows = zip(ids_BT, num_frames_B.tolist(), losses_B.tolist(), strict=True)
        return [(str(tokenizer.decode(ids_T[:length].tolist())), loss) for ids_T, length, loss in rows]
