"""Adapters, which reduce an encoder's frames to the width and about the rate of a text decoder, and lengths after them.

Names of modules and weights follow published checkpoints.

Legend: B batch, T frames, P frames after a layer, H hidden.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from raysp.models.base.modeling import resolved
from raysp.models.base.row_layout import Count, Layout
from raysp.models.encoder.speech_model import SpeechModel
from raysp.models.encoder.transformer import XVectorConfig


class Adapter(nn.Module):
    """Projection to the width of the adapter, and layers that return fewer frames and their layout."""

    def __init__(self, config: XVectorConfig, layer: Callable[..., nn.Module], norm_eps: float) -> None:
        super().__init__()
        self.config: Any = config
        self.proj: nn.Linear | None = None
        self.proj_layer_norm: nn.LayerNorm | None = None
        if config.adapter_size != config.hidden_size:
            self.proj = nn.Linear(config.hidden_size, config.adapter_size)
            self.proj_layer_norm = nn.LayerNorm(config.adapter_size, eps=norm_eps)
        self.layers = nn.ModuleList(layer(config) for _ in range(config.num_adapter_layers))

    def forward(self, hidden_BTH: Tensor, layout: Layout) -> Tensor:
        """Return the frames after the last layer; those after a row's end count as zero."""
        if self.proj is not None and self.proj_layer_norm is not None:
            hidden_BTH = self.proj_layer_norm(self.proj(hidden_BTH))
        for layer in self.layers:
            if not (self.training and self.skips_layer()):
                hidden_BTH, layout = layer(hidden_BTH, layout)
        return hidden_BTH

    def skips_layer(self) -> bool:
        """Draw whether a layer is skipped in training."""
        return self.config.layerdrop > 0.0 and bool(torch.rand([]) <= self.config.layerdrop)


def gated(conv: nn.Conv1d, hidden_BTH: Tensor) -> Tensor:
    """Return hidden_BPH after a strided convolution with a gate."""
    return F.glu(conv(hidden_BTH.transpose(1, 2)), dim=1).transpose(1, 2)


def adapted_frames(num_frames: Count, config: XVectorConfig) -> Count:
    """Return the frames after one adapter layer."""
    return (num_frames + 2 * config.adapter_padding - config.adapter_kernel_size) // config.adapter_stride + 1


def adapted_layout(layout: Layout, num_frames: int, config: XVectorConfig) -> Layout:
    """Return the layout of the `num_frames` frames after one adapter layer."""
    return layout.after(partial(adapted_frames, config=config), num_frames)


class AdaptedModel(SpeechModel):
    """A speech model whose frames may be those of an adapter, after the hidden states."""

    config: XVectorConfig

    @property
    def output_size(self) -> int:
        """Width of `last_hidden_state`."""
        return self.config.last_size

    @property
    def frame_stride(self) -> int:
        """Samples from one frame to the next."""
        steps = self.config.num_adapter_layers if self.config.add_adapter else 0
        return self.hidden_stride * int(self.config.adapter_stride**steps)

    def _least_frames(self) -> int:
        """Return the number of frames of the shortest input."""
        return 1

    @property
    def _adapter_is_seen(self) -> bool:
        """Whether the head reads the adapter's frames."""
        return self.config.add_adapter

    def _get_feat_extract_output_lengths(self, input_lengths: Count, add_adapter: bool | None = None) -> Count:
        frames = super()._get_feat_extract_output_lengths(input_lengths)
        has_adapter = resolved(add_adapter, self.config.add_adapter)
        for _ in range(self.config.num_adapter_layers if has_adapter else 0):
            frames = adapted_frames(frames, self.config)
        return frames
