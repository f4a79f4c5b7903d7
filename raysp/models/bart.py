"""The decoder of BART (Lewis et al. 2019, arXiv:1910.13461).

Read from top to bottom: configuration, embeddings, attention, layers, model. Names of modules and weights follow
published checkpoints; of an encoder-decoder checkpoint the decoder is used.

Legend: R rows, L tokens, H hidden, A heads, D head, V vocabulary.
"""

import math
from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor, nn

from raysp.models.base.configuration import Config
from raysp.models.base.folded import StepLinear
from raysp.models.base.kernels import activation, dropped
from raysp.models.base.weights import Value
from raysp.models.decoder.attention import Pass, SplitAttention
from raysp.models.decoder.text_decoder import TextDecoder, TextDecoderConfig

POSITION_OFFSET = 2  # the first two rows of the position embeddings are unused


class BartConfig(TextDecoderConfig):
    """Fields and defaults of `BartConfig` in transformers; the encoder's fields are stored but unused."""

    model_type: ClassVar[str] = "bart"
    default_labels: ClassVar[int] = 3
    aliases: ClassVar[dict[str, str]] = {
        "hidden_size": "d_model",
        "num_attention_heads": "encoder_attention_heads",
        "num_hidden_layers": "encoder_layers",
    }

    vocab_size: int = 50265
    max_position_embeddings: int = 1024
    encoder_layers: int = 12
    encoder_ffn_dim: int = 4096
    encoder_attention_heads: int = 16
    decoder_layers: int = 12
    decoder_ffn_dim: int = 4096
    decoder_attention_heads: int = 16
    encoder_layerdrop: float = 0.0
    decoder_layerdrop: float = 0.0
    activation_function: str = "gelu"
    d_model: int = 1024
    dropout: float = 0.1
    attention_dropout: float = 0.0
    activation_dropout: float = 0.0
    init_std: float = 0.02
    classifier_dropout: float = 0.0
    scale_embedding: bool = False
    pad_token_id: int | None = 1
    bos_token_id: int | None = 0
    eos_token_id: int | list[int] | None = 2
    is_encoder_decoder: bool = True
    decoder_start_token_id: int | None = 2
    forced_eos_token_id: int | list[int] | None = 2


class BartPositions(nn.Embedding):
    """Learned position embeddings, stored after two unused rows."""

    def __init__(self, num_positions: int, width: int) -> None:
        super().__init__(num_positions + POSITION_OFFSET, width)

    def forward(self, positions: Tensor) -> Tensor:
        """Return the embeddings of positions from 0."""
        return super().forward(positions + POSITION_OFFSET)


class BartAttention(SplitAttention):
    """Attention to tokens, or to the frames of an encoder."""

    layer_names = ("q_proj", "k_proj", "v_proj")
    dropout_name = "attention_dropout"

    def __init__(self, config: BartConfig, *, is_cross: bool) -> None:
        super().__init__(config, config.decoder_attention_heads, is_cross=is_cross)
        source_width = config.encoder_width if is_cross else config.d_model
        self.k_proj = StepLinear(source_width, config.d_model)
        self.v_proj = StepLinear(source_width, config.d_model)
        self.q_proj = StepLinear(config.d_model, config.d_model)
        self.out_proj = StepLinear(config.d_model, config.d_model)

    def forward(self, hidden_RLH: Tensor, run: Pass, index: int) -> Tensor:
        """Return the residual."""
        return dropped(self.out_proj(super().forward(hidden_RLH, run, index)), self.config.dropout, self.training)


class BartDecoderLayer(nn.Module):
    """Self-attention, cross-attention and feed-forward network, each followed by a norm."""

    def __init__(self, config: BartConfig) -> None:
        super().__init__()
        self.config = config
        self.self_attn = BartAttention(config, is_cross=False)
        self.self_attn_layer_norm = nn.LayerNorm(config.d_model)
        self.encoder_attn = BartAttention(config, is_cross=True)
        self.encoder_attn_layer_norm = nn.LayerNorm(config.d_model)
        self.fc1 = StepLinear(config.d_model, config.decoder_ffn_dim)
        self.fc2 = StepLinear(config.decoder_ffn_dim, config.d_model)
        self.final_layer_norm = nn.LayerNorm(config.d_model)
        self.act = activation(config.activation_function)

    def forward(self, hidden_RLH: Tensor, run: Pass, index: int) -> Tensor:
        """Return the layer's output."""
        hidden_RLH = self.self_attn_layer_norm(hidden_RLH + self.self_attn(hidden_RLH, run, index))
        if run.has_encoder:
            hidden_RLH = self.encoder_attn_layer_norm(hidden_RLH + self.encoder_attn(hidden_RLH, run, index))
        output_RLH: Tensor = self.final_layer_norm(hidden_RLH + self.feed_forward(hidden_RLH))
        return output_RLH

    def feed_forward(self, hidden_RLH: Tensor) -> Tensor:
        """Return the residual of the feed-forward network."""
        inner = dropped(self.act(self.fc1(hidden_RLH)), self.config.activation_dropout, self.training)
        return dropped(self.fc2(inner), self.config.dropout, self.training)


class BartForCausalLM(TextDecoder):
    """BART's decoder as a causal language model."""

    config_class: ClassVar[type[Config]] = BartConfig
    layer_class: ClassVar[type[BartDecoderLayer]] = BartDecoderLayer
    base_model_prefix: ClassVar[str] = "model"
    layers_name: ClassVar[str] = "model.decoder.layers"
    embeddings_name: ClassVar[str] = "model.decoder.embed_tokens"
    shifts_labels: ClassVar[bool] = False
    tied_pairs: ClassVar[dict[str, str]] = {"lm_head.weight": "model.decoder.embed_tokens.weight"}
    config: BartConfig

    def __init__(self, config: BartConfig) -> None:
        # As the class of transformers sets them, so that both write the same config.json.
        config.is_decoder, config.is_encoder_decoder = True, False
        config.add_cross_attention = True  # its layers always have it
        super().__init__(config)
        parts = {
            "embed_tokens": nn.Embedding(config.vocab_size, config.d_model, config.pad_token_id),
            "embed_positions": BartPositions(config.max_position_embeddings, config.d_model),
            "layers": nn.ModuleList(self.layer_class(config) for _ in range(config.decoder_layers)),
            "layernorm_embedding": nn.LayerNorm(config.d_model),
        }
        self.model = nn.ModuleDict({"decoder": nn.ModuleDict(parts)})
        self.lm_head = StepLinear(config.d_model, config.vocab_size, bias=False)
        self.tie_weights()

    @property
    def initial_deviation(self) -> float:
        """Standard deviation of initial weights."""
        return self.config.init_std

    @property
    def layerdrop(self) -> float:
        """Probability of skipping a layer in training."""
        return self.config.decoder_layerdrop

    def embed(
        self, input_ids: Tensor | None, inputs_embeds: Tensor | None, positions: Tensor, token_type_ids: Tensor | None
    ) -> Tensor:
        """Return the first hidden_RLH."""
        if token_type_ids is not None:
            raise ValueError(f"token_type_ids given to {type(self).__name__}, which has no token types: omit them")
        if inputs_embeds is None:
            inputs_embeds = self.get_input_embeddings()(input_ids)
            if self.config.scale_embedding:
                inputs_embeds = inputs_embeds * math.sqrt(self.config.d_model)
        decoder: Any = self.model["decoder"]
        hidden_RLH: Tensor = decoder["layernorm_embedding"](inputs_embeds + decoder["embed_positions"](positions))
        return dropped(hidden_RLH, self.config.dropout, self.training)

    def current_names(self, values: Mapping[str, Value]) -> dict[str, Value]:
        """Return the weights of the decoder alone; its token embeddings may be the shared ones."""
        named: dict[str, Value] = {}
        for name, value in values.items():
            bare = name.removeprefix("model.")
            if bare == "shared.weight":
                named.setdefault("model.decoder.embed_tokens.weight", value)
            elif bare.startswith("decoder.") and not bare.endswith(".version"):
                named["model." + bare] = value
            elif bare.startswith("lm_head."):
                named[bare] = value
        return named


__all__ = ["BartConfig", "BartForCausalLM"]
