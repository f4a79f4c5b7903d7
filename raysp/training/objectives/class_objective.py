"""Training of heads that classify recordings or their frames."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from raysp.crossing import sent
from raysp.models.auto import AutoModelForAudioClassification, AutoModelForAudioFrameClassification
from raysp.models.base.modeling import Model
from raysp.models.encoder.heads import IGNORED_LABEL
from raysp.models.features.processors import FeatureExtractor
from raysp.training.data.micro_batches import Losses, MicroBatch
from raysp.training.objectives.passes import Passes, evaluation_mode, padded_targets, single_targets
from raysp.training.objectives.starting_model import Masks, load_head, set_classes
from raysp.words import count

Problem = Literal["single", "multi", "regression"]
PROBLEM_TYPES: dict[Problem, str] = {
    "single": "single_label_classification",
    "multi": "multi_label_classification",
    "regression": "regression",
}
"""Values of `problem_type` in config.json."""
MOST_FRAMES_APART = 2
"""Frames by which labels of 20 ms each may differ from those of a model, whose windows are longer than their stride."""


class ClassObjective:
    """Loss of a head over classes of recordings, summed over rows.

    Args:
        model: a model with a head for classes.
        feature_extractor: that of its checkpoint.
        problem: "single", with one class as the target of a row: cross entropy. "multi", with any number of classes:
            binary cross entropy, the mean over all classes. "regression", with a number for each output: squared error,
            the mean over all outputs.
        dtype: dtype of the arithmetic; weights and loss stay in float32.
    """

    terms: tuple[str, ...] = ()

    def __init__(
        self,
        model: Model,
        feature_extractor: FeatureExtractor,
        *,
        problem: Problem = "single",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.model = model
        self.passes = Passes(model, feature_extractor, dtype)
        self.problem = problem

    def __call__(self, batch: MicroBatch) -> Losses:
        """Run the model on a micro-batch of at least one row."""
        _, rows_B = self._run(batch)
        return Losses(rows_B.sum(), float(len(batch.rows)), rows_B.detach())

    @torch.inference_mode()
    def predict(self, batch: MicroBatch) -> tuple[Tensor, Tensor]:
        """Return logits (B, N) in evaluation mode and the losses of rows (B,), float32 on the CPU."""
        with evaluation_mode(self.model):
            logits_BN, rows_B = self._run(batch)
        return logits_BN.cpu(), rows_B.cpu()

    def _run(self, batch: MicroBatch) -> tuple[Tensor, Tensor]:
        """Return logits (B, N) and the losses of rows (B,)."""
        num_classes = self.model.config.num_labels
        match self.problem:
            case "single":
                targets = single_targets(batch, num_classes)
            case "multi":
                targets = _many_targets(batch, num_classes)
            case "regression":
                targets = _numbers(batch, num_classes)
        output, _ = self.passes(self.model, batch.waves)
        logits_BN = output.logits.float()
        return logits_BN, self._row_losses(logits_BN, sent(targets, self.model.device))

    def _row_losses(self, logits_BN: Tensor, targets: Tensor) -> Tensor:
        match self.problem:
            case "single":
                return F.cross_entropy(logits_BN, targets, reduction="none")
            case "multi":
                return F.binary_cross_entropy_with_logits(logits_BN, targets, reduction="none").mean(-1)
            case "regression":
                return F.mse_loss(logits_BN, targets, reduction="none").mean(-1)


def _many_targets(batch: MicroBatch, num_classes: int) -> Tensor:
    """Return ones for the classes of each row, and zeros for others, float32 (B, N)."""
    classes_BL = padded_targets(batch, num_classes)
    ones_BN = torch.zeros(len(classes_BL), num_classes + 1)
    ones_BN.scatter_(1, classes_BL.where(classes_BL != IGNORED_LABEL, num_classes), 1.0)
    return ones_BN[:, :num_classes]


def _numbers(batch: MicroBatch, num_outputs: int) -> Tensor:
    """Return the numbers of each row, float32 (B, N)."""
    for row, target in zip(batch.rows, batch.targets, strict=True):
        if len(target) != num_outputs:
            raise ValueError(f"row {row}: {count(len(target), 'number')} found, expected {num_outputs}")
    return torch.tensor([[*target] for target in batch.targets], dtype=torch.float32)


class FrameObjective:
    """Cross entropy of the class of each frame, summed over the frames of all rows.

    Targets are the classes of a row's frames, `model.frame_stride` samples each; `IGNORED_LABEL` for frames that do not
    count.

    Args:
        model: a model with a head for classes of frames.
        feature_extractor: that of its checkpoint.
        dtype: dtype of the arithmetic; weights and loss stay in float32.
    """

    terms: tuple[str, ...] = ()

    def __init__(
        self, model: Model, feature_extractor: FeatureExtractor, *, dtype: torch.dtype = torch.float32
    ) -> None:
        self.model = model
        self.passes = Passes(model, feature_extractor, dtype)

    def __call__(self, batch: MicroBatch) -> Losses:
        """Run the model on a micro-batch of at least one row."""
        rows_B, counts_B, _, _ = self._run(batch)
        return Losses(rows_B.sum(), float(counts_B.sum()), rows_B.detach())

    @torch.inference_mode()
    def predict(self, batch: MicroBatch) -> tuple[list[tuple[Tensor, Tensor]], Tensor]:
        """Return the classes (T,) of each row's frames with their probabilities (T,), and mean losses of rows (B,).

        The model is in evaluation mode. The loss of a row without classes is 0. All are on the CPU.
        """
        with evaluation_mode(self.model):
            rows_B, counts_B, logits_BTN, num_frames_B = self._run(batch)
        scores_BT, ids_BT = (one.cpu() for one in logits_BTN.softmax(-1).max(-1))
        rows = zip(ids_BT, scores_BT, num_frames_B.tolist(), strict=True)
        found = [(ids_T[:num_frames], scores_T[:num_frames]) for ids_T, scores_T, num_frames in rows]
        return found, rows_B.cpu() / counts_B.clamp(min=1)

    def _run(self, batch: MicroBatch) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return the losses of rows, summed over their frames, the frames that count, logits, and all frames.

        Shapes are (B,), (B,), (B, T, N) and (B,). Both numbers of frames are on the CPU.
        """
        labels_BL = padded_targets(batch, self.model.config.num_labels)
        output, num_frames_B = self.passes(self.model, batch.waves)
        logits_BTN = output.logits.float()
        labels_BT = _of_frames(batch, labels_BL, num_frames_B, logits_BTN.shape[1])
        losses_BT = F.cross_entropy(
            logits_BTN.transpose(1, 2), sent(labels_BT, logits_BTN.device), ignore_index=IGNORED_LABEL, reduction="none"
        )
        return losses_BT.sum(-1), (labels_BT != IGNORED_LABEL).sum(-1), logits_BTN, num_frames_B


def _of_frames(batch: MicroBatch, labels_BL: Tensor, num_frames_B: Tensor, num_frames: int) -> Tensor:
    """Return labels (B, T) of the frames of each row; frames without a label do not count.

    Raises:
        ValueError: a row has labels of another rate.
    """
    for row, target, row_frames in zip(batch.rows, batch.targets, num_frames_B.tolist(), strict=True):
        if abs(len(target) - row_frames) > MOST_FRAMES_APART:
            found = count(len(target), "label")
            raise ValueError(f"row {row}: {found} found, expected one for each of {count(row_frames, 'frame')}")
    missing = max(0, num_frames - labels_BL.shape[1])
    labels_BT = F.pad(labels_BL, (0, missing), value=IGNORED_LABEL)[:, :num_frames]
    after_BT = torch.arange(num_frames, device=labels_BT.device) >= num_frames_B[:, None]
    return labels_BT.masked_fill(after_BT, IGNORED_LABEL)


def load_classifier(
    folder: Path,
    names: Sequence[str],
    *,
    problem: Problem = "single",
    masks: Masks | None = None,
    seed: int = 0,
    random_weights: bool = False,
) -> Model:
    """Load a checkpoint with a head for classes of recordings, in training mode.

    The head is that of the checkpoint if it has these classes, else a new one.

    Args:
        folder: model folder.
        names: classes, or names of the outputs of a regression.
        problem: as for `ClassObjective`.
        masks: fields of the encoder's configuration.
        seed: seed of initial weights.
        random_weights: whether all weights are initialised.
    """
    model = load_head(
        AutoModelForAudioClassification, folder, masks=masks or {}, seed=seed, random_weights=random_weights
    )
    set_classes(model, names, seed=seed)
    model.config.problem_type = PROBLEM_TYPES[problem]
    return model


def load_frame_classifier(
    folder: Path, names: Sequence[str], *, masks: Masks | None = None, seed: int = 0, random_weights: bool = False
) -> Model:
    """Load a checkpoint with a head for classes of frames, as `load_classifier` does."""
    model = load_head(
        AutoModelForAudioFrameClassification, folder, masks=masks or {}, seed=seed, random_weights=random_weights
    )
    set_classes(model, names, seed=seed)
    return model
