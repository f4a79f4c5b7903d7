"""Training of CTC heads."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from raysp.models.base.modeling import Model
from raysp.models.encoder.heads import IGNORED_LABEL, ctc_loss
from raysp.models.features.processors import FeatureExtractor
from raysp.models.tokenizers.ctc import Wav2Vec2CTCTokenizer
from raysp.training.batches import Losses, MicroBatch
from raysp.training.passes import Passes, padded_targets


class CTCObjective:
    """Loss of a CTC head: of each row by the number of its labels, summed over rows.

    Rows with more labels than their frames allow count as 0.

    Args:
        model: a model with a CTC head.
        feature_extractor: that of its checkpoint.
        dtype: dtype of the arithmetic; weights and loss stay in float32.
    """

    terms: tuple[str, ...] = ()

    def __init__(
        self, model: Model, feature_extractor: FeatureExtractor, *, dtype: torch.dtype = torch.float32
    ) -> None:
        self.model = model
        self.passes = Passes(model, feature_extractor, dtype)
        self.config: Any = model.config

    def __call__(self, batch: MicroBatch) -> Losses:
        """Run the model on a micro-batch of at least one row."""
        labels_BL = padded_targets(batch, self.config.vocab_size).to(self.model.device)
        output, num_frames_B = self.passes(self.model, batch.waves)
        blank = self.config.pad_token_id
        losses_B = ctc_loss(output.logits, num_frames_B, labels_BL, blank=blank, reduction="none", zero_infinity=True)
        num_labels_B = ((labels_BL != IGNORED_LABEL) & (labels_BL != blank)).sum(-1).clamp(min=1)
        rows_B = losses_B / num_labels_B
        return Losses(rows_B.sum(), float(len(batch.rows)), rows_B.detach())

    @torch.inference_mode()
    def texts(self, waves: Sequence[np.ndarray], tokenizer: Wav2Vec2CTCTokenizer) -> list[str]:
        """Return the texts of recordings by greedy decoding, each alone in evaluation mode."""
        was_training = self.model.training
        self.model.eval()
        try:
            return [self._text(wave, tokenizer) for wave in waves]
        finally:
            self.model.train(was_training)

    def _text(self, wave: np.ndarray, tokenizer: Wav2Vec2CTCTokenizer) -> str:
        output, _ = self.passes(self.model, [wave])
        return str(tokenizer.decode(output.logits[0].argmax(-1).tolist()))
