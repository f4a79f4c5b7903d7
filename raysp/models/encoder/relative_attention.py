"""Attention whose scores have a bias by the distance of frames (Shaw et al. 2018; He et al. 2021, DeBERTa, section 3).

A bias (B, A, T, T) is the largest tensor of a layer. It is computed for a few rows or heads at a time, so that it stays
in the cache: on a CPU it is overwritten by their scores and weights; on a GPU `scaled_dot_product_attention` receives
it. With gradients it is computed whole. It is read from the product of frames with a table
of distances, or is a skewed view of it (Dai et al. 2019, appendix B); no tensor is (T, T, D).

Legend: B batch, T frames, A attention heads, D head, R rows of a table of distances, W distances of T frames (2T - 1),
I some of the queries, N distances between them and all frames (I + T - 1).
"""

from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import TypeAlias, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from raysp.models.base.kernels import attention_with_dropout, dropped

Value = TypeVar("Value")


Bias: TypeAlias = Callable[[slice, slice], Tensor]
"""Function of rows and heads that returns their bias (B', A', T, T) by the distance of frames, in writable memory."""
BiasOf: TypeAlias = Callable[[slice, slice], Bias]
"""Function of the places of queries and of keys that returns their bias."""

BLOCK_SCORES = 1 << 18  # 1 MB of float32, the second-level cache of a core
BLOCK_SCORES_OF_GPUS = 1 << 24  # 32 MB of half precision, which the caches of data-centre GPUs hold
TILE_FRAMES = 96  # fewer: products too thin to be fast; more: too wide


def attend(
    q_BATD: Tensor,
    k_BATD: Tensor,
    v_BATD: Tensor,
    bias: Bias,
    keys_B11T: Tensor | None,
    *,
    scale: float,
    dropout: float = 0.0,
) -> Tensor:
    """Return mixed_BATD: values weighted by the softmax of `q k^T scale + bias` over unmasked keys."""
    batch, heads, num_frames, _ = q_BATD.shape
    if torch.is_grad_enabled():
        return _mixed_at_once(q_BATD, k_BATD, v_BATD, bias(slice(None), slice(None)), keys_B11T, scale, dropout)
    is_on_cpu = q_BATD.device.type == "cpu"
    mix, most = (_mixed, BLOCK_SCORES) if is_on_cpu else (_mixed_at_once, BLOCK_SCORES_OF_GPUS)
    mixed_BATD = torch.empty_like(q_BATD.transpose(1, 2)).transpose(1, 2)
    for rows, some in _blocks(batch, heads, num_frames, most):
        q, k, v = (x[rows, some] for x in (q_BATD, k_BATD, v_BATD))
        keys = None if keys_B11T is None else keys_B11T[rows]
        mixed_BATD[rows, some] = mix(q, k, v, bias(rows, some), keys, scale, dropout)
    return mixed_BATD


def _mixed_at_once(
    q_BATD: Tensor,
    k_BATD: Tensor,
    v_BATD: Tensor,
    bias_BATT: Tensor,
    keys_B11T: Tensor | None,
    scale: float,
    dropout: float,
) -> Tensor:
    """Return mixed_BATD by one kernel; overwrites the bias."""
    # Contiguous: GPU kernels expect aligned rows of a bias, unlike the rows of a skewed view.
    masked_BATT = _masked(bias_BATT.contiguous(), keys_B11T)
    return attention_with_dropout(q_BATD, k_BATD, v_BATD, masked_BATT, dropout, scale)


def _mixed(
    q_BATD: Tensor,
    k_BATD: Tensor,
    v_BATD: Tensor,
    bias_BATT: Tensor,
    keys_B11T: Tensor | None,
    scale: float,
    dropout: float,
) -> Tensor:
    """Return mixed_BATD of a block that stays in the cache, where plain products are fastest; overwrites the bias."""
    if q_BATD.dtype != torch.float32:  # sums of scores need more precision
        masked_BATT = _masked(bias_BATT, keys_B11T)
        return F.scaled_dot_product_attention(q_BATD, k_BATD, v_BATD, masked_BATT, dropout, scale=scale)
    q_NTD, k_NTD, v_NTD = (x.flatten(0, 1) for x in (q_BATD, k_BATD, v_BATD))
    scores_BATT = bias_BATT.contiguous()
    scores_BATT.flatten(0, 1).baddbmm_(q_NTD, k_NTD.transpose(1, 2), alpha=scale)
    weights_BATT = dropped(_masked(scores_BATT, keys_B11T).softmax(-1), dropout)
    return torch.bmm(weights_BATT.flatten(0, 1), v_NTD).view_as(q_BATD)


def attention_weights(
    q_BATD: Tensor, k_BATD: Tensor, bias: Bias | None, keys_B11T: Tensor | None, *, scale: float
) -> Tensor:
    """Return weights_BATT, the softmax inside `attend`."""
    scores_BATT = q_BATD @ k_BATD.transpose(2, 3) * scale
    if bias is not None:
        scores_BATT = scores_BATT + bias(slice(None), slice(None))
    return _masked(scores_BATT, keys_B11T).softmax(-1)


def _masked(scores_BATT: Tensor, keys_B11T: Tensor | None) -> Tensor:
    return scores_BATT if keys_B11T is None else scores_BATT.masked_fill_(~keys_B11T, -torch.inf)


def _blocks(batch: int, heads: int, num_frames: int, most: int) -> Iterator[tuple[slice, slice]]:
    """Yield rows, or heads of a row, of at most `most` scores, but at least one head."""
    num_rows = max(1, most // max(1, heads * num_frames**2))
    num_heads = min(heads, max(1, most // max(1, num_frames**2)))
    for row in range(0, batch, num_rows):
        for head in range(0, heads, num_heads):
            yield slice(row, row + num_rows), slice(head, head + num_heads)


def gathered(product_BATR: Tensor, index_TT: Tensor) -> Tensor:
    """Return each query's products with the table rows of its keys."""
    return product_BATR.gather(-1, index_TT.expand(*product_BATR.shape[:2], -1, -1))


def skewed(product_BAIN: Tensor) -> Tensor:
    """View a product with N distances as (B, A, I, T), at i, j that with `j - i`; 0, 0 has the I-th distance."""
    batch, heads, num_asking, width = product_BAIN.shape
    product_BAIN = product_BAIN.contiguous()
    strides = (heads * num_asking * width, num_asking * width, width - 1, 1)
    offset = product_BAIN.storage_offset() + num_asking - 1
    return product_BAIN.as_strided((batch, heads, num_asking, width - num_asking + 1), strides, offset)


def of_distances(frames_BATD: Tensor, table_AWD: Tensor) -> Tensor:
    """Return the product of frame i with the row of a table for `j - i` at i, j, in memory of its own.

    The table has the distances of T frames or more, in order from the furthest before. On a CPU without gradients tiles
    of frames are computed, each of which needs the product with little more than T rows; else all are viewed at once.
    """
    batch, heads, num_frames, _ = frames_BATD.shape
    beyond = (table_AWD.shape[1] + 1) // 2 - num_frames  # distances to either side that do not occur
    table_AWD = table_AWD[:, beyond : table_AWD.shape[1] - beyond]
    if frames_BATD.device.type != "cpu" or torch.is_grad_enabled():
        return skewed(frames_BATD @ table_AWD.transpose(1, 2)).contiguous()
    size = -(-num_frames // -(-num_frames // TILE_FRAMES))
    bias_BATT = frames_BATD.new_empty(batch, heads, num_frames, num_frames)
    for start in range(0, num_frames, size):
        stop = min(start + size, num_frames)
        near_AND = table_AWD[:, num_frames - stop : 2 * num_frames - 1 - start]
        bias_BATT[:, :, start:stop] = skewed(frames_BATD[:, :, start:stop] @ near_AND.transpose(1, 2))
    return bias_BATT


def bias_of_products(frames_BATD: Tensor, distances_of: Callable[[int], Tensor]) -> BiasOf:
    """Return the products of frames with the keys (A, W, D) of their distances, which `distances_of` returns for T."""

    def bias_of(queries: slice, keys: slice) -> Bias:
        asking_BATD, num_keys = frames_BATD[:, :, queries], keys.stop - keys.start
        distances_AWD = distances_of(queries.stop - queries.start)
        return lambda rows, heads: of_distances(asking_BATD[rows, heads], distances_AWD[heads])[..., :num_keys]

    return bias_of


def by_distance(values_W: Tensor) -> Tensor:
    """Return values_TT: at i, j the value of `values_W` for `j - i`, in order from `1 - T` to `T - 1`."""
    num_frames = (values_W.shape[0] + 1) // 2
    return values_W.unfold(0, num_frames, 1).flip(0)


def once(make: Callable[[], Value]) -> Callable[[], Value]:
    """Return a function that computes a value at its first call and returns the same value later."""
    made: list[Value] = []

    def kept() -> Value:
        if not made:
            made.append(make())
        return made[0]

    return kept


def clipped_distances(num_frames: int, left: int, right: int, device: torch.device) -> Tensor:
    """Return index_TT into a table of the distances `j - i`, clipped to `-left` and `right`."""
    distance_W = torch.arange(1 - num_frames, num_frames, device=device)
    return by_distance(distance_W.clamp(-left, right) + left)


@lru_cache(maxsize=64)
def log_buckets(num_frames: int, num_buckets: int, max_distance: int) -> Tensor:
    """Return buckets_W of the distances `i - j`, listed from `T - 1` down to `1 - T`.

    Half of the buckets hold one distance each, the other half grow (He et al. 2021, appendix A.5); without buckets each
    distance is its own. Always computed in float32 on a CPU with the operations of the original: another rounding at a
    boundary would select another embedding.
    """
    with torch.inference_mode(False), torch.device("cpu"):
        distance_W = torch.arange(num_frames - 1, -num_frames, -1)
        if num_buckets <= 0 or max_distance <= 0:
            return distance_W
        middle = num_buckets // 2
        near_W = (distance_W < middle) & (distance_W > -middle)
        size_W = torch.where(near_W, torch.tensor(middle - 1), distance_W.abs())
        steps_W = torch.log(size_W / middle) / torch.log(torch.tensor((max_distance - 1) / middle)) * (middle - 1)
        far_W = (torch.ceil(steps_W) + middle) * torch.sign(distance_W)
        return torch.where(size_W <= middle, distance_W.type_as(far_W), far_W).long()
