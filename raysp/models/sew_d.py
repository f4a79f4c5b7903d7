"""SEW-D (Wu et al. 2021, arXiv:2109.06870): a squeezed wav2vec 2.0 encoder with the attention of DeBERTa.

Read from top to bottom: configuration, positional convolution, disentangled attention (He et al. 2021,
arXiv:2006.03654, section 3.1), layers, squeezing encoder, models. The convolutional front end is in waveform.py,
biases by distance are in relative_attention.py, heads in encoder_heads.py. Names of modules and weights are those of
published checkpoints.

Legend: B batch, S samples, T frames, Q squeezed frames, C channels of the front end, H hidden, A attention heads,
D head, R rows of the table of distances, W distances of Q frames (2Q - 1), F frames of a group, V vocabulary,
N classes; in attention, frames of all rows or rows of a table as it is read.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from raysp.errors import CheckpointError
from raysp.models.base.modeling import Count, asked
from raysp.models.base.outputs import BaseModelOutput, ModelOutput
from raysp.models.encoder.augmentation import augmented
from raysp.models.encoder.encoder_heads import ForCTC, ForSequenceClassification
from raysp.models.encoder.heads import KeptStates, States
from raysp.models.encoder.relative_attention import (
    Bias,
    attend,
    attention_weights,
    bucket_rows,
    bucket_starts,
    by_distance,
    gathered,
    log_buckets,
    skewed,
    tiled,
)
from raysp.models.encoder.waveform import FeatureEncoder, receptive_samples
from raysp.models.encoder.waveform_model import WaveformConfig, WaveformModel
from raysp.models.files.configuration import Config
from raysp.models.kernels.activations import activation
from raysp.models.kernels.dense import dense
from raysp.models.kernels.folded import Folded
from raysp.models.kernels.grouped import conv1d
from raysp.models.kernels.packing import Packing, attended_keys, can_pack
from raysp.models.kernels.weight_norm import WeightNormConv1d


class SEWDConfig(WaveformConfig):
    """Fields and defaults of `SEWDConfig` in transformers, and those that its model reads without declaring them."""

    model_type: ClassVar[str] = "sew-d"

    vocab_size: int | None = 32
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    squeeze_factor: int = 2
    max_position_embeddings: int = 512
    position_buckets: int = 256
    share_att_key: bool = True
    relative_attention: bool = True
    pos_att_type: tuple[str, ...] = ("p2c", "c2p")
    norm_rel_ebd: str = "layer_norm"
    hidden_act: str = "gelu_python"
    hidden_dropout: float = 0.1
    activation_dropout: float = 0.1
    attention_dropout: float = 0.1
    feat_proj_dropout: float = 0.0
    final_dropout: float = 0.1
    initializer_range: float = 0.02
    layer_norm_eps: float = 1e-7
    feature_layer_norm_eps: float = 1e-5
    feat_extract_norm: str = "group"
    feat_extract_activation: str = "gelu"
    conv_dim: tuple[int, ...] = (64, 128, 128, 128, 128, 256, 256, 256, 256, 512, 512, 512, 512)
    conv_stride: tuple[int, ...] = (5, 2, 1, 2, 1, 2, 1, 2, 1, 2, 1, 2, 1)
    conv_kernel: tuple[int, ...] = (10, 3, 1, 3, 1, 3, 1, 3, 1, 2, 1, 2, 1)
    conv_bias: bool = False
    num_conv_pos_embeddings: int = 128
    num_conv_pos_embedding_groups: int = 16
    apply_spec_augment: bool = True
    mask_time_prob: float = 0.05
    mask_time_length: int = 10
    mask_time_min_masks: int = 2
    mask_feature_prob: float = 0.0
    mask_feature_length: int = 10
    mask_feature_min_masks: int = 0
    ctc_loss_reduction: str = "mean"
    ctc_zero_infinity: bool = False
    use_weighted_layer_sum: bool = False
    classifier_proj_size: int = 256
    pad_token_id: int | None = 0
    bos_token_id: int | None = 1
    eos_token_id: int | list[int] | None = 2

    @property
    def furthest_distance(self) -> int:
        """Frames beyond which the last bucket holds."""
        distance: int = getattr(self, "max_relative_positions", -1)
        return distance if distance >= 1 else self.max_position_embeddings

    @property
    def distance_span(self) -> int:
        """Rows of the table of distances to one side."""
        return self.position_buckets if self.position_buckets > 0 else self.furthest_distance

    def validate(self) -> None:
        """Check what must agree before a model can be built."""
        super().validate()
        if getattr(self, "attention_head_size", None) not in (None, self.hidden_size // self.num_attention_heads):
            raise CheckpointError("attention_head_size is not hidden_size / num_attention_heads, expected that or none")
        if self.squeeze_factor < 1 or self.furthest_distance < 1 or self.position_buckets == 1:
            raise CheckpointError(
                f"squeeze_factor is {self.squeeze_factor}, max_position_embeddings {self.max_position_embeddings}, "
                f"position_buckets {self.position_buckets}: expected the first two from 1, the last not 1"
            )


class SEWDPositionalConvEmbedding(nn.Module):
    """Tell squeezed frames their place by a wide convolution over frames."""

    def __init__(self, config: SEWDConfig) -> None:
        super().__init__()
        self.conv = WeightNormConv1d(
            config.hidden_size,
            config.num_conv_pos_embeddings,
            config.num_conv_pos_embedding_groups,
            config.squeeze_factor,
        )
        self.act = activation(config.feat_extract_activation)

    def forward(self, hidden_BTH: Tensor, num_squeezed: int) -> Tensor:
        """Return what is added to each squeezed frame."""
        x_BHQ = self.conv(hidden_BTH.transpose(1, 2))[:, :, :num_squeezed]
        return self.act(x_BHQ).transpose(1, 2)


Reading = Literal["gathered", "tiled", "skewed"]
"""How biases are read: by an index into a product with the rows that occur, or as views of a product with a row for
each distance; in tiles, or at once where gradients or a GPU want few operations."""


@dataclass(frozen=True)
class Distances:
    """Which row of the table of distances each pair of frames reads, and the table."""

    table_RH: Tensor
    rows: slice
    """Of the table, those that so many frames read."""
    row_W: Tensor
    """Of `rows`, for `j - i` from `1 - Q` to `Q - 1`, where i asks and j answers."""
    reading: Reading
    """Whichever has the smaller products."""
    index_QQ: Tensor
    """At i, j the row, where it is gathered."""
    turned_QQ: Tensor
    """At j, i the row, where it is gathered."""

    @classmethod
    def of_any(cls, bucket_starts: Sequence[int], table_RH: Tensor, num_squeezed: int) -> "Distances":
        """Do as `of` where a program is made for any number of frames, so that no value decides what is done."""
        index_QQ = bucket_rows(num_squeezed, bucket_starts, table_RH.device)
        return cls(table_RH, slice(0, 2 * len(bucket_starts)), index_QQ[0], "gathered", index_QQ, index_QQ.T)

    @classmethod
    def of(cls, config: SEWDConfig, table_RH: Tensor, num_squeezed: int) -> "Distances":
        """Look up the rows for a number of frames."""
        span = config.distance_span
        buckets_W = log_buckets(num_squeezed, config.position_buckets, config.furthest_distance)
        row_W = (buckets_W + span).clamp(0, 2 * span - 1)  # from the furthest before to the furthest after
        first, last = int(row_W[-1]), int(row_W[0])
        row_W = (row_W - first).to(table_RH.device)
        has_tiles = table_RH.device.type == "cpu" and not torch.is_grad_enabled()
        if last - first + 1 < (num_squeezed if has_tiles else len(row_W)):  # an index costs some of what it saves
            index_QQ, turned_QQ = by_distance(row_W), by_distance(row_W.flip(0))
            return cls(table_RH, slice(first, last + 1), row_W, "gathered", index_QQ, turned_QQ)
        return cls(table_RH, slice(first, last + 1), row_W, "tiled" if has_tiles else "skewed", row_W, row_W)

    def among(self, num_squeezed: int) -> "Distances":
        """Return those of the first frames alone."""
        if self.reading != "gathered":
            return self
        first = slice(num_squeezed), slice(num_squeezed)
        return replace(self, index_QQ=self.index_QQ[first], turned_QQ=self.turned_QQ[first])

    def laid_out(self, table_ARD: Tensor, *, turned: bool) -> Tensor:
        """Return table_AND, the rows as they are read: each once, or for each distance `j - i`; `turned`: `i - j`."""
        if self.reading == "gathered":
            return table_ARD[:, self.rows]
        return table_ARD[:, self.rows].index_select(1, self.row_W.flip(0) if turned else self.row_W)

    def read(self, x_BAQD: Tensor, table_AND: Tensor, *, turned: bool) -> Tensor:
        """Return at i, j the product of frame i with the row for `j - i`; `turned`: with that for `i - j`."""
        if self.reading == "gathered":
            return gathered(x_BAQD @ table_AND.transpose(1, 2), self.turned_QQ if turned else self.index_QQ)
        beyond = (table_AND.shape[1] + 1) // 2 - x_BAQD.shape[2]  # distances to either side that no frame has
        table_AWD = table_AND[:, beyond : table_AND.shape[1] - beyond]
        return tiled(x_BAQD, table_AWD) if self.reading == "tiled" else skewed(x_BAQD @ table_AWD.transpose(1, 2))


class DisentangledSelfAttention(nn.Module):
    """Attention by content, and by content and distance ("c2p", "p2c")."""

    def __init__(self, config: SEWDConfig) -> None:
        super().__init__()
        self.config = config
        width = config.hidden_size
        self.query_proj = nn.Linear(config.hidden_size, width)
        self.key_proj = nn.Linear(config.hidden_size, width)
        self.value_proj = nn.Linear(config.hidden_size, width)
        self.has_c2p = "c2p" in config.pos_att_type
        self.has_p2c = "p2c" in config.pos_att_type
        self.scale = (config.hidden_size // config.num_attention_heads * (1 + self.has_c2p + self.has_p2c)) ** -0.5
        if config.relative_attention and not config.share_att_key:
            if self.has_c2p:
                self.pos_key_proj = nn.Linear(config.hidden_size, width)
            if self.has_p2c:
                self.pos_query_proj = nn.Linear(config.hidden_size, width)
        self._tables: Folded[tuple[Tensor, Tensor]] = Folded()

    def forward(
        self,
        hidden_BQH: Tensor,
        keys_B11Q: Tensor | None,
        distances: Distances | None,
        with_weights: bool,
        packing: Packing | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """Return the attended frames, and the weights_BAQQ where they are asked for.

        With a packing, which goes without gradients, masks and weights, `hidden_BQH` is (1, N, H).
        """
        if packing is not None:
            return self._packed(hidden_BQH, distances, packing), None
        q_BAQD, k_BAQD, v_BAQD = (
            self._heads(dense(projection, hidden_BQH))
            for projection in (self.query_proj, self.key_proj, self.value_proj)
        )
        bias = None
        if distances is not None and (self.has_c2p or self.has_p2c):
            bias = self._bias(q_BAQD, k_BAQD, distances, self._tables_of(distances))
        dropout = self.config.attention_dropout if self.training else 0.0
        if not with_weights:
            mixed_BAQD = attend(q_BAQD, k_BAQD, v_BAQD, bias, keys_B11Q, scale=self.scale, dropout=dropout)
            return mixed_BAQD.transpose(1, 2).flatten(2), None
        weights_BAQQ = attention_weights(q_BAQD, k_BAQD, bias, keys_B11Q, scale=self.scale)
        weights_BAQQ = F.dropout(weights_BAQQ, dropout, self.training)
        return (weights_BAQQ @ v_BAQD).transpose(1, 2).flatten(2), weights_BAQQ

    def _heads(self, x_BQE: Tensor) -> Tensor:
        heads = self.config.num_attention_heads
        return x_BQE.reshape(*x_BQE.shape[:-1], heads, x_BQE.shape[-1] // heads).transpose(-3, -2)

    def _packed(self, hidden_1NH: Tensor, distances: Distances | None, packing: Packing) -> Tensor:
        """Return the attended frames; each row, by itself, needs no mask."""
        q_1AND, k_1AND, v_1AND = (
            self._heads(dense(projection, hidden_1NH))
            for projection in (self.query_proj, self.key_proj, self.value_proj)
        )
        tables = None
        if distances is not None and (self.has_c2p or self.has_p2c):
            tables = self._tables_of(distances)
        mixed = []
        for place in packing.places:
            q_1AQD, k_1AQD, v_1AQD = (x[:, :, place].contiguous() for x in (q_1AND, k_1AND, v_1AND))
            bias = None
            if distances is not None and tables is not None and place.start < place.stop:
                bias = self._bias(q_1AQD, k_1AQD, distances.among(place.stop - place.start), tables)
            mixed.append(attend(q_1AQD, k_1AQD, v_1AQD, bias, None, scale=self.scale).transpose(1, 2).flatten(2))
        return packing.joined(mixed)

    def _tables_of(self, distances: Distances) -> tuple[Tensor, Tensor]:
        keys_ARD, queries_ARD = self._position_tables(distances.table_RH)
        return distances.laid_out(keys_ARD, turned=False), distances.laid_out(queries_ARD, turned=True)

    def _bias(self, q_BAQD: Tensor, k_BAQD: Tensor, distances: Distances, tables: tuple[Tensor, Tensor]) -> Bias:
        """Return `q_i . key(i - j) + k_j . query(i - j)`, scaled, for rows and heads.

        Both terms read the same row of the table, as `bucket(i - j) = -bucket(j - i)`.
        """
        keys_AND, queries_AND = tables
        q_BAQD, k_BAQD = q_BAQD.contiguous(), k_BAQD.contiguous()

        def bias(rows: slice, heads: slice) -> Tensor:
            c2p = p2c = None
            if self.has_c2p:
                c2p = distances.read(q_BAQD[rows, heads], keys_AND[heads], turned=False)
            if self.has_p2c:
                p2c = distances.read(k_BAQD[rows, heads], queries_AND[heads], turned=True).transpose(2, 3)
            if c2p is None or p2c is None:
                return (p2c if c2p is None else c2p).contiguous()  # type: ignore[union-attr]
            return c2p + p2c if distances.reading == "skewed" else c2p.add_(p2c)  # a view is not to be written to

        return bias

    def _position_tables(self, table_RH: Tensor) -> tuple[Tensor, Tensor]:
        """Return the scaled keys and queries (A, R, D) of distances."""
        share = self.config.share_att_key
        key_proj = self.key_proj if share or not self.has_c2p else self.pos_key_proj
        query_proj = self.query_proj if share or not self.has_p2c else self.pos_query_proj

        def project() -> tuple[Tensor, Tensor]:
            dropped_RH = F.dropout(table_RH, self.config.activation_dropout, self.training)
            keys_ARD, queries_ARD = (self._heads(proj(dropped_RH)) * self.scale for proj in (key_proj, query_proj))
            return keys_ARD, queries_ARD

        if self.training:
            return project()
        weights = (table_RH, key_proj.weight, key_proj.bias, query_proj.weight, query_proj.bias)
        return self._tables(weights, project)


class SEWDOutput(nn.Module):
    """Project, add what came in, normalise."""

    def __init__(self, config: SEWDConfig, in_features: int) -> None:
        super().__init__()
        self.config = config
        self.dense = nn.Linear(in_features, config.hidden_size)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)

    def forward(self, inner_BQI: Tensor, residual_BQH: Tensor) -> Tensor:
        """Return the normalised sum."""
        projected_BQH = F.dropout(dense(self.dense, inner_BQI), self.config.activation_dropout, self.training)
        normalised_BQH: Tensor = self.LayerNorm(projected_BQH + residual_BQH)
        return normalised_BQH


class SEWDAttention(nn.Module):
    """Hold attention and its output."""

    def __init__(self, config: SEWDConfig) -> None:
        super().__init__()
        self.self = DisentangledSelfAttention(config)
        self.output = SEWDOutput(config, config.hidden_size)


class SEWDIntermediate(nn.Module):
    """Hold the first dense layer of the feed-forward."""

    def __init__(self, config: SEWDConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.intermediate_size)
        self.act = activation(config.hidden_act)

    def forward(self, hidden_BQH: Tensor) -> Tensor:
        """Apply to each frame by itself."""
        return self.act(dense(self.dense, hidden_BQH))


class SEWDLayer(nn.Module):
    """Attention and feed-forward, each normalised after."""

    def __init__(self, config: SEWDConfig) -> None:
        super().__init__()
        self.attention = SEWDAttention(config)
        self.intermediate = SEWDIntermediate(config)
        self.output = SEWDOutput(config, config.intermediate_size)

    def forward(
        self,
        hidden_BQH: Tensor,
        keys_B11Q: Tensor | None,
        distances: Distances | None,
        with_weights: bool,
        packing: Packing | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """Return the layer's output, and attention weights where they are asked for."""
        attended_BQH, weights_BAQQ = self.attention.self(hidden_BQH, keys_B11Q, distances, with_weights, packing)
        hidden_BQH = self.attention.output(attended_BQH, hidden_BQH)
        return self.output(self.intermediate(hidden_BQH), hidden_BQH), weights_BAQQ


class ConvLayer(nn.Module):
    """A convolution beside the first layer; only where a configuration has `conv_kernel_size`."""

    def __init__(self, config: SEWDConfig, kernel: int) -> None:
        super().__init__()
        groups = getattr(config, "conv_groups", 1)
        self.conv = nn.Conv1d(config.hidden_size, config.hidden_size, kernel, padding=(kernel - 1) // 2, groups=groups)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)
        self.act = activation(getattr(config, "conv_act", "tanh"))
        self.dropout = getattr(config, "hidden_dropout_prob", config.hidden_dropout)

    def forward(self, hidden_BQH: Tensor, residual_BQH: Tensor, valid_BQ: Tensor | None) -> Tensor:
        """Return the first layer's output with the convolution of its input added; zero where not valid."""
        x_BQH = conv1d(self.conv, hidden_BQH.transpose(1, 2)).transpose(1, 2)
        if valid_BQ is not None:
            x_BQH = x_BQH.masked_fill(~valid_BQ[:, :, None], 0.0)
        x_BQH = self.act(F.dropout(x_BQH, self.dropout, self.training))
        output_BQH: Tensor = self.LayerNorm(residual_BQH + x_BQH)
        return output_BQH if valid_BQ is None else output_BQH.masked_fill(~valid_BQ[:, :, None], 0.0)


class SEWDTransformerEncoder(nn.Module):
    """The layers and the table of distances that they share."""

    def __init__(self, config: SEWDConfig) -> None:
        super().__init__()
        self.config = config
        self.gradient_checkpointing = False
        self.layer = nn.ModuleList(SEWDLayer(config) for _ in range(config.num_hidden_layers))
        if config.relative_attention:
            self.rel_embeddings = nn.Embedding(2 * config.distance_span, config.hidden_size)
        self.norms_table = "layer_norm" in [name.strip() for name in config.norm_rel_ebd.lower().split("|")]
        if self.norms_table:
            self.LayerNorm = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)
        kernel = getattr(config, "conv_kernel_size", 0)
        self.conv = ConvLayer(config, kernel) if kernel > 0 else None
        self._table: Folded[Tensor] = Folded()
        self.bucket_starts = bucket_starts(config.distance_span, config.position_buckets, config.furthest_distance)

    def forward(
        self, hidden_BQH: Tensor, valid_BQ: Tensor | None, states: States | None, with_weights: bool, exact: bool
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Return the last hidden state and attention weights; `states` takes the first input and all outputs.

        Where nothing but frames is asked for, a CPU does no work on padding, whose frames are then zero; the original
        has values there, and so has "reference" padding.
        """
        if not (with_weights or self.training) and self.conv is None and can_pack(hidden_BQH, valid_BQ, exact):
            return self._packed(hidden_BQH, Packing.of(hidden_BQH, valid_BQ), states), ()
        keys_B11Q = None if valid_BQ is None else attended_keys(valid_BQ)
        distances = None
        if self.config.relative_attention and torch.compiler.is_compiling():
            distances = Distances.of_any(self.bucket_starts, self._normalised_table(), hidden_BQH.shape[1])
        elif self.config.relative_attention:
            distances = Distances.of(self.config, self._normalised_table(), hidden_BQH.shape[1])
        if states is not None:
            states.append(hidden_BQH)
        weights = []
        for index, layer in enumerate(self.layer):
            input_BQH = hidden_BQH
            hidden_BQH, weights_BAQQ = self._run(layer, hidden_BQH, keys_B11Q, distances, with_weights)
            if states is not None:
                states.append(hidden_BQH)
            if weights_BAQQ is not None:
                weights.append(weights_BAQQ)
            if index == 0 and self.conv is not None:
                hidden_BQH = self.conv(input_BQH, hidden_BQH, valid_BQ)
        return hidden_BQH, tuple(weights)

    def _packed(self, hidden_BQH: Tensor, packing: Packing, states: States | None) -> Tensor:
        distances = None
        if self.config.relative_attention:
            distances = Distances.of(self.config, self._normalised_table(), max(1, *packing.counts))
        hidden_1NH = packing.pack(hidden_BQH)
        if states is not None:
            states.append(hidden_BQH)
        for layer in self.layer:
            hidden_1NH, _ = layer(hidden_1NH, None, distances, False, packing)
            if states is not None:
                states.append(packing.unpack(hidden_1NH))
        return packing.unpack(hidden_1NH)

    def _normalised_table(self) -> Tensor:
        if not self.norms_table:
            return self.rel_embeddings.weight
        weights = (self.rel_embeddings.weight, self.LayerNorm.weight, self.LayerNorm.bias)
        return self._table(weights, lambda: self.LayerNorm(self.rel_embeddings.weight))

    def _run(
        self,
        layer: nn.Module,
        hidden_BQH: Tensor,
        keys_B11Q: Tensor | None,
        distances: Distances | None,
        with_weights: bool,
    ) -> tuple[Tensor, Tensor | None]:
        if self.gradient_checkpointing and self.training and torch.is_grad_enabled():
            found = checkpoint(layer, hidden_BQH, keys_B11Q, distances, with_weights, use_reentrant=False)
        else:
            found = layer(hidden_BQH, keys_B11Q, distances, with_weights)
        hidden_BQH, weights_BAQQ = found
        return hidden_BQH, weights_BAQQ


class SEWDUpsampling(nn.Module):
    """Make `squeeze_factor` frames of each."""

    def __init__(self, config: SEWDConfig) -> None:
        super().__init__()
        self.factor = config.squeeze_factor
        self.projection = nn.Linear(config.hidden_size, config.hidden_size * config.squeeze_factor)
        self.act = activation(config.feat_extract_activation)

    def forward(self, hidden_BQH: Tensor) -> Tensor:
        """Return (B, Q * squeeze_factor, H)."""
        wide_BQI = self.act(dense(self.projection, hidden_BQH))
        return wide_BQI.reshape(wide_BQI.shape[0], -1, hidden_BQH.shape[-1])


class SEWDEncoder(nn.Module):
    """Squeeze frames, run the layers over them, and stretch what they give (Wu et al. 2021, section 4.3)."""

    def __init__(self, config: SEWDConfig) -> None:
        super().__init__()
        self.config = config
        self.pos_conv_embed = SEWDPositionalConvEmbedding(config)
        self.encoder = SEWDTransformerEncoder(config)
        self.upsample = SEWDUpsampling(config)

    def forward(
        self, hidden_BTH: Tensor, valid_BT: Tensor | None, states: States | None, with_weights: bool, exact: bool
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Return the last hidden state, zero behind the last whole group of frames, and attention weights.

        Args:
            hidden_BTH: Projected features.
            valid_BT: True where a frame is part of its row; None: all of them.
            states: Takes hidden states, which are squeezed.
            with_weights: Ask for attention weights.
            exact: Leave out a group of frames that is not whole, as it is left out of a row alone. The original takes
                it in where other rows are longer.
        """
        num_frames, factor = hidden_BTH.shape[1], self.config.squeeze_factor
        num_squeezed = num_frames // factor
        valid_BQ: Tensor | None = None
        if valid_BT is not None:
            hidden_BTH = hidden_BTH.masked_fill(~valid_BT[:, :, None], 0.0)
            groups_BQF = self._groups(valid_BT[:, :, None])[..., 0]
            valid_BQ = groups_BQF.all(-1) if exact else groups_BQF.any(-1)
        positions_BQH = self.pos_conv_embed(hidden_BTH, num_squeezed)
        hidden_BQH = self._groups(hidden_BTH).mean(2) + positions_BQH
        if valid_BQ is not None and exact:
            hidden_BQH = hidden_BQH.masked_fill(~valid_BQ[:, :, None], 0.0)
        hidden_BQH, weights = self.encoder(hidden_BQH, valid_BQ, states, with_weights, exact)
        stretched_BTH = self.upsample(hidden_BQH)
        if valid_BQ is not None and exact:
            stretched_BTH = stretched_BTH.masked_fill(~valid_BQ.repeat_interleave(factor, 1)[:, :, None], 0.0)
        return F.pad(stretched_BTH, (0, 0, 0, num_frames - num_squeezed * factor)), weights

    def _groups(self, x_BTH: Tensor) -> Tensor:
        """Return (B, Q, F, H), the frames of whole groups."""
        factor = self.config.squeeze_factor
        batch, num_frames, width = x_BTH.shape
        num_squeezed = num_frames // factor
        if torch.compiler.is_compiling():  # a slice would ask whether a frame is left over, which stays open
            whole_BTH = x_BTH.index_select(1, torch.arange(num_squeezed * factor, device=x_BTH.device))
        else:
            whole_BTH = x_BTH[:, : num_squeezed * factor]
        return whole_BTH.reshape(batch, num_squeezed, factor, width)


class SEWDPreTrainedModel(WaveformModel):
    """What all SEW-D models share: lengths, and how weights are first drawn."""

    config_class: ClassVar[type[Config]] = SEWDConfig
    base_model_prefix: ClassVar[str] = "sew_d"
    training_only: ClassVar[tuple[str, ...]] = ("masked_spec_embed",)
    config: SEWDConfig

    def build_base(self) -> "SEWDModel":
        """Make the model that a head stands on."""
        return SEWDModel(self.config)

    @property
    def min_samples(self) -> int:
        """Samples of the shortest input, which gives one squeezed frame."""
        first = receptive_samples(self.config.conv_kernel, self.config.conv_stride)
        return first + (self.config.squeeze_factor - 1) * self.frame_stride

    @property
    def hidden_stride(self) -> int:
        """Samples from one frame of `hidden_states`, which are squeezed, to the next."""
        return self.frame_stride * self.config.squeeze_factor

    def num_hidden_frames(self, num_samples: Count) -> Count:
        """Return the squeezed frames that inputs of these numbers of samples give."""
        return self.num_frames(num_samples) // self.config.squeeze_factor

    def _init_module(self, module: nn.Module) -> None:
        match module:
            case SEWDModel() if module.masked_spec_embed is not None:
                nn.init.uniform_(module.masked_spec_embed)
            case nn.Embedding():
                nn.init.normal_(module.weight, std=self.config.initializer_range)
            case nn.Conv1d():
                nn.init.kaiming_normal_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            case _:
                super()._init_module(module)


class SEWDModel(SEWDPreTrainedModel):
    """The encoder without a head."""

    outputs: ClassVar[tuple[str, ...]] = ("Embedding",)

    def __init__(self, config: SEWDConfig) -> None:
        super().__init__(config)
        self.masked_spec_embed: nn.Parameter | None = None
        if config.mask_time_prob > 0.0 or config.mask_feature_prob > 0.0:
            self.masked_spec_embed = nn.Parameter(torch.rand(config.hidden_size))
        self.feature_extractor = FeatureEncoder(
            config.conv_dim,
            config.conv_kernel,
            config.conv_stride,
            bias=config.conv_bias,
            norm=config.feat_extract_norm,
            act=config.feat_extract_activation,
        )
        self.layer_norm = nn.LayerNorm(config.conv_dim[-1], eps=config.feature_layer_norm_eps)
        self.feature_projection: nn.Linear | None = None
        if config.conv_dim[-1] != config.hidden_size:
            self.feature_projection = nn.Linear(config.conv_dim[-1], config.hidden_size)
        self.encoder = SEWDEncoder(config)

    def forward(
        self,
        input_values: Tensor,
        attention_mask: Tensor | None = None,
        mask_time_indices: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> ModelOutput | tuple[Any, ...]:
        """Encode waveforms.

        Args:
            input_values: (B, S) normalised samples.
            attention_mask: (B, S), nonzero where a sample is part of its row, on the left; None: all of them.
            mask_time_indices: (B, T), true where a frame is replaced by the learned mask.
            output_attentions: Ask for `attentions`, (B, A, Q, Q) for each layer; None: as the configuration says.
            output_hidden_states: Ask for `hidden_states`, (B, Q, H) before the first layer and after each, where Q is
                `T // squeeze_factor`: `last_hidden_state` (B, T, H) is made of the last of them.
            return_dict: False gives a plain tuple.
        """
        output = self.encode(input_values, attention_mask, mask_time_indices, output_attentions, output_hidden_states)
        return self.returned(output, return_dict)

    def encode(
        self,
        waves_BS: Tensor,
        mask_BS: Tensor | None = None,
        mask_time_indices: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        states: States | None = None,
    ) -> BaseModelOutput:
        """Do what `forward` does, and always return the named output; `states` takes hidden states, too."""
        self.check_inputs(waves_BS, mask_BS)
        if waves_BS.shape[1] < self.min_samples:
            raise RuntimeError(f"input has {waves_BS.shape[1]} samples, the model needs at least {self.min_samples}")
        with_weights = asked(output_attentions, self.config.output_attentions)
        kept = KeptStates(states) if asked(output_hidden_states, self.config.output_hidden_states) else None
        exact = self.padding == "exact"
        features_BTC = self.feature_extractor(waves_BS, mask_BS.sum(-1) if mask_BS is not None and exact else None)
        hidden_BTH = self.layer_norm(features_BTC)
        if self.feature_projection is not None:
            hidden_BTH = self.feature_projection(hidden_BTH)
        hidden_BTH = F.dropout(hidden_BTH, self.config.feat_proj_dropout, self.training)
        valid_BT: Tensor | None = None
        if mask_BS is not None:
            valid_BT = self._get_feature_vector_attention_mask(hidden_BTH.shape[1], mask_BS)
        # The original draws its spans over padding, too.
        drawn_over_BT = valid_BT if exact else None
        hidden_BTH = augmented(
            hidden_BTH, self.config, self.masked_spec_embed, mask_time_indices, drawn_over_BT, self.training
        )
        hidden_BTH, weights = self.encoder(hidden_BTH, valid_BT, states if kept is None else kept, with_weights, exact)
        return BaseModelOutput(
            last_hidden_state=hidden_BTH,
            hidden_states=None if kept is None else tuple(kept),
            attentions=weights if with_weights else None,
        )


class SEWDForCTC(ForCTC, SEWDPreTrainedModel):
    """The encoder with a linear head over the vocabulary; `pad_token_id` is the blank."""


class SEWDForSequenceClassification(ForSequenceClassification, SEWDPreTrainedModel):
    """The encoder with classes over the mean of its frames."""

    def _pooled_frames(self, num_frames: int, mask_BS: Tensor) -> Tensor:
        """Return valid_BT; a sum over layers has squeezed frames, which the original counts as if they were not."""
        if self.layer_weights is None or self.padding == "reference":
            return self._get_feature_vector_attention_mask(num_frames, mask_BS)
        return self._valid_frames(self.num_hidden_frames(mask_BS.sum(-1)), num_frames)
