"""Training of speaker embeddings."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from raysp.models.auto import AutoModelForAudioXVector
from raysp.models.encoder.encoder_heads import ForXVector
from raysp.models.encoder.heads import AM_MARGIN, AM_SCALE, am_softmax_losses
from raysp.models.features.processors import FeatureExtractor
from raysp.training.data.micro_batches import Losses, MicroBatch
from raysp.training.objectives.passes import Passes, evaluation_mode, single_targets
from raysp.training.objectives.starting_model import Masks, load_head, set_classes


class SpeakerPredictions(NamedTuple):
    """Predictions for rows, float32 on the CPU."""

    logits_BN: Tensor
    """Scaled cosines with the speakers."""
    losses_B: Tensor
    """Losses with the full margin."""
    embeddings_BE: Tensor
    """Vectors that `raysp.Embedding(pooling="xvector")` returns."""


class SpeakerObjective:
    """AM-softmax loss over speakers (Wang et al. 2018), summed over rows.

    Args:
        model: a model with an x-vector head. The margin of its own loss is not used.
        feature_extractor: that of its checkpoint.
        margin: margin between the cosines of speakers.
        margin_warmup: share of the training over which the margin grows linearly from 0.
        crop_seconds: longer rows are cut to so many seconds, at a place drawn from numpy's generator; None: no row is.
        dtype: dtype of the arithmetic; weights and loss stay in float32.

    Raises:
        ValueError: the crops are shorter than the model's shortest input.
    """

    terms: tuple[str, ...] = ()

    def __init__(
        self,
        model: ForXVector,
        feature_extractor: FeatureExtractor,
        *,
        margin: float = AM_MARGIN,
        margin_warmup: float = 0.2,
        crop_seconds: float | None = 3.0,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.model = model
        self.passes = Passes(model, feature_extractor, dtype)
        self.margin = margin
        self.margin_warmup = margin_warmup
        rate = feature_extractor.sampling_rate
        self.crop_samples = None if crop_seconds is None else round(crop_seconds * rate)
        if self.crop_samples is not None and self.crop_samples < model.min_samples:
            least = model.min_samples / rate
            raise ValueError(f"crop_seconds is {crop_seconds}, expected at least {least:g}, the model's shortest input")

    def __call__(self, batch: MicroBatch) -> Losses:
        """Run the model on a micro-batch of at least one row."""
        speakers_B = single_targets(batch, self.model.config.num_labels)
        output, _ = self.passes(self.model, [self._cropped(wave) for wave in batch.waves])
        margin = self.margin_at(batch.progress)
        rows_B = am_softmax_losses(output.logits.float(), self.model.objective.weight, speakers_B, margin)
        return Losses(rows_B.sum(), float(len(batch.rows)), rows_B.detach())

    @torch.inference_mode()
    def predict(self, batch: MicroBatch) -> SpeakerPredictions:
        """Return predictions for whole rows, by the model in evaluation mode."""
        speakers_B = single_targets(batch, self.model.config.num_labels)
        with evaluation_mode(self.model):
            output, _ = self.passes(self.model, batch.waves)
        logits_BE, weight_EN = output.logits.float(), self.model.objective.weight
        cosines_BN = F.normalize(logits_BE, dim=1) @ F.normalize(weight_EN, dim=0)
        losses_B = am_softmax_losses(logits_BE, weight_EN, speakers_B, self.margin)
        return SpeakerPredictions((AM_SCALE * cosines_BN).cpu(), losses_B.cpu(), output.embeddings.float().cpu())

    def margin_at(self, progress: float) -> float:
        """Return the margin at a share of the training."""
        return self.margin * min(1.0, progress / self.margin_warmup) if self.margin_warmup else self.margin

    def _cropped(self, wave: np.ndarray) -> np.ndarray:
        if self.crop_samples is None or len(wave) <= self.crop_samples:
            return wave
        start = np.random.randint(len(wave) - self.crop_samples + 1)
        cropped: np.ndarray = wave[start : start + self.crop_samples]
        return cropped


def load_speaker_model(
    folder: Path, names: Sequence[str], *, masks: Masks | None = None, seed: int = 0, random_weights: bool = False
) -> ForXVector:
    """Load a checkpoint with an x-vector head, in training mode.

    Args:
        folder: model folder; a head that it lacks is initialised.
        names: the speakers; if they are not those of the checkpoint, the weights of its classes are initialised.
        masks: fields of the encoder's configuration.
        seed: seed of initial weights.
        random_weights: whether all weights are initialised.
    """
    model = load_head(AutoModelForAudioXVector, folder, masks=masks or {}, seed=seed, random_weights=random_weights)
    assert isinstance(model, ForXVector)
    set_classes(model, names, seed=seed)
    return model
