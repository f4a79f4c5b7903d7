"""Adapter of Wav2Vec2-BERT: attention over fewer frames, between strided convolutions, for a decoder that reads them.

Names of modules and weights are those of published checkpoints.

Legend: B batch, T frames, P frames after a layer, H hidden.
"""

from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from raysp.models.base.kernels import attended_keys, dropped
from raysp.models.base.modeling import Count
from raysp.models.encoder.conformer import ConformerConfig, SelfAttention
from raysp.models.encoder.transformer import FeedForward


class AdapterConfig(ConformerConfig, Protocol):
    """Fields of a configuration that the adapter reads."""

    @property
    def adapter_size(self) -> int:
        """Width of the frames."""
        ...

    adapter_kernel_size: int
    adapter_stride: int
    adapter_act: str
    num_adapter_layers: int
    layerdrop: float


class Wav2Vec2BertAdapterLayer(nn.Module):
    """Attention over fewer frames, with strided convolutions before it and in its residual."""

    def __init__(self, config: AdapterConfig) -> None:
        super().__init__()
        size, kernel, stride = config.adapter_size, config.adapter_kernel_size, config.adapter_stride
        self.config, self.dropout = config, config.conformer_conv_dropout
        self.residual_layer_norm = nn.LayerNorm(size, eps=config.layer_norm_eps)
        self.residual_conv = nn.Conv1d(size, 2 * size, kernel, stride, padding=stride // 2)
        self.self_attn_layer_norm = nn.LayerNorm(size, eps=config.layer_norm_eps)
        self.self_attn_conv = nn.Conv1d(size, 2 * size, kernel, stride, padding=stride // 2)
        self.self_attn = SelfAttention(config, size, None)
        self.ffn_layer_norm = nn.LayerNorm(size, eps=config.layer_norm_eps)
        self.ffn = FeedForward(config, size, config.adapter_act)

    def forward(self, hidden_BTH: Tensor, valid_BT: Tensor | None, num_frames_B: Tensor | None) -> Tensor:
        """Return hidden_BPH.

        Args:
            hidden_BTH: Output of the layer below.
            valid_BT: Frames that the convolutions read, the others as zero; None: all of them.
            num_frames_B: Number of the P frames that are attended to; None: all of them.
        """
        residual_BPH = self._strided(self.residual_layer_norm(hidden_BTH), valid_BT, self.residual_conv)
        hidden_BPH = self._strided(self.self_attn_layer_norm(hidden_BTH), valid_BT, self.self_attn_conv)
        keys_B11P: Tensor | None = None
        if num_frames_B is not None:
            places_P = torch.arange(hidden_BPH.shape[1], device=hidden_BPH.device)
            keys_B11P = attended_keys(places_P < num_frames_B[:, None])
        attended_BPH, _ = self.self_attn(hidden_BPH, keys_B11P, None, False)
        hidden_BPH = dropped(attended_BPH, self.dropout, self.training) + residual_BPH
        output_BPH: Tensor = hidden_BPH + self.ffn(self.ffn_layer_norm(hidden_BPH))
        return output_BPH

    def _strided(self, hidden_BTH: Tensor, valid_BT: Tensor | None, conv: nn.Conv1d) -> Tensor:
        if valid_BT is not None:
            hidden_BTH = hidden_BTH.masked_fill(~valid_BT[:, :, None], 0.0)
        return F.glu(conv(hidden_BTH.transpose(1, 2)), dim=1).transpose(1, 2)


class Wav2Vec2BertAdapter(nn.Module):
    """Reduction of the encoder's frames for a decoder that attends to them."""

    def __init__(self, config: AdapterConfig) -> None:
        super().__init__()
        self.config = config
        self.proj: nn.Linear | None = None
        self.proj_layer_norm: nn.LayerNorm | None = None
        if config.adapter_size != config.hidden_size:
            self.proj = nn.Linear(config.hidden_size, config.adapter_size)
            self.proj_layer_norm = nn.LayerNorm(config.adapter_size, eps=config.layer_norm_eps)
        self.layers = nn.ModuleList(Wav2Vec2BertAdapterLayer(config) for _ in range(config.num_adapter_layers))

    def forward(self, hidden_BTH: Tensor, valid_BT: Tensor | None) -> Tensor:
        """Return the frames after the last layer.

        Args:
            hidden_BTH: The encoder's output.
            valid_BT: True where a frame is part of its row; None: all of them.
        """
        if self.proj is not None and self.proj_layer_norm is not None:
            hidden_BTH = self.proj_layer_norm(self.proj(hidden_BTH))
        num_frames_B = None if valid_BT is None else valid_BT.sum(1)
        for layer in self.layers:
            # Convolutions read frames before a row's end by the count below them, attention by the count after them.
            reaching_BT: Tensor | None = None
            if num_frames_B is not None:
                places_T = torch.arange(hidden_BTH.shape[1], device=hidden_BTH.device)
                reaching_BT = places_T < num_frames_B[:, None]
            is_dropped = self.training and self.config.layerdrop > 0.0 and torch.rand([]) <= self.config.layerdrop
            if is_dropped:
                continue
            if num_frames_B is not None:
                num_frames_B = adapted_frames(num_frames_B, self.config)
            hidden_BTH = layer(hidden_BTH, reaching_BT, num_frames_B)
        return hidden_BTH


def adapted_frames(num_frames: Count, config: AdapterConfig) -> Count:
    """Return the frames after one adapter layer."""
    padding = config.adapter_stride // 2
    return (num_frames + 2 * padding - config.adapter_kernel_size) // config.adapter_stride + 1
