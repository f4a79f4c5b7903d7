"""Disentangled self-attention (He et al. 2021, DeBERTa, arXiv:2006.03654, section 3.1), as SEW-D has it.

Legend: B batch, Q frames, H hidden, A attention heads, D head, R rows of the table of distances, W distances of Q
frames (2Q - 1), N frames of all rows, or rows of a table in the order of reading.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import Literal, Protocol

import torch
from torch import Tensor, nn

from raysp.models.base.folded import Folded
from raysp.models.base.kernels import dense, dropped
from raysp.models.base.row_layout import Layout
from raysp.models.encoder.relative_attention import (
    Bias,
    BiasOf,
    by_distance,
    gathered,
    log_buckets,
    once,
    skewed,
    tiled,
)
from raysp.models.encoder.transformer import attended


class DisentangledConfig(Protocol):
    """Fields of a configuration that the attention reads."""

    hidden_size: int
    num_attention_heads: int
    attention_dropout: float
    activation_dropout: float
    position_buckets: int
    pos_att_type: tuple[str, ...]
    relative_attention: bool
    share_att_key: bool

    @property
    def furthest_distance(self) -> int:
        """Distance in frames from which on all share the last bucket."""

    @property
    def distance_span(self) -> int:
        """Rows of the table of distances to one side."""


Reading = Literal["gathered", "tiled", "skewed"]
"""How biases are read: by an index into a product with the rows that occur, or as views of a product with a row for
each distance, in tiles or, where gradients or a GPU favour few operations, at once."""


@dataclass(frozen=True)
class Distances:
    """The table of distances, and the row of it that each pair of frames reads."""

    table_RH: Tensor
    rows: slice
    """Rows of the table that occur among the frames."""
    row_W: Tensor
    """Index into `rows` for `j - i` from `1 - Q` to `Q - 1`, with i the query and j the key."""
    reading: Reading
    """The reading with the smallest products."""
    index_QQ: Tensor
    """Row at i, j; used if gathered."""
    turned_QQ: Tensor
    """Row at j, i; used if gathered."""

    @classmethod
    def of(cls, config: DisentangledConfig, table_RH: Tensor, num_squeezed: int) -> "Distances":
        """Look up the rows of `table_RH` (2 * `config.distance_span`, H) for a number of frames."""
        span = config.distance_span
        buckets = (num_squeezed, config.position_buckets, config.furthest_distance)
        first, last, row_W = _rows_that_occur(buckets, span, table_RH.device)
        has_tiles = table_RH.device.type == "cpu" and not torch.is_grad_enabled()
        if last - first + 1 < (num_squeezed if has_tiles else len(row_W)):  # gathering has a cost of its own
            index_QQ, turned_QQ = by_distance(row_W), by_distance(row_W.flip(0))
            return cls(table_RH, slice(first, last + 1), row_W, "gathered", index_QQ, turned_QQ)
        return cls(table_RH, slice(first, last + 1), row_W, "tiled" if has_tiles else "skewed", row_W, row_W)

    def among(self, num_squeezed: int) -> "Distances":
        """Return the distances of the first frames alone."""
        if self.reading != "gathered":
            return self
        first = slice(num_squeezed), slice(num_squeezed)
        return replace(self, index_QQ=self.index_QQ[first], turned_QQ=self.turned_QQ[first])

    def laid_out(self, table_ARD: Tensor, *, turned: bool) -> Tensor:
        """Return table_AND, rows as they are read: each once, or one per distance `j - i` (`turned`: `i - j`)."""
        if self.reading == "gathered":
            return table_ARD[:, self.rows]
        return table_ARD[:, self.rows].index_select(1, self.row_W.flip(0) if turned else self.row_W)

    def read(self, x_BAQD: Tensor, table_AND: Tensor, *, turned: bool) -> Tensor:
        """Return the product of frame i with the row for `j - i` at i, j (`turned`: with the row for `i - j`)."""
        if self.reading == "gathered":
            return gathered(x_BAQD @ table_AND.transpose(1, 2), self.turned_QQ if turned else self.index_QQ)
        beyond = (table_AND.shape[1] + 1) // 2 - x_BAQD.shape[2]  # distances to either side that do not occur
        table_AWD = table_AND[:, beyond : table_AND.shape[1] - beyond]
        return tiled(x_BAQD, table_AWD) if self.reading == "tiled" else skewed(x_BAQD @ table_AWD.transpose(1, 2))


@lru_cache(maxsize=1024)
def _rows_that_occur(buckets: tuple[int, int, int], span: int, device: torch.device) -> tuple[int, int, Tensor]:
    """Return the first and the last row of the table among the frames, and row_W from the first on, on a device."""
    # A table that is kept may serve a backward pass later, which inference tensors cannot.
    with torch.inference_mode(False):
        row_W = (log_buckets(*buckets) + span).clamp(0, 2 * span - 1)  # from the furthest before to the furthest after
        first, last = int(row_W[-1]), int(row_W[0])
        return first, last, (row_W - first).to(device)  # the host waits: any stream may use it next


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

        `distances` are those of the longest row; None: attention by content alone.
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
            among = distances.among(queries.stop - queries.start)
            return self._bias(q_BAQD[:, :, queries], k_BAQD[:, :, keys], among, tables)

        return bias_of

    def _tables_of(self, distances: Distances) -> tuple[Tensor, Tensor]:
        keys_ARD, queries_ARD = self._position_tables(distances.table_RH)
        return distances.laid_out(keys_ARD, turned=False), distances.laid_out(queries_ARD, turned=True)

    def _bias(
        self, q_BAQD: Tensor, k_BAQD: Tensor, distances: Distances, tables: Callable[[], tuple[Tensor, Tensor]]
    ) -> Bias:
        """Return a function of rows and heads for `q_i . key(i - j) + k_j . query(i - j)`, scaled.

        Both terms read the same row of the table, as `bucket(i - j) = -bucket(j - i)`.
        """
        if len(q_BAQD) > 1:  # one row is read where it stands
            q_BAQD, k_BAQD = q_BAQD.contiguous(), k_BAQD.contiguous()
        in_order = once(lambda: (q_BAQD.contiguous(), k_BAQD.contiguous(), *tables()))

        def bias(rows: slice, heads: slice) -> Tensor:
            c2p = p2c = None
            q, k, keys_AND, queries_AND = in_order()
            if self.has_c2p:
                c2p = distances.read(q[rows, heads], keys_AND[heads], turned=False)
            if self.has_p2c:
                p2c = distances.read(k[rows, heads], queries_AND[heads], turned=True).transpose(2, 3)
            if c2p is None or p2c is None:
                return (p2c if c2p is None else c2p).contiguous()  # type: ignore[union-attr]
            return c2p + p2c if distances.reading == "skewed" else c2p.add_(p2c)  # a view must not be written to

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
