"""wav2vec 2.0 (Baevski et al. 2020, arXiv:2006.11477): for CTC, classes of rows and of frames, and speakers.

Differences from encoder/transformer.py: `add_adapter` appends strided convolutions to the encoder, which reduce its
frames to the rate of text for a decoder (Li et al. 2021), and there are heads over frames and for x-vectors.

Legend: B batch, S samples, T frames, H hidden, O output hidden, C channels of a TDNN layer, N classes, E embedding.
"""

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from torch import Tensor, nn

from raysp.errors import CheckpointError
from raysp.models.base.configuration import Config
from raysp.models.base.row_layout import Count, Layout
from raysp.models.encoder.adapters import AdaptedModel, Adapter, adapted_layout, gated
from raysp.models.encoder.encoder_heads import (
    ForAudioFrameClassification,
    ForCTC,
    ForSequenceClassification,
    ForXVector,
)
from raysp.models.encoder.heads import sample_negative_indices
from raysp.models.encoder.speech_classification import ForSpeechClassification
from raysp.models.encoder.speech_model import Encoded, WaveformEncoder, compute_mask_indices
from raysp.models.encoder.transformer import QuantizerConfig, XVectorConfig
from raysp.models.encoder.waveform import NORM_EPS, receptive_samples

_compute_mask_indices = compute_mask_indices  # the names that training scripts import
_sample_negative_indices = sample_negative_indices


class Wav2Vec2Config(QuantizerConfig, XVectorConfig):
    """Fields and defaults of `Wav2Vec2Config` in transformers."""

    model_type: ClassVar[str] = "wav2vec2"

    num_adapter_layers: int = 3

    def validate(self) -> None:
        """Raise CheckpointError for fields that contradict each other."""
        super().validate()
        if min(self.adapter_kernel_size, self.adapter_stride, *self.tdnn_kernel, *self.tdnn_dilation) < 1:
            raise CheckpointError("a kernel, stride or dilation is below 1, expected positive numbers")


class Wav2Vec2AdapterLayer(nn.Module):
    """A strided convolution with a gate."""

    def __init__(self, config: Wav2Vec2Config) -> None:
        super().__init__()
        self.config, width = config, config.adapter_size
        self.conv = nn.Conv1d(
            width, 2 * width, config.adapter_kernel_size, stride=config.adapter_stride, padding=config.adapter_padding
        )

    def forward(self, hidden_BTO: Tensor, layout: Layout) -> tuple[Tensor, Layout]:
        """Return about one frame per `adapter_stride` frames, and their layout."""
        # Zeros before each convolution: the previous layer wrote its bias after the row's end.
        hidden_BTO = gated(self.conv, layout.zeroed(hidden_BTO))
        return hidden_BTO, adapted_layout(layout, hidden_BTO.shape[1], self.config)


class Wav2Vec2Adapter(Adapter):
    """Projection to a text decoder's width, and strides to about the rate of text."""

    def skips_layer(self) -> bool:
        """Draw whether a layer is skipped in training."""
        # numpy's generator and <=, as in the original; the layers below draw from torch's and compare by <.
        return bool(np.random.random() <= self.config.layerdrop)


class Wav2Vec2PreTrainedModel(AdaptedModel):
    """Lengths of all wav2vec 2.0 models, which depend on the adapter."""

    config_class: ClassVar[type[Config]] = Wav2Vec2Config
    base_model_prefix: ClassVar[str] = "wav2vec2"
    config: Wav2Vec2Config

    def build_base(self) -> "Wav2Vec2Model":
        """Return a new model without a head, as the base of a model with a head."""
        return Wav2Vec2Model(self.config)

    @property
    def min_samples(self) -> int:
        """Samples of the shortest input, which yields one frame."""
        config, num_frames = self.config, self._least_frames()
        for _ in range(config.num_adapter_layers if self._adapter_is_seen else 0):
            inner = (num_frames - 1) * config.adapter_stride + config.adapter_kernel_size
            num_frames = max(1, inner - 2 * config.adapter_padding)
        receptive = receptive_samples(config.conv_kernel, config.conv_stride)
        return (num_frames - 1) * config.inputs_to_logits_ratio + receptive

    @property
    def hidden_stride(self) -> int:
        """Samples from one frame of `hidden_states`, which precede the adapter, to the next."""
        return self.config.inputs_to_logits_ratio

    def num_hidden_frames(self, num_samples: Count) -> Count:
        """Return the number of frames of `hidden_states` for inputs of these numbers of samples."""
        frames = self._get_feat_extract_output_lengths(num_samples, add_adapter=False)
        return frames * (frames > 0)


class Wav2Vec2Model(Wav2Vec2PreTrainedModel, WaveformEncoder):
    """The encoder without a head; includes the adapter if there is one."""

    def __init__(self, config: Wav2Vec2Config) -> None:
        super().__init__(config)
        self.adapter = Wav2Vec2Adapter(config, Wav2Vec2AdapterLayer, NORM_EPS) if config.add_adapter else None

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
