"""A model of a package of its own, for checkpoints of the model type "loudness": whether a recording is loud."""

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from raysp.backends import Capability, CheckpointSummary, ModelPass
from raysp.models.base.outputs import SequenceClassifierOutput

FRAME = 160  # samples


class Loudness:
    def describe(self, folder: Path) -> CheckpointSummary:
        return CheckpointSummary(
            path=folder,
            model_type="loudness",
            architecture="Loudness",
            num_parameters=1,
            sample_rate=16_000,
            min_samples=FRAME,
            frame_stride=FRAME,
            receptive_samples=FRAME,
            gives=(Capability.CLASSES,),
            labels=("quiet", "loud"),
        )

    def load(self, folder: Path, *, dtype: str, device: str) -> "LoudnessModel":
        return LoudnessModel(self.describe(folder), load_file(folder / "model.safetensors")["threshold"].to(device))


class LoudnessModel:
    def __init__(self, summary: CheckpointSummary, threshold: Tensor) -> None:
        self.summary, self.threshold = summary, threshold
        self.device, self.dtype = threshold.device, threshold.dtype

    def run(self, waves_BS: Tensor, num_samples_B: Tensor, *, hidden_states: bool) -> ModelPass:
        above_B = (waves_BS.square().sum(1) / num_samples_B).sqrt() - self.threshold
        classes = SequenceClassifierOutput(logits=torch.stack([-above_B, above_B], 1))
        return ModelPass(heads={Capability.CLASSES: classes}, num_frames_B=num_samples_B // FRAME)
