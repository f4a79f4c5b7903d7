"""Attention of all rows of a pack in one kernel of a GPU, by torch's `flex_attention` over blocks of places.

Each row begins at a block of its own. A block of queries reads the blocks of keys of its row, in their order: a row's
sums depend on the row alone, wherever it is in the pack and whatever is beside it. A bias by distance is read as in
`fused_attention`. torch compiles the kernel on the first use; where it cannot, or where a trial differs from plain
products, rows go one after another.

Legend: N frames of a pack, L places in blocks, A attention heads, D head, R columns of a product, W distances.
"""

import functools
from collections.abc import Callable

import torch
from torch import Tensor

from raysp.crossing import fetch
from raysp.models.encoder import fused_attention
from raysp.models.encoder.fused_attention import TOLERANCE, Kernel, Lookup, tried
from raysp.models.kernels.packing import Packing
from raysp.models.kernels.row_tables import RowLayout, RowTables

BLOCK_FRAMES = 64
"""Places of a block. More: rows of few frames leave more places empty; fewer: products too small for a GPU."""
TRIED_ROWS = (70, 1, 64, 129, 0)
"""Frames of the rows of a trial."""


def attended(
    q_1AND: Tensor,
    k_1AND: Tensor,
    v_1AND: Tensor,
    tables: RowTables,
    lookup: Lookup | None,
    scale: float,
    kernel: Kernel | None = None,
) -> Tensor:
    """Return mixed_1NH: values weighted by the softmax of `q k^T scale + bias` over the keys of each frame's row.

    Args:
        q_1AND: Queries of the frames of a pack.
        k_1AND: Keys.
        v_1AND: Values.
        tables: Places of rows.
        lookup: Bias, whose products are of frames of the pack; beyond its distances the last column counts. None: none.
        scale: Of the products.
        kernel: Kernel of the device; None: the one that was tried.
    """
    if kernel is None:
        kernel = kernel_of_rows(q_1AND.device, q_1AND.dtype, q_1AND.shape[-1])
    assert kernel is not None  # a pack has tables only with a kernel
    layout = tables.blocks(BLOCK_FRAMES)
    q_1ALD, k_1ALD, v_1ALD = (layout.taken(x.transpose(1, 2)).transpose(1, 2) for x in (q_1AND, k_1AND, v_1AND))
    mixed_1ALD = kernel(
        q_1ALD,
        k_1ALD,
        v_1ALD,
        score_mod=None if lookup is None else _bias_of(lookup, layout),
        block_mask=_block_mask(layout),
        scale=scale,
        kernel_options={"BLOCK_M": BLOCK_FRAMES, "BLOCK_N": BLOCK_FRAMES},
    )
    return layout.back(mixed_1ALD.transpose(1, 2).flatten(2))


def _bias_of(lookup: Lookup, layout: RowLayout) -> Callable[..., Tensor]:
    columns_W, of_queries, of_keys = lookup
    frames_L = layout.frames_L

    def score_mod(score: Tensor, _row: Tensor, head: Tensor, i: Tensor, j: Tensor) -> Tensor:
        reach = columns_W.shape[0] // 2
        column = columns_W[(j - i + reach).clamp(0, 2 * reach)]
        if of_queries is not None:
            score = score + of_queries[0, head, frames_L[i], column]
        if of_keys is not None:
            score = score + of_keys[0, head, frames_L[j], column]
        return score

    return score_mod


def _block_mask(layout: RowLayout) -> object:
    """Return a mask by which queries read the blocks of their row, and of these the keys."""
    from torch.nn.attention.flex_attention import BlockMask  # imports torch's compiler

    rows_L, (key_rows_L, numbers_Q, indices_QQ) = layout.rows_L, layout.key_blocks

    def mask_mod(_row: Tensor, _head: Tensor, i: Tensor, j: Tensor) -> Tensor:
        return key_rows_L[j] == rows_L[i]

    return BlockMask.from_kv_blocks(
        numbers_Q[None, None],
        indices_QQ[None, None],
        BLOCK_SIZE=BLOCK_FRAMES,
        mask_mod=mask_mod,
        compute_q_blocks=False,  # of gradients
    )


@functools.cache
def kernel_of_rows(device: torch.device, dtype: torch.dtype, head_size: int) -> Kernel | None:
    """Return the kernel of a GPU for heads of a size, tried once; None where torch has none, or where it is wrong."""
    is_right = functools.partial(_is_right, device=device, dtype=dtype, head_size=head_size)
    return tried(fused_attention.compiled(device), is_right, "rows of packs go through attention one after another")


def _is_right(kernel: Kernel, *, device: torch.device, dtype: torch.dtype, head_size: int) -> bool:
    """Return whether a kernel gives the attention of plain products, row by row."""
    draw, size = torch.Generator().manual_seed(0), 512
    sent = functools.partial(torch.Tensor.to, device=device, dtype=dtype)
    q, k, v = (sent(torch.randn(1, 3, size, head_size, generator=draw)) for _ in range(3))
    products = sent(torch.randn(1, 3, size, 9, generator=draw))
    columns_W = torch.arange(-5, 6).clamp(max=3).add(5).to(device)
    counts = torch.tensor(TRIED_ROWS)
    tables = RowTables.of(counts.to(device), (counts + 2).to(device), size)
    found = attended(q, k, v, tables, Lookup(columns_W, products, None), 0.125, kernel)
    packing = Packing.in_slots(TRIED_ROWS, [count + 2 for count in TRIED_ROWS], size)
    expected = []
    for place in packing.places:
        distance_TT = torch.arange(place.stop - place.start)[None] - torch.arange(place.stop - place.start)[:, None]
        index_TT = distance_TT.clamp(-5, 3).add(5).to(device).expand(1, 3, -1, -1)
        scores = q[:, :, place] @ k[:, :, place].transpose(2, 3) * 0.125 + products[:, :, place].gather(-1, index_TT)
        expected.append((scores.softmax(-1) @ v[:, :, place]).transpose(1, 2).flatten(2))
    rows = zip(packing.rows(found), expected, strict=True)
    [differs] = fetch(torch.cat([(one - other).flatten() for one, other in rows]).abs().max().float())
    return bool(differs <= TOLERANCE)
