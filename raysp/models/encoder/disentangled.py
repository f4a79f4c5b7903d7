"""Disentangled self-attention (He et al. 2021, DeBERTa, arXiv:2006.03654, section 3.1), as SEW-D has it.

Legend: B batch, Q frames, H hidden, A attention heads, D head, R rows of the table of distances, W distances of Q
frames (2Q - 1), N frames of all rows, or rows of a table in the order of reading.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial

import torch
from torch import Tensor, nn

from raysp.models.base.folded import Folded
from raysp.models.base.kernels import dense, dropped
from raysp.models.base.row_layout import Layout
from raysp.models.encoder.relative_attention import (
    Bias,
    BiasOf,
    log_buckets,
    of_distances,
    once,
)
from raysp.models.encoder.transformer import WaveformConfig, attended


class DisentangledConfig(WaveformConfig):
    """Fields that the attention reads, with the defaults of `SEWDConfig` in transformers."""

    max_position_embeddings: int = 512
    position_buckets: int = 256
    share_att_key: bool = True
    relative_attention: bool = True
    pos_att_type: tuple[str, ...] = ("p2c", "c2p")

    @property
    def furthest_distance(self) -> int:
        """Distance in frames from which on all share the last bucket."""
        distance: int = getattr(self, "max_relative_positions", -1)
        return distance if distance >= 1 else self.max_position_embeddings

    @property
    def distance_span(self) -> int:
        """Rows of the table of distances to one side."""
        return self.position_buckets if self.position_buckets > 0 else self.furthest_distance


@dataclass(frozen=True)
class Distances:
    """The table of distances, and the row of it that each distance reads."""

    table_RH: Tensor
    row_W: Tensor
    """Row for `j - i` from `1 - Q` to `Q - 1`, with i the query and j the key."""

    @classmethod
    def of(cls, config: DisentangledConfig, table_RH: Tensor, num_squeezed: int) -> "Distances":
        """Look up the rows of `table_RH` (2 * `config.distance_span`, H) for a number of frames."""
        buckets = (num_squeezed, config.position_buckets, config.furthest_distance)
        return cls(table_RH, _rows_of(buckets, config.distance_span, table_RH.device))


@lru_cache(maxsize=1024)
def _rows_of(buckets: tuple[int, int, int], span: int, device: torch.device) -> Tensor:
    """Return the row of a table for each distance, on a device."""
    # A table that is kept may serve a backward pass later, which inference tensors cannot.
    with torch.inference_mode(False):
        row_W = (log_buckets(*buckets) + span).clamp(0, 2 * span - 1)  # from the furthest before to the furthest after
        return row_W.to(device)  # the host waits: any stream may use it next


class DisentangledSelfAttention(nn.Module):
    """Attention by content, and by content to distance ("c2p") and distance to content ("p2c")."""

    def __init__(self, config: DisentangledConfig) -> None:
        super().__init__()
        self.config = config
        width = config.hidden_size
        self.query_proj = nn.Linear(config.hidden_size, width)
        self.key_proj = nn.Linear(config.hidden_size, width)
        self.value_proj = nn.Linear(config.hidden_size, width)
        self.has_c2p = "c2p" in config.pos_att_type
        self.has_p2c = "p2c" in config.pos_att_type
        # 1 / sqrt(3 D) for three terms: their sum has three times the variance (He et al. 2021, equation 4).
        self.scale = (config.hidden_size // config.num_attention_heads * (1 + self.has_c2p + self.has_p2c)) ** -0.5
        if config.relative_attention and not config.share_att_key:
            if self.has_c2p:
                self.pos_key_proj = nn.Linear(config.hidden_size, width)
            if self.has_p2c:
                self.pos_query_proj = nn.Linear(config.hidden_size, width)
        self._tables: Folded[tuple[Tensor, Tensor]] = Folded()

    def forward(
        self, hidden_BQH: Tensor, layout: Layout, distances: Distances | None, with_weights: bool
    ) -> tuple[Tensor, Tensor | None]:
        """Return the attended frames, and weights_BAQQ if requested.

        `distances` are for the longest row; None: attention by content alone.
        """
        q_BAQD, k_BAQD, v_BAQD = (
            self._heads(dense(projection, hidden_BQH))
            for projection in (self.query_proj, self.key_proj, self.value_proj)
        )
        bias_of: BiasOf | None = None
        if distances is not None and (self.has_c2p or self.has_p2c):
            bias_of = self._bias_of(q_BAQD, k_BAQD, distances)
        dropout = self.config.attention_dropout if self.training else 0.0
        return attended(
            q_BAQD, k_BAQD, v_BAQD, layout, bias_of, scale=self.scale, dropout=dropout, with_weights=with_weights
        )

    def _heads(self, x_BQE: Tensor) -> Tensor:
        heads = self.config.num_attention_heads
        return x_BQE.reshape(*x_BQE.shape[:-1], heads, x_BQE.shape[-1] // heads).transpose(-3, -2)

    def _bias_of(self, q_BAQD: Tensor, k_BAQD: Tensor, distances: Distances) -> BiasOf:
        tables = once(partial(self._tables_of, distances))

        def bias_of(queries: slice, keys: slice) -> Bias:
            return self._bias(q_BAQD[:, :, queries], k_BAQD[:, :, keys], tables)

        return bias_of

    def _tables_of(self, distances: Distances) -> tuple[Tensor, Tensor]:
        """Return keys and queries (A, W, D) of distances: of `j - i` and of `i - j`, with i the frame that reads."""
        keys_ARD, queries_ARD = self._position_tables(distances.table_RH)
        return keys_ARD.index_select(1, distances.row_W), queries_ARD.index_select(1, distances.row_W.flip(0))

    def _bias(self, q_BAQD: Tensor, k_BAQD: Tensor, tables: Callable[[], tuple[Tensor, Tensor]]) -> Bias:
        """Return a function of rows and heads for `q_i . key(i - j) + k_j . query(i - j)`, scaled.

        Both terms read the same row of the table, as `bucket(i - j) = -bucket(j - i)`.
        """
        if len(q_BAQD) > 1:  # one row is read where it stands
            q_BAQD, k_BAQD = q_BAQD.contiguous(), k_BAQD.contiguous()
        in_order = once(lambda: (q_BAQD.contiguous(), k_BAQD.contiguous(), *tables()))

        def bias(rows: slice, heads: slice) -> Tensor:
            q, k, keys_AWD, queries_AWD = in_order()
            if not self.has_c2p:
                return of_distances(k[rows, heads], queries_AWD[heads]).transpose(2, 3).contiguous()
            c2p = of_distances(q[rows, heads], keys_AWD[heads])
            if not self.has_p2c:
                return c2p
            return c2p.add_(of_distances(k[rows, heads], queries_AWD[heads]).transpose(2, 3))

        return bias

    def _position_tables(self, table_RH: Tensor) -> tuple[Tensor, Tensor]:
        """Return the scaled keys and queries (A, R, D) of distances."""
        share = self.config.share_att_key
        key_proj = self.key_proj if share or not self.has_c2p else self.pos_key_proj
        query_proj = self.query_proj if share or not self.has_p2c else self.pos_query_proj

        def project() -> tuple[Tensor, Tensor]:
            dropped_RH = dropped(table_RH, self.config.activation_dropout, self.training)
            keys_ARD, queries_ARD = (self._heads(proj(dropped_RH)) * self.scale for proj in (key_proj, query_proj))
            return keys_ARD, queries_ARD

        # Dropout draws other tables in each pass.
        if self.training:
            return project()
        weights = (table_RH, key_proj.weight, key_proj.bias, query_proj.weight, query_proj.bias)
        return self._tables(weights, project)
