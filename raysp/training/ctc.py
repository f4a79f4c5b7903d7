"""Training of CTC heads."""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from raysp.models.base.modeling import Model
from raysp.models.encoder.heads import IGNORED_LABEL, ctc_loss
from raysp.models.features.processors import FeatureExtractor
from raysp.models.tokenizers.ctc import Wav2Vec2CTCTokenizer
from raysp.ops.labelling import as_float, pad
from raysp.training.batches import Losses, MicroBatch


class CTCObjective:
    """Loss of a CTC head: of each row by the number of its labels, summed over rows.

    Rows with more labels than their frames allow count as 0.

    Args:
        model: a model with a CTC head.
        feature_extractor: that of its checkpoint.
        dtype: dtype of the arithmetic; weights and loss stay in float32.
    """

    def __init__(
        self, model: Model, feature_extractor: FeatureExtractor, *, dtype: torch.dtype = torch.float32
    ) -> None:
        self.model = model
        self.feature_extractor = feature_extractor
        self.dtype = dtype
        self.config: Any = model.config

    def __call__(self, batch: MicroBatch) -> Losses:
        """Run the model on a micro-batch of at least one row."""
        waves_BS, num_samples_B = pad(batch.waves)
        device = self.model.device
        features = self.feature_extractor.extract(as_float(waves_BS.to(device)), num_samples_B.to(device))
        num_frames_B = self.model.num_frames(num_samples_B)
        with self._short_masks(int(num_frames_B.max())), self._autocast():
            logits_BTV = self.model(**features).logits
        labels_BL = _padded(batch.targets).to(device)
        blank = self.config.pad_token_id
        losses_B = ctc_loss(
            logits_BTV, num_frames_B.to(device), labels_BL, blank=blank, reduction="none", zero_infinity=True
        )
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
        waves_1S, num_samples_1 = pad([wave])
        device = self.model.device
        features = self.feature_extractor.extract(as_float(waves_1S.to(device)), num_samples_1.to(device))
        return str(tokenizer.decode(self.model(**features).logits[0].argmax(-1).tolist()))

    def _autocast(self) -> contextlib.AbstractContextManager[object]:
        if self.dtype == torch.float32:
            return contextlib.nullcontext()
        return torch.autocast(self.model.device.type, dtype=self.dtype)

    @contextlib.contextmanager
    def _short_masks(self, num_frames: int) -> Iterator[None]:
        """Shorten SpecAugment's spans for rows that are shorter than one, which would be refused."""
        length = getattr(self.config, "mask_time_length", 0)
        if num_frames >= length:
            yield
            return
        self.config.mask_time_length = max(1, num_frames)
        try:
            yield
        finally:
            self.config.mask_time_length = length


def _padded(targets: Sequence[Sequence[int]]) -> Tensor:
    """Return labels of shape (B, L), with `IGNORED_LABEL` after the end of each row."""
    labels_BL = torch.full((len(targets), max(map(len, targets), default=0)), IGNORED_LABEL)
    for labels_L, target in zip(labels_BL, targets, strict=True):
        labels_L[: len(target)] = torch.as_tensor(target, dtype=torch.int64)
    return labels_BL
