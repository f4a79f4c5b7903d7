"""The head of emotions and numbers that published checkpoints call `Wav2Vec2ForSpeechClassification`.

Of transformers no class has it: a well-known tutorial for wav2vec 2.0 defines it, and models of emotions use it, also
with numbers for arousal, dominance and valence (Wagner et al. 2023, arXiv:2203.07378). Frames are pooled, and pass a
dense layer, tanh and a layer over the outputs.

Legend: B batch, T frames, H hidden, N classes or numbers.
"""

from typing import ClassVar

import torch
from torch import Tensor, nn

from raysp.capabilities import Capability
from raysp.errors import CheckpointError
from raysp.models.base.kernels import dropped
from raysp.models.base.outputs import SequenceClassifierOutput
from raysp.models.base.row_layout import Layout
from raysp.models.encoder.encoder_heads import Head, classes_output
from raysp.models.encoder.heads import masked_mean
from raysp.models.encoder.speech_model import Reading
from raysp.models.encoder.transformer import EncoderConfig

POOLING_MODES = ("mean", "sum", "max")
"""Values of `pooling_mode` in config.json."""
REGRESSION_TASK = "wav2vec2_reg"
"""Value of `finetuning_task` in config.json of a head of numbers."""


class SpeechClassificationHead(nn.Module):
    """A dense layer, tanh and a layer over classes or numbers, with dropout before each layer."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)
        self.out_proj = nn.Linear(config.hidden_size, config.num_labels)
        self.config = config

    def forward(self, pooled_BH: Tensor) -> Tensor:
        """Return logits or numbers (B, N)."""
        inner_BH = torch.tanh(self.dense(dropped(pooled_BH, self.config.final_dropout, self.training)))
        logits_BN: Tensor = self.out_proj(dropped(inner_BH, self.config.final_dropout, self.training))
        return logits_BN


class ForSpeechClassification(Head):
    """Encoder with a head for classes or numbers on its pooled frames.

    `pooling_mode` of the configuration is "mean", "sum" or "max", and "mean" if it has none. With a mask only the
    frames of a row are pooled; the original pools padding too. Labels: see `heads.classification_loss`.
    """

    gives: ClassVar[tuple[Capability, ...]] = (Capability.CLASSES,)

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__(config)
        self.add_encoder()
        if self.pooling_mode not in POOLING_MODES:
            raise CheckpointError(
                f"pooling_mode is {self.pooling_mode!r}, expected one of {', '.join(POOLING_MODES)}: correct it in "
                "config.json"
            )
        if config.problem_type is None and getattr(config, "finetuning_task", None) == REGRESSION_TASK:
            config.problem_type = "regression"
        self.classifier = SpeechClassificationHead(config)

    @property
    def pooling_mode(self) -> object:
        """Pooling of frames to one vector: "mean", "sum" or "max"."""
        return getattr(self.config, "pooling_mode", "mean")

    def read(self, reading: Reading) -> SequenceClassifierOutput:
        """Return the output of the head: see the base."""
        frames_BTH = reading.encoded.last_hidden_state
        pooled_BH = self._pooled(frames_BTH, self.frame_layout(reading.layout, frames_BTH.shape[1]))
        return classes_output(self, self.classifier(pooled_BH), reading)

    def _pooled(self, frames_BTH: Tensor, layout: Layout) -> Tensor:
        """Return one vector (B, H) for each row, zero for one without frames."""
        if self.pooling_mode == "mean":
            return masked_mean(frames_BTH, layout.mask)
        if self.pooling_mode == "sum":
            return layout.zeroed(frames_BTH).sum(1)
        valid_BT = layout.valid(frames_BTH.device)
        # -inf and not 0: frames may all be negative.
        highest_BH = frames_BTH.masked_fill(~valid_BT[:, :, None], -torch.inf).amax(1)
        return highest_BH.masked_fill(~valid_BT.any(1, keepdim=True), 0.0)
