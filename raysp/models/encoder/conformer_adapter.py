"""Layer of the adapter of Wav2Vec2-BERT: attention over fewer frames, between strided convolutions.

Names of modules and weights follow published checkpoints.

Legend: B batch, T frames, P frames after a layer, H hidden.
"""

from torch import Tensor, nn

from raysp.models.base.kernels import dropped
from raysp.models.base.row_layout import Layout
from raysp.models.encoder.adapters import adapted_layout, gated
from raysp.models.encoder.conformer import ConformerConfig, SelfAttention
from raysp.models.encoder.transformer import FeedForward


class Wav2Vec2BertAdapterLayer(nn.Module):
    """Attention over fewer frames, with strided convolutions before it and in its residual."""

    def __init__(self, config: ConformerConfig) -> None:
        super().__init__()
        size, kernel, stride = config.adapter_size, config.adapter_kernel_size, config.adapter_stride
        self.config, self.dropout = config, config.conformer_conv_dropout
        self.residual_layer_norm = nn.LayerNorm(size, eps=config.layer_norm_eps)
        self.residual_conv = nn.Conv1d(size, 2 * size, kernel, stride, padding=config.adapter_padding)
        self.self_attn_layer_norm = nn.LayerNorm(size, eps=config.layer_norm_eps)
        self.self_attn_conv = nn.Conv1d(size, 2 * size, kernel, stride, padding=config.adapter_padding)
        self.self_attn = SelfAttention(config, size, None)
        self.ffn_layer_norm = nn.LayerNorm(size, eps=config.layer_norm_eps)
        self.ffn = FeedForward(config, size, config.adapter_act)

    def forward(self, hidden_BTH: Tensor, layout: Layout) -> tuple[Tensor, Layout]:
        """Return hidden_BPH, for which convolutions read padding as zero, and their layout."""
        residual_BPH = gated(self.residual_conv, layout.zeroed(self.residual_layer_norm(hidden_BTH)))
        hidden_BPH = gated(self.self_attn_conv, layout.zeroed(self.self_attn_layer_norm(hidden_BTH)))
        layout = adapted_layout(layout, hidden_BPH.shape[1], self.config)
        attended_BPH, _ = self.self_attn(hidden_BPH, layout, None, False)
        hidden_BPH = dropped(attended_BPH, self.dropout, self.training) + residual_BPH
        output_BPH: Tensor = hidden_BPH + self.ffn(self.ffn_layer_norm(hidden_BPH))
        return output_BPH, layout
