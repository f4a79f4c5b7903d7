"""Adapter of Wav2Vec2-BERT: attention over fewer frames, between strided convolutions, for a decoder that reads them.

Names of modules and weights follow published checkpoints.

Legend: B batch, T frames, P frames after a layer, H hidden.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from raysp.models.base.kernels import dropped
from raysp.models.base.row_layout import Count, Layout
from raysp.models.encoder.conformer import ConformerConfig, SelfAttention
from raysp.models.encoder.transformer import FeedForward


class Wav2Vec2BertAdapterLayer(nn.Module):
    """Attention over fewer frames, with strided convolutions before it and in its residual."""

    def __init__(self, config: ConformerConfig) -> None:
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

    def forward(self, hidden_BTH: Tensor, layout: Layout) -> tuple[Tensor, Layout]:
        """Return hidden_BPH, for which convolutions read padding as zero, and their layout."""
        residual_BPH = self._strided(layout.zeroed(self.residual_layer_norm(hidden_BTH)), self.residual_conv)
        hidden_BPH = self._strided(layout.zeroed(self.self_attn_layer_norm(hidden_BTH)), self.self_attn_conv)
        layout = layout.after(lambda count: adapted_frames(count, self.config), hidden_BPH.shape[1])
        attended_BPH, _ = self.self_attn(hidden_BPH, layout, None, False)
        hidden_BPH = dropped(attended_BPH, self.dropout, self.training) + residual_BPH
        output_BPH: Tensor = hidden_BPH + self.ffn(self.ffn_layer_norm(hidden_BPH))
        return output_BPH, layout

    def _strided(self, hidden_BTH: Tensor, conv: nn.Conv1d) -> Tensor:
        return F.glu(conv(hidden_BTH.transpose(1, 2)), dim=1).transpose(1, 2)


class Wav2Vec2BertAdapter(nn.Module):
    """Reduction of the encoder's frames for a decoder that attends to them."""

    def __init__(self, config: ConformerConfig) -> None:
        super().__init__()
        self.config = config
        self.proj: nn.Linear | None = None
        self.proj_layer_norm: nn.LayerNorm | None = None
        if config.adapter_size != config.hidden_size:
            self.proj = nn.Linear(config.hidden_size, config.adapter_size)
            self.proj_layer_norm = nn.LayerNorm(config.adapter_size, eps=config.layer_norm_eps)
        self.layers = nn.ModuleList(Wav2Vec2BertAdapterLayer(config) for _ in range(config.num_adapter_layers))

    def forward(self, hidden_BTH: Tensor, layout: Layout) -> Tensor:
        """Return the frames after the last layer."""
        if self.proj is not None and self.proj_layer_norm is not None:
            hidden_BTH = self.proj_layer_norm(self.proj(hidden_BTH))
        for layer in self.layers:
            if not (self.training and self.config.layerdrop > 0.0 and torch.rand([]) <= self.config.layerdrop):
                hidden_BTH, layout = layer(hidden_BTH, layout)
        return hidden_BTH


def adapted_frames(num_frames: Count, config: ConformerConfig) -> Count:
    """Return the frames after one adapter layer."""
    padding = config.adapter_stride // 2
    return (num_frames + 2 * padding - config.adapter_kernel_size) // config.adapter_stride + 1
