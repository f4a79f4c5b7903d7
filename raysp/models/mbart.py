"""The decoder of mBART (Liu et al. 2020, arXiv:2001.08210): BART's with norms in other places.

A norm precedes each sublayer and one follows the last layer.

Names of modules and weights follow published checkpoints; an encoder-decoder checkpoint is read for its
decoder.

Legend: R rows, L tokens, H hidden.
"""

from typing import ClassVar, cast

from torch import Tensor, nn

from raysp.models.bart import BartConfig, BartDecoderLayer, BartForCausalLM
from raysp.models.base.configuration import Config
from raysp.models.decoder.attention import Pass


class MBartConfig(BartConfig):
    """Fields and defaults of `MBartConfig` in transformers; the encoder's fields are stored but unused."""

    model_type: ClassVar[str] = "mbart"
    default_labels: ClassVar[int] = 2

    decoder_start_token_id: int | None = None


class MBartDecoderLayer(BartDecoderLayer):
    """Self-attention, cross-attention and feed-forward network, each preceded by a norm."""

    def forward(self, hidden_RLH: Tensor, run: Pass, index: int) -> Tensor:
        """Return the layer's output."""
        hidden_RLH = hidden_RLH + self.self_attn(self.self_attn_layer_norm(hidden_RLH), run, index)
        if run.has_encoder:
            hidden_RLH = hidden_RLH + self.encoder_attn(self.encoder_attn_layer_norm(hidden_RLH), run, index)
        return hidden_RLH + self.feed_forward(self.final_layer_norm(hidden_RLH))


class MBartForCausalLM(BartForCausalLM):
    """mBART's decoder as a causal language model."""

    config_class: ClassVar[type[Config]] = MBartConfig
    layer_class: ClassVar[type[BartDecoderLayer]] = MBartDecoderLayer
    norm_name: ClassVar[str] = "model.decoder.layer_norm"
    config: MBartConfig

    def __init__(self, config: MBartConfig) -> None:
        super().__init__(config)
        decoder = cast(nn.ModuleDict, self.model["decoder"])
        decoder["layer_norm"] = nn.LayerNorm(config.d_model)
