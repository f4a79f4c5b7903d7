"""`ClassifyFrames`: a class for each frame of a recording: loss and task."""

import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from raysp.crossing import sent
from raysp.evaluation.classification import compare_frames
from raysp.evaluation.scores import Comparison, Mismatch
from raysp.models.auto import AutoModelForAudioFrameClassification
from raysp.models.base.modeling import Model
from raysp.models.encoder.heads import IGNORED_LABEL
from raysp.models.features.processors import FeatureExtractor
from raysp.models.loading import load_feature_extractor
from raysp.training.data.micro_batches import Losses, MicroBatch, Objective
from raysp.training.objectives.objective_models import named_model
from raysp.training.objectives.passes import Passes, evaluation_mode, padded_targets
from raysp.training.objectives.starting_model import shortest_input
from raysp.training.planning.training_plan import TrainingPlan
from raysp.training.specs.objectives import ClassifyFrames
from raysp.training.tasks.class_targets import (
    MOST_FRAMES_APART,
    FrameTargets,
    NamedClasses,
    frame_names,
)
from raysp.training.tasks.task import WORST_ROWS, PredictedRows, Prediction
from raysp.words import count


class FrameObjective:
    """Cross entropy of the class of each frame, summed over the frames of all rows.

    Targets are the classes of a row's frames, `model.frame_stride` samples each; `IGNORED_LABEL` for frames that do not
    count.

    Args:
        model: a model with a head for classes of frames.
        feature_extractor: extractor of its checkpoint.
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
        scores_BT, ids_BT = (tensor.cpu() for tensor in logits_BTN.softmax(-1).max(-1))
        rows = zip(ids_BT, scores_BT, num_frames_B.tolist(), strict=True)
        by_row = [(ids_T[:num_frames], scores_T[:num_frames]) for ids_T, scores_T, num_frames in rows]
        return by_row, rows_B.cpu() / counts_B.clamp(min=1)

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
            labels = count(len(target), "label")
            raise ValueError(f"row {row}: {labels} found, expected one for each of {count(row_frames, 'frame')}")
    missing = max(0, num_frames - labels_BL.shape[1])
    labels_BT = F.pad(labels_BL, (0, missing), value=IGNORED_LABEL)[:, :num_frames]
    after_BT = torch.arange(num_frames, device=labels_BT.device) >= num_frames_B[:, None]
    return labels_BT.masked_fill(after_BT, IGNORED_LABEL)


@dataclass(frozen=True)
class FramesTask(NamedClasses[ClassifyFrames]):
    """Task of `ClassifyFrames`.

    Attributes:
        frames: number of frames of a recording, as text.
    """

    frames: str

    tags = ("audio-frame-classification", "raysp")

    @classmethod
    def of(cls, spec: ClassifyFrames, plan: TrainingPlan) -> "FramesTask":
        """Return the task before its corpus is indexed.

        Raises:
            CheckpointError: the architecture has no head for frames.
        """
        model = plan.checkpoint
        shortest = shortest_input(AutoModelForAudioFrameClassification, model.path)
        frames = f"(samples - {model.receptive_samples}) // {model.frame_stride} + 1, at {model.sample_rate} Hz"
        return cls(None if spec.classes is None else tuple(spec.classes), shortest, spec, frames)

    @property
    def problem(self) -> str:
        """Classes of frames."""
        return "frames"

    def facts(self, counts: Mapping[str, int]) -> Mapping[str, str]:
        """Return the classes with their numbers of frames, and the formula for the frames of a recording."""
        return {**super().facts(counts), "frames": self.frames}

    def targets(self) -> FrameTargets:
        """Return the numbers of classes of frames."""
        return FrameTargets(self.classes)

    def objective(self, plan: TrainingPlan) -> FrameObjective:
        """Return the loss with its model."""
        model = named_model(AutoModelForAudioFrameClassification, plan, self.spec, self.names)
        extractor = load_feature_extractor(plan.checkpoint.path)
        return FrameObjective(model, extractor, dtype=getattr(torch, plan.dtype))

    def shown(self, target: Sequence[float]) -> str:
        """Return the classes of frames as runs."""
        return runs_of([None if number == IGNORED_LABEL else self.names[int(number)] for number in target])

    def reference(self, value: object) -> str | None:
        """Return the classes of frames as runs."""
        return None if value is None else runs_of(frame_names(value))

    def predict(self, objective: Objective, batch: MicroBatch) -> list[Prediction]:
        """Return the most probable class of each frame as runs, with the mean of their probabilities."""
        assert isinstance(objective, FrameObjective)
        by_row, losses_B = objective.predict(batch)
        rows = zip(by_row, losses_B.tolist(), strict=True)
        return [
            Prediction(self.shown(ids_T.tolist()), loss, float(scores_T.mean())) for (ids_T, scores_T), loss in rows
        ]

    def compare(self, rows: PredictedRows) -> Comparison:
        """Return accuracy and macro F1 over frames."""
        texts, scores = rows.texts, rows.scores
        right = [frames_of(reference) for reference in rows.references]
        predicted = [[str(name) for name in frames_of(text)] for text in texts]
        worst = [
            Mismatch(row, rows.references[row], texts[row], errors, scores[row])
            for row, errors in enumerate(map(_num_wrong, right, predicted))
            if errors
        ]
        worst = sorted(worst, key=lambda mismatch: -mismatch.errors)[:WORST_ROWS]
        return compare_frames(right, predicted, rows.columns, classes=self.names, bootstrap=rows.bootstrap, worst=worst)


def runs_of(names: Sequence[str | None]) -> str:
    """Return classes of frames as a JSON list of runs, such as `[["speech", 12], [null, 3]]`."""
    return json.dumps([[name, len([*run])] for name, run in itertools.groupby(names)], ensure_ascii=False)


def frames_of(runs: str) -> list[str | None]:
    """Return the class of each frame, from the text of `runs_of`."""
    return [name for name, length in json.loads(runs) for _ in range(length)]


def _num_wrong(right: Sequence[str | None], predicted: Sequence[str]) -> int:
    return sum(label is not None and label != other for label, other in zip(right, predicted, strict=False))
