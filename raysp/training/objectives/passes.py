"""Forward passes of training, as all objectives run them: features of waveforms, precision, SpecAugment, targets."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from raysp.crossing import sent
from raysp.models.base.modeling import Model
from raysp.models.base.placing import arithmetic
from raysp.models.base.row_layout import Layout
from raysp.models.encoder.heads import IGNORED_LABEL
from raysp.models.encoder.waveform import conv_output_frames
from raysp.models.features.processors import FeatureExtractor, as_float, pad
from raysp.training.data.micro_batches import MicroBatch
from raysp.training.data.waveform_augmentation import as_float32
from raysp.words import count

Result = TypeVar("Result")


@dataclass(eq=False)
class Passes:
    """Forward passes of a model with an encoder of speech over waveforms."""

    model: Model
    feature_extractor: FeatureExtractor
    """Extractor of its checkpoint."""
    dtype: torch.dtype
    """Dtype of the arithmetic; weights and features stay in float32, which is never TF32."""

    @arithmetic(dtype="float32", device="cuda")
    def __call__(
        self, run: Callable[..., Result], waves: Sequence[np.ndarray], **arguments: Tensor | bool
    ) -> tuple[Result, Tensor]:
        """Run the model, or a method of it, on waveforms.

        Args:
            run: the model or method.
            waves: samples of each row, int16 or float32.
            arguments: further arguments.

        Returns:
            The result, and the number of frames of each row, int64 (B,) on the CPU.
        """
        device = self.model.device
        if len({wave.dtype for wave in waves}) > 1:
            waves = [as_float32(wave) for wave in waves]
        waves_BS, num_samples_B = pad(waves)
        counts_B = sent(num_samples_B, device)
        features = self.feature_extractor.extract(as_float(sent(waves_BS, device)), counts_B)
        num_inputs = next(iter(features.values())).shape[1]
        counts_B, lengths_B = (self.feature_extractor.num_inputs(length_B) for length_B in (counts_B, num_samples_B))
        layout = Layout.of_counts(counts_B, num_inputs, lengths_B.tolist())
        inputs: dict[str, Any] = {**features, "attention_mask": layout}
        precision = torch.autocast(device.type, dtype=self.dtype, enabled=self.dtype != torch.float32)
        with self._short_masks(num_inputs), precision:
            result = run(**inputs, **arguments)
        return result, self.model.num_frames(num_samples_B)

    @contextlib.contextmanager
    def _short_masks(self, num_inputs: int) -> Iterator[None]:
        """Shorten SpecAugment's spans in a micro-batch that is shorter than one span, and would have none."""
        config: Any = self.model.speech_encoder.config
        if not hasattr(config, "mask_time_length"):  # Parakeet has no SpecAugment
            yield
            return
        num_frames, length = conv_output_frames(num_inputs, *config.convolutions), config.mask_time_length
        config.mask_time_length = max(1, min(num_frames, length))
        try:
            yield
        finally:
            config.mask_time_length = length


@contextlib.contextmanager
def evaluation_mode(model: Model) -> Iterator[None]:
    """Evaluate a model within the block, and restore its mode."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)


def padded_targets(batch: MicroBatch, num_classes: int) -> Tensor:
    """Return the targets of a micro-batch, int64 (B, L) on the CPU, with L at least 1.

    Rows have `IGNORED_LABEL` after their end.

    Args:
        batch: with ids of tokens or of classes.
        num_classes: number of tokens or classes.

    Raises:
        ValueError: an id is not below `num_classes`.
    """
    targets_BL = torch.full((len(batch.targets), max(1, *map(len, batch.targets))), IGNORED_LABEL)
    for targets_L, target in zip(targets_BL, batch.targets, strict=True):
        targets_L[: len(target)] = torch.as_tensor(target, dtype=torch.int64)
    wrong_BL = (targets_BL >= num_classes) | ((targets_BL < 0) & (targets_BL != IGNORED_LABEL))
    if wrong_BL.any():
        place, number = wrong_BL.nonzero()[0].tolist()
        raise ValueError(
            f"row {batch.rows[place]}: target {int(targets_BL[place, number])} found, expected 0 to {num_classes - 1}"
        )
    return targets_BL


def single_targets(batch: MicroBatch, num_classes: int) -> Tensor:
    """Return the only target of each row, int64 (B,) on the CPU.

    Raises:
        ValueError: a row has no target or several, or it is not below `num_classes`.
    """
    for row, target in zip(batch.rows, batch.targets, strict=True):
        if len(target) != 1:
            raise ValueError(f"row {row}: {count(len(target), 'target')} found, expected one class")
    return padded_targets(batch, num_classes)[:, 0]
