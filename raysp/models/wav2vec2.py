"""wav2vec 2.0 (Baevski et al. 2020, arXiv:2006.11477): for CTC, classes of rows and of frames, and speakers.

Differences from encoder/transformer.py: `add_adapter` appends strided convolutions to the encoder, which reduce its
frames to the rate of text for a decoder (Li et al. 2021), and there are heads over frames and for x-vectors.

Legend: B batch, S samples, T frames, H hidden, O output hidden, C channels of a TDNN layer, N classes, E embedding.
"""

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch.nn.functional as F
from torch import Tensor, nn

from raysp.errors import CheckpointError
from raysp.models.base.configuration import Config
from raysp.models.base.modeling import resolved
from raysp.models.base.row_layout import Count, Layout
from raysp.models.encoder.encoder_heads import (
    ForAudioFrameClassification,
    ForCTC,
    ForSequenceClassification,
    ForXVector,
)
from raysp.models.encoder.heads import sample_negative_indices
from raysp.models.encoder.speech_classification import ForSpeechClassification
from raysp.models.encoder.speech_model import Encoded, SpeechModel, WaveformEncoder, compute_mask_indices
from raysp.models.encoder.transformer import QuantizerConfig, XVectorConfig
from raysp.models.encoder.waveform import receptive_samples

_compute_mask_indices = compute_mask_indices  # the names that training scripts import
_sample_negative_indices = sample_negative_indices

ADAPTER_PADDING = 1  # for any kernel


class Wav2Vec2Config(QuantizerConfig, XVectorConfig):
    """Fields and defaults of `Wav2Vec2Config` in transformers."""

    model_type: ClassVar[str] = "wav2vec2"

    num_adapter_layers: int = 3

    def __init__(self, **values: Any) -> None:  # noqa: ANN401 - as for Config
        super().__init__(**values)
        self.output_hidden_size = self.output_hidden_size or self.hidden_size

    def validate(self) -> None:
        """Raise CheckpointError for fields that contradict each other."""
        super().validate()
        if min(self.adapter_kernel_size, self.adapter_stride, *self.tdnn_kernel, *self.tdnn_dilation) < 1:
            raise CheckpointError("a kernel, stride or dilation is below 1, expected positive numbers")


class Wav2Vec2AdapterLayer(nn.Module):
    """A strided convolution with a gate."""

    def __init__(self, config: Wav2Vec2Config) -> None:
        super().__init__()
        width = _output_hidden_size(config)
        self.conv = nn.Conv1d(
            width, 2 * width, config.adapter_kernel_size, stride=config.adapter_stride, padding=ADAPTER_PADDING
        )

    def forward(self, hidden_BTO: Tensor) -> Tensor:
        """Return about one frame per `adapter_stride` frames."""
        return F.glu(self.conv(hidden_BTO.transpose(1, 2)), dim=1).transpose(1, 2)


class Wav2Vec2Adapter(nn.Module):
    """Projection to a text decoder's width, and strides to about the rate of text."""

    def __init__(self, config: Wav2Vec2Config) -> None:
        super().__init__()
        self.config = config
        self.proj: nn.Linear | None = None
        self.proj_layer_norm: nn.LayerNorm | None = None
        if config.output_hidden_size != config.hidden_size:
            self.proj = nn.Linear(config.hidden_size, _output_hidden_size(config))
            self.proj_layer_norm = nn.LayerNorm(_output_hidden_size(config))
        self.layers = nn.ModuleList(Wav2Vec2AdapterLayer(config) for _ in range(config.num_adapter_layers))

    def forward(self, hidden_BTH: Tensor, layout: Layout) -> Tensor:
        """Return fewer frames; those after a row's end count as zero."""
        if self.proj is not None and self.proj_layer_norm is not None:
            hidden_BTH = self.proj_layer_norm(self.proj(hidden_BTH))
        for layer in self.layers:
            # numpy's generator and <=, as in the original; the layers below draw from torch's and compare by <.
            if self.training and np.random.random() <= self.config.layerdrop:
                continue
            # Before each convolution: the previous layer wrote its bias after the row's end.
            hidden_BTH = layer(layout.zeroed(hidden_BTH))
            layout = layout.after(lambda count: adapter_output_frames(count, self.config), hidden_BTH.shape[1])
        return hidden_BTH


def _output_hidden_size(config: Wav2Vec2Config) -> int:
    return config.output_hidden_size or config.hidden_size


def adapter_output_frames(num_frames: Count, config: Wav2Vec2Config) -> Count:
    """Return the number of frames after one adapter layer."""
    return (num_frames + 2 * ADAPTER_PADDING - config.adapter_kernel_size) // config.adapter_stride + 1


class Wav2Vec2PreTrainedModel(SpeechModel):
    """Lengths of all wav2vec 2.0 models, which depend on the adapter."""

    config_class: ClassVar[type[Config]] = Wav2Vec2Config
    base_model_prefix: ClassVar[str] = "wav2vec2"
    config: Wav2Vec2Config

    def build_base(self) -> "Wav2Vec2Model":
        """Return a new model without a head, as the base of a model with a head."""
        return Wav2Vec2Model(self.config)

    @property
    def output_size(self) -> int:
        """Width of `last_hidden_state`."""
        return _output_hidden_size(self.config) if self.config.add_adapter else self.config.hidden_size

    @property
    def min_samples(self) -> int:
        """Samples of the shortest input, which yields one frame."""
        return self._samples_of(1, self.config.add_adapter)

    @property
    def frame_stride(self) -> int:
        """Samples from one frame to the next."""
        steps = self.config.num_adapter_layers if self.config.add_adapter else 0
        return self.config.inputs_to_logits_ratio * math.prod([self.config.adapter_stride] * steps)

    @property
    def hidden_stride(self) -> int:
        """Samples from one frame of `hidden_states`, which precede the adapter, to the next."""
        return self.config.inputs_to_logits_ratio

    def num_hidden_frames(self, num_samples: Count) -> Count:
        """Return the number of frames of `hidden_states` for inputs of these numbers of samples."""
        frames = self._get_feat_extract_output_lengths(num_samples, add_adapter=False)
        return frames * (frames > 0)

    def _samples_of(self, num_frames: int, add_adapter: bool) -> int:
        """Return the samples of the shortest input with this number of frames."""
        config = self.config
        for _ in range(config.num_adapter_layers if add_adapter else 0):
            inner = (num_frames - 1) * config.adapter_stride + config.adapter_kernel_size
            num_frames = max(1, inner - 2 * ADAPTER_PADDING)
        receptive = receptive_samples(config.conv_kernel, config.conv_stride)
        return (num_frames - 1) * config.inputs_to_logits_ratio + receptive

    def _get_feat_extract_output_lengths(self, input_lengths: Count, add_adapter: bool | None = None) -> Count:
        frames = super()._get_feat_extract_output_lengths(input_lengths)
        has_adapter = resolved(add_adapter, self.config.add_adapter)
        for _ in range(self.config.num_adapter_layers if has_adapter else 0):
            frames = adapter_output_frames(frames, self.config)
        return frames


class Wav2Vec2Model(Wav2Vec2PreTrainedModel, WaveformEncoder):
    """The encoder without a head; includes the adapter if there is one."""

    def __init__(self, config: Wav2Vec2Config) -> None:
        super().__init__(config)
        self.adapter = Wav2Vec2Adapter(config) if config.add_adapter else None

    @property
    def above_layers(self) -> Sequence[nn.Module | None]:
        """Modules that take the output of the last layer."""
        return (*super().above_layers, self.adapter)

    def encode(
        self,
        inputs: Tensor,
        layout: Layout,
        **options: Any,  # noqa: ANN401 - options of the base
    ) -> Encoded:
        """Return the named output of `forward`: see the base."""
        encoded = super().encode(inputs, layout, **options)
        if self.adapter is not None:
            hidden_BTH = encoded.last_hidden_state
            encoded.last_hidden_state = self.adapter(hidden_BTH, self.layer_layout(layout, hidden_BTH.shape[1]))
        return encoded


class Wav2Vec2ForCTC(ForCTC, Wav2Vec2PreTrainedModel):
    """The encoder with a linear head over the vocabulary; `pad_token_id` is the blank."""


class Wav2Vec2ForSequenceClassification(ForSequenceClassification, Wav2Vec2PreTrainedModel):
    """The encoder with classes over the mean of its frames."""


class Wav2Vec2ForSpeechClassification(ForSpeechClassification, Wav2Vec2PreTrainedModel):
    """The encoder with classes or numbers of its pooled frames, such as emotions; not in transformers."""


class Wav2Vec2ForAudioFrameClassification(ForAudioFrameClassification, Wav2Vec2PreTrainedModel):
    """The encoder with classes for each frame, such as speakers."""


class Wav2Vec2ForXVector(ForXVector, Wav2Vec2PreTrainedModel):
    """The encoder with a TDNN that yields one vector per speaker (Snyder et al. 2018)."""

    config: Wav2Vec2Config

    @property
    def min_samples(self) -> int:
        """Samples of the shortest input, which leaves two frames after the TDNN, the least with a deviation."""
        return self._samples_of(self._least_frames(), self._adapter_is_seen)
