"""GPT-2 (Radford et al. 2019) as a text decoder, with optional cross-attention.

Read from top to bottom: configuration, attention, layers, model. Names of modules and weights follow published
checkpoints.

Legend: R rows, L tokens, H hidden, A heads, D head, V vocabulary.
"""

import math
from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn

from raysp.models.base.configuration import Config
from raysp.models.base.folded import PackedProduct, StepLinear
from raysp.models.base.kernels import activation, dropped
from raysp.models.base.weights import Value
from raysp.models.decoder.attention import Pass, attend_to_encoder, attend_to_tokens, split_heads, split_joined
from raysp.models.decoder.text_decoder import TextDecoder, TextDecoderConfig


class GPT2Config(TextDecoderConfig):
    """Fields and defaults of `GPT2Config` in transformers."""

    model_type: ClassVar[str] = "gpt2"
    aliases: ClassVar[dict[str, str]] = {
        "hidden_size": "n_embd",
        "max_position_embeddings": "n_positions",
        "num_attention_heads": "n_head",
        "num_hidden_layers": "n_layer",
    }

    vocab_size: int = 50257
    n_positions: int = 1024
    n_embd: int = 768
    n_layer: int = 12
    n_head: int = 12
    n_inner: int | None = None
    activation_function: str = "gelu_new"
    resid_pdrop: float = 0.1
    embd_pdrop: float = 0.1
    attn_pdrop: float = 0.1
    layer_norm_epsilon: float = 1e-5
    initializer_range: float = 0.02
    scale_attn_weights: bool = True
    scale_attn_by_inverse_layer_idx: bool = False
    reorder_and_upcast_attn: bool = False
    bos_token_id: int | None = 50256
    eos_token_id: int | list[int] | None = 50256


class Conv1D(nn.Module):
    """A linear layer whose weight is stored (in, out)."""

    def __init__(self, width_in: int, width_out: int) -> None:
        super().__init__()
        self.in_features, self.out_features = width_in, width_out
        self.weight = nn.Parameter(torch.empty(width_in, width_out).normal_(std=0.02))
        self.bias = nn.Parameter(torch.zeros(width_out))
        self._product = PackedProduct()

    def forward(self, x: Tensor) -> Tensor:
        """Return x with its last axis `width_out` wide."""
        return self._product(x, self.weight.t(), self.bias)


class GPT2Attention(nn.Module):
    """Causal self-attention, or attention to the frames of an encoder, with a query projection of its own."""

    def __init__(self, config: GPT2Config, index: int, *, is_cross: bool) -> None:
        super().__init__()
        self.config, self.scale = config, attention_scale(config, index)
        width = config.n_embd
        self.c_attn = Conv1D(config.encoder_width, 2 * width) if is_cross else Conv1D(width, 3 * width)
        self.q_attn = Conv1D(width, width) if is_cross else None
        self.c_proj = Conv1D(width, width)

    def _keys_and_values(self, encoder_BSH: Tensor) -> tuple[Tensor, Tensor]:
        k_BSH, v_BSH = self.c_attn(encoder_BSH).chunk(2, -1)
        return split_heads(k_BSH, self.config.n_head), split_heads(v_BSH, self.config.n_head)

    def forward(self, hidden_RLH: Tensor, run: Pass, index: int) -> Tensor:
        """Return the residual."""
        dropout = self.config.attn_pdrop if self.training else 0.0
        if self.q_attn is None:
            q_RALD, new = split_joined(self.c_attn(hidden_RLH), self.config.n_head)
            mixed_RLH = attend_to_tokens(q_RALD, new, run, index, dropout, self.scale)
        else:
            q_RALD = split_heads(self.q_attn(hidden_RLH), self.config.n_head)
            mixed_RLH = attend_to_encoder(q_RALD, self._keys_and_values, run, index, dropout, self.scale)
        return dropped(self.c_proj(mixed_RLH), self.config.resid_pdrop, self.training)


def attention_scale(config: GPT2Config, index: int) -> float:
    """Return the scale of a layer's attention scores."""
    scale = (config.n_embd // config.n_head) ** -0.5 if config.scale_attn_weights else 1.0
    return scale / (index + 1) if config.scale_attn_by_inverse_layer_idx else scale


class GPT2MLP(nn.Module):
    """The feed-forward network."""

    def __init__(self, config: GPT2Config) -> None:
        super().__init__()
        self.config = config
        width = 4 * config.n_embd if config.n_inner is None else config.n_inner
        self.c_fc = Conv1D(config.n_embd, width)
        self.c_proj = Conv1D(width, config.n_embd)
        self.act = activation(config.activation_function)

    def forward(self, hidden_RLH: Tensor) -> Tensor:
        """Return the residual."""
        return dropped(self.c_proj(self.act(self.c_fc(hidden_RLH))), self.config.resid_pdrop, self.training)


class GPT2Block(nn.Module):
    """Self-attention, cross-attention and feed-forward network, each preceded by a norm."""

    def __init__(self, config: GPT2Config, index: int) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(config.n_embd, eps=config.layer_norm_epsilon)
        self.attn = GPT2Attention(config, index, is_cross=False)
        self.ln_2 = nn.LayerNorm(config.n_embd, eps=config.layer_norm_epsilon)
        self.crossattention: GPT2Attention | None = None
        if config.add_cross_attention:
            self.crossattention = GPT2Attention(config, index, is_cross=True)
            self.ln_cross_attn = nn.LayerNorm(config.n_embd, eps=config.layer_norm_epsilon)
        self.mlp = GPT2MLP(config)

    def forward(self, hidden_RLH: Tensor, run: Pass, index: int) -> Tensor:
        """Return the layer's output."""
        hidden_RLH = hidden_RLH + self.attn(self.ln_1(hidden_RLH), run, index)
        if self.crossattention is not None and run.has_encoder:
            hidden_RLH = hidden_RLH + self.crossattention(self.ln_cross_attn(hidden_RLH), run, index)
        output_RLH: Tensor = hidden_RLH + self.mlp(self.ln_2(hidden_RLH))
        return output_RLH


class GPT2LMHeadModel(TextDecoder):
    """GPT-2 as a causal language model."""

    config_class: ClassVar[type[Config]] = GPT2Config
    base_model_prefix: ClassVar[str] = "transformer"
    layers_name: ClassVar[str] = "transformer.h"
    norm_name: ClassVar[str] = "transformer.ln_f"
    embeddings_name: ClassVar[str] = "transformer.wte"
    new_parts: ClassVar[tuple[str, ...]] = (".crossattention.", ".ln_cross_attn.")
    positions_follow_mask: ClassVar[bool] = True
    tied_pairs: ClassVar[dict[str, str]] = {"lm_head.weight": "transformer.wte.weight"}
    config: GPT2Config

    def __init__(self, config: GPT2Config) -> None:
        super().__init__(config)
        parts = {
            "wte": nn.Embedding(config.vocab_size, config.n_embd),
            "wpe": nn.Embedding(config.n_positions, config.n_embd),
            "h": nn.ModuleList(GPT2Block(config, index) for index in range(config.n_layer)),
            "ln_f": nn.LayerNorm(config.n_embd, eps=config.layer_norm_epsilon),
        }
        self.transformer = nn.ModuleDict(parts)
        self.lm_head = StepLinear(config.n_embd, config.vocab_size, bias=False)
        self.tie_weights()

    def embed(
        self, input_ids: Tensor | None, inputs_embeds: Tensor | None, positions: Tensor, token_type_ids: Tensor | None
    ) -> Tensor:
        """Return the first hidden_RLH."""
        body = self.transformer
        hidden_RLH: Tensor = body["wte"](input_ids) if inputs_embeds is None else inputs_embeds
        hidden_RLH = hidden_RLH + body["wpe"](positions)
        if token_type_ids is not None:
            hidden_RLH = hidden_RLH + body["wte"](token_type_ids)
        return dropped(hidden_RLH, self.config.embd_pdrop, self.training)

    def current_names(self, values: Mapping[str, Value]) -> dict[str, Value]:
        """Return weights by this model's names, with the prefix and without constant causal masks."""
        bare = not any(name.startswith("transformer.") for name in values)
        prefix = "transformer." if bare else ""
        return {
            name if name.startswith("lm_head.") else prefix + name: value
            for name, value in values.items()
            if not name.endswith(
                (".attn.bias", ".attn.masked_bias", ".crossattention.bias", ".crossattention.masked_bias")
            )
        }

    def _init_module(self, module: nn.Module) -> None:
        match module:
            case GPT2Attention() | GPT2MLP():  # two residual paths a layer (section 2.3)
                std = self.config.initializer_range / math.sqrt(2 * self.config.n_layer)
                nn.init.normal_(module.c_proj.weight, std=std)
            case Conv1D():
                nn.init.normal_(module.weight, std=self.config.initializer_range)
                nn.init.zeros_(module.bias)
            case _:
                super()._init_module(module)
