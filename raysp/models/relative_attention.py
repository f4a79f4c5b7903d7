"""Attention whose scores have a bias by the distance of frames (Shaw et al. 2018; He et al. 2021, DeBERTa, section 3).

A bias (B, A, T, T) is larger than all else in a layer. It is made for a few rows or heads at a time, so that on a CPU
it never leaves the cache, and handed to `scaled_dot_product_attention`. It is read from the product of frames with a
table of distances, or is a skewed view of it (Dai et al. 2019, appendix B): nothing is ever (T, T, D).

Legend: B batch, T frames, A attention heads, D head, R rows of a table of distances, W distances of T frames (2T - 1).
"""

from collections.abc import Callable, Iterator
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

Bias = Callable[[slice, slice], Tensor]
"""Gives the bias (B', A', T, T) of some rows and heads, in memory that may be written to."""

BLOCK_SCORES = 1 << 18  # 1 MB of float32, the second-level cache of a core


def attend(
    q_BATD: Tensor,
    k_BATD: Tensor,
    v_BATD: Tensor,
    bias: Bias | None,
    keys_B11T: Tensor | None,
    *,
    scale: float,
    dropout: float = 0.0,
) -> Tensor:
    """Return mixed_BATD: values weighted by the softmax of `q k^T scale + bias` over the keys that count."""
    if bias is None:
        return F.scaled_dot_product_attention(q_BATD, k_BATD, v_BATD, keys_B11T, dropout, scale=scale)
    batch, heads, num_frames, _ = q_BATD.shape
    if q_BATD.device.type != "cpu" or torch.is_grad_enabled():
        # Contiguous, as kernels of a GPU want the rows of a bias aligned, which those of a skewed view are not.
        masked_BATT = _masked(bias(slice(None), slice(None)).contiguous(), keys_B11T)
        return F.scaled_dot_product_attention(q_BATD, k_BATD, v_BATD, masked_BATT, dropout, scale=scale)
    mixed_BATD = torch.empty_like(v_BATD.transpose(1, 2)).transpose(1, 2)
    for rows, some in _blocks(batch, heads, num_frames):
        q, k, v = (x[rows, some] for x in (q_BATD, k_BATD, v_BATD))
        masked = _masked(bias(rows, some), None if keys_B11T is None else keys_B11T[rows])
        mixed_BATD[rows, some] = F.scaled_dot_product_attention(q, k, v, masked, dropout, scale=scale)
    return mixed_BATD


def attention_weights(
    q_BATD: Tensor, k_BATD: Tensor, bias: Bias | None, keys_B11T: Tensor | None, *, scale: float
) -> Tensor:
    """Return weights_BATT, the softmax that `attend` does not show."""
    scores_BATT = q_BATD @ k_BATD.transpose(2, 3) * scale
    if bias is not None:
        scores_BATT = scores_BATT + bias(slice(None), slice(None))
    return _masked(scores_BATT, keys_B11T).softmax(-1)


def attended_keys(valid_BT: Tensor) -> Tensor | None:
    """Return which frames may be attended to, or None for all of them (known without waiting for a GPU)."""
    if valid_BT.device.type == "cpu" and bool(valid_BT.all()):
        return None
    first_T = torch.arange(valid_BT.shape[1], device=valid_BT.device) == 0
    return (valid_BT | first_T)[:, None, None]  # a row without frames attends to something, or it would give NaN


def _masked(scores_BATT: Tensor, keys_B11T: Tensor | None) -> Tensor:
    return scores_BATT if keys_B11T is None else scores_BATT.masked_fill_(~keys_B11T, -torch.inf)


def _blocks(batch: int, heads: int, num_frames: int) -> Iterator[tuple[slice, slice]]:
    """Cut a batch into rows, or a row into heads, of at most `BLOCK_SCORES` scores where one head is not more."""
    num_rows = max(1, BLOCK_SCORES // max(1, heads * num_frames**2))
    num_heads = min(heads, max(1, BLOCK_SCORES // max(1, num_frames**2)))
    for row in range(0, batch, num_rows):
        for head in range(0, heads, num_heads):
            yield slice(row, row + num_rows), slice(head, head + num_heads)


def gathered(product_BATR: Tensor, index_TT: Tensor) -> Tensor:
    """Return what each query's row of a product with a table holds for each key."""
    return product_BATR.gather(-1, index_TT.expand(*product_BATR.shape[:2], -1, -1))


def skewed(product_BATW: Tensor) -> Tensor:
    """View a product with the W distances from `1 - T` to `T - 1` as (B, A, T, T): at i, j that with `j - i`."""
    batch, heads, num_frames, width = product_BATW.shape
    product_BATW = product_BATW.contiguous()
    strides = (heads * num_frames * width, num_frames * width, width - 1, 1)
    offset = product_BATW.storage_offset() + num_frames - 1
    return product_BATW.as_strided((batch, heads, num_frames, num_frames), strides, offset)


def by_distance(values_W: Tensor) -> Tensor:
    """Return values_TT: at i, j what `values_W` has for `j - i`, which it lists from `1 - T` to `T - 1`."""
    num_frames = (len(values_W) + 1) // 2
    return values_W.unfold(0, num_frames, 1).flip(0)


def clipped_distances(num_frames: int, left: int, right: int, device: torch.device) -> Tensor:
    """Return index_TT into a table of the distances `j - i` from `-left` to `right`; those beyond count as these."""
    distance_W = torch.arange(1 - num_frames, num_frames, device=device)
    return by_distance(distance_W.clamp(-left, right) + left)


@lru_cache(maxsize=64)
def log_buckets(num_frames: int, num_buckets: int, max_distance: int) -> Tensor:
    """Return buckets_W of the distances `i - j`, listed from `T - 1` down to `1 - T`.

    Half of the buckets are one distance each, the others grow (He et al. 2021, appendix A.5); without buckets each
    distance is its own. Always in float32 on a CPU, operation by operation as the original has it: a boundary that
    falls on the other side of a rounding is another embedding.
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
