"""BERT (Devlin et al. 2018, arXiv:1810.04805) as a text decoder: causal, with cross attention (Rothe et al. 2020).

Read from top to bottom: configuration, embeddings, attention, layers, head, model. Names of modules and weights are
those of published checkpoints.

Legend: R rows, L tokens, H hidden, A heads, D head, I feed-forward, V vocabulary.
"""

from collections.abc import Mapping
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from raysp.errors import CheckpointError
from raysp.models.base.configuration import Config
from raysp.models.base.folded import StepLinear
from raysp.models.base.kernels import activation, dropped
from raysp.models.base.weights import Value
from raysp.models.decoder.attention import Pass, SplitAttention
from raysp.models.decoder.text_decoder import TextDecoder, TextDecoderConfig


class BertConfig(TextDecoderConfig):
    """Fields and defaults of `BertConfig` in transformers."""

    model_type: ClassVar[str] = "bert"

    vocab_size: int = 30522
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    hidden_act: str = "gelu"
    hidden_dropout_prob: float = 0.1
    attention_probs_dropout_prob: float = 0.1
    max_position_embeddings: int = 512
    type_vocab_size: int = 2
    initializer_range: float = 0.02
    layer_norm_eps: float = 1e-12
    pad_token_id: int | None = 0
    classifier_dropout: float | None = None

    def validate(self) -> None:
        """Raise CheckpointError for fields that no model can be built from."""
        super().validate()
        kind = vars(self).get("position_embedding_type", "absolute")
        if kind != "absolute":
            raise CheckpointError(f"position_embedding_type is {kind!r}, expected 'absolute': use another checkpoint")


class BertEmbeddings(nn.Module):
    """Sum of the embeddings of words, positions and token types."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.config = config
        self.word_embeddings = nn.Embedding(config.vocab_size, config.hidden_size, padding_idx=config.pad_token_id)
        self.position_embeddings = nn.Embedding(config.max_position_embeddings, config.hidden_size)
        self.token_type_embeddings = nn.Embedding(config.type_vocab_size, config.hidden_size)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(
        self, ids_RL: Tensor | None, embeds_RLH: Tensor | None, positions: Tensor, types_RL: Tensor | None
    ) -> Tensor:
        """Return hidden_RLH; without `types_RL` all tokens have type 0."""
        words_RLH = self.word_embeddings(ids_RL) if embeds_RLH is None else embeds_RLH
        types = self.token_type_embeddings.weight[0] if types_RL is None else self.token_type_embeddings(types_RL)
        hidden_RLH = self.LayerNorm(words_RLH + types + self.position_embeddings(positions))
        return dropped(hidden_RLH, self.config.hidden_dropout_prob, self.training)


class BertSelfAttention(SplitAttention):
    """Projections to queries, keys and values."""

    layer_names = ("query", "key", "value")
    dropout_name = "attention_probs_dropout_prob"

    def __init__(self, config: BertConfig, *, is_cross: bool) -> None:
        super().__init__(config, config.num_attention_heads, is_cross=is_cross)
        source_width = config.encoder_width if is_cross else config.hidden_size
        self.query = StepLinear(config.hidden_size, config.hidden_size)
        self.key = StepLinear(source_width, config.hidden_size)
        self.value = StepLinear(source_width, config.hidden_size)


class BertResidual(nn.Module):
    """Projection, residual connection and norm."""

    def __init__(self, config: BertConfig, width: int) -> None:
        super().__init__()
        self.config = config
        self.dense = StepLinear(width, config.hidden_size)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(self, x: Tensor, before_RLH: Tensor) -> Tensor:
        """Return hidden_RLH."""
        added: Tensor = dropped(self.dense(x), self.config.hidden_dropout_prob, self.training)
        normalised: Tensor = self.LayerNorm(added + before_RLH)
        return normalised


class BertAttention(nn.Module):
    """Attention to tokens, or to the frames of an encoder, with its residual."""

    def __init__(self, config: BertConfig, *, is_cross: bool) -> None:
        super().__init__()
        self.self = BertSelfAttention(config, is_cross=is_cross)
        self.output = BertResidual(config, config.hidden_size)

    def forward(self, hidden_RLH: Tensor, run: Pass, index: int) -> Tensor:
        """Return attention with its residual."""
        attended: Tensor = self.output(self.self(hidden_RLH, run, index), hidden_RLH)
        return attended


class BertLayer(nn.Module):
    """Self-attention, cross-attention and feed-forward network."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.attention = BertAttention(config, is_cross=False)
        self.crossattention = BertAttention(config, is_cross=True) if config.add_cross_attention else None
        self.intermediate = nn.ModuleDict({"dense": StepLinear(config.hidden_size, config.intermediate_size)})
        self.act = activation(config.hidden_act)
        self.output = BertResidual(config, config.intermediate_size)

    def forward(self, hidden_RLH: Tensor, run: Pass, index: int) -> Tensor:
        """Return the layer's output."""
        hidden_RLH = self.attention(hidden_RLH, run, index)
        if self.crossattention is not None and run.has_encoder:
            hidden_RLH = self.crossattention(hidden_RLH, run, index)
        output_RLH: Tensor = self.output(self.act(self.intermediate["dense"](hidden_RLH)), hidden_RLH)
        return output_RLH


class BertLMPredictionHead(nn.Module):
    """Logits over the vocabulary, after a dense layer."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.transform = nn.ModuleDict({"dense": StepLinear(config.hidden_size, config.hidden_size), "LayerNorm": norm})
        self.act = activation(config.hidden_act)
        self.decoder = StepLinear(config.hidden_size, config.vocab_size)
        self.bias = nn.Parameter(torch.zeros(config.vocab_size))

    def forward(self, hidden_RLH: Tensor) -> Tensor:
        """Return logits_RLV."""
        inner_RLH = self.act(self.transform["dense"](hidden_RLH))
        return self.decoder(self.transform["LayerNorm"](inner_RLH))  # type: ignore[no-any-return]


class BertLMHeadModel(TextDecoder):
    """BERT as a causal language model."""

    config_class: ClassVar[type[Config]] = BertConfig
    base_model_prefix: ClassVar[str] = "bert"
    layers_name: ClassVar[str] = "bert.encoder.layer"
    embeddings_name: ClassVar[str] = "bert.embeddings.word_embeddings"
    head_name: ClassVar[str] = "cls.predictions"
    output_name: ClassVar[str] = "cls.predictions.decoder"
    new_parts: ClassVar[tuple[str, ...]] = (".crossattention.", "cls.predictions.")
    positions_follow_mask: ClassVar[bool] = True
    caches_with_labels: ClassVar[bool] = False
    tied_pairs: ClassVar[dict[str, str]] = {
        "cls.predictions.decoder.weight": "bert.embeddings.word_embeddings.weight",
        "cls.predictions.decoder.bias": "cls.predictions.bias",
    }
    config: BertConfig

    def __init__(self, config: BertConfig) -> None:
        super().__init__(config)
        layers = nn.ModuleList(BertLayer(config) for _ in range(config.num_hidden_layers))
        self.bert = nn.ModuleDict({"embeddings": BertEmbeddings(config), "encoder": nn.ModuleDict({"layer": layers})})
        self.cls = nn.ModuleDict({"predictions": BertLMPredictionHead(config)})
        self.tie_weights()

    def embed(
        self, input_ids: Tensor | None, inputs_embeds: Tensor | None, positions: Tensor, token_type_ids: Tensor | None
    ) -> Tensor:
        """Return the first hidden_RLH."""
        hidden_RLH: Tensor = self.bert["embeddings"](input_ids, inputs_embeds, positions, token_type_ids)
        return hidden_RLH

    def resize_token_embeddings(
        self, num_tokens: int | None = None, pad_to_multiple_of: int | None = None
    ) -> nn.Module:
        """Change the vocabulary size and return the input embeddings; new tokens start as the mean of the old."""
        embeddings = super().resize_token_embeddings(num_tokens, pad_to_multiple_of)
        head = self.get_submodule(self.head_name)
        bias = head.get_parameter("bias").detach()
        added = max(0, self.config.vocab_size - len(bias))
        head.bias = nn.Parameter(F.pad(bias, (0, added))[: self.config.vocab_size].clone())
        self.tie_weights()
        return embeddings

    def current_names(self, values: Mapping[str, Value]) -> dict[str, Value]:
        """Return the decoder's weights of a checkpoint with or without heads; old ones name norms gamma and beta."""
        endings = {".gamma": ".weight", ".beta": ".bias"}
        named: dict[str, Value] = {}
        bare = not any(name.startswith("bert.") for name in values)
        for name, value in values.items():
            for old, new in endings.items():
                if name.endswith("LayerNorm" + old):
                    name = name.removesuffix(old) + new
            if bare and not name.startswith("cls."):
                name = "bert." + name
            if not name.startswith(("bert.pooler.", "cls.seq_relationship.", "bert.embeddings.position_ids")):
                named[name] = value
        return named
