"""Attention of all rows of a pack at once: that of each row alone, to the last bit whatever is beside it."""

import logging

import pytest
import torch
from torch.nn.attention.flex_attention import flex_attention

from raysp.models.encoder import fused_attention
from raysp.models.encoder.fused_attention import Lookup
from raysp.models.encoder.packed_attention import BLOCK_FRAMES, attended, kernel_of_rows
from raysp.models.kernels.row_tables import RowTables
from tests.models.encoder.flexible import flexible_attention

HEADS, WIDTH, COLUMNS, SCALE, SIZE, ROWS = 2, 16, 9, 0.3, 512, 6
COUNTS = (70, 1, 64, 129, 3)


def tables_of(counts, *, size: int = SIZE, fewer_keys: int = 0) -> RowTables:
    absent = [0] * (ROWS - len(counts))
    slots = torch.tensor([*(count + 2 for count in counts), *absent])
    tables = RowTables.of(torch.tensor([*counts, *absent]), slots, size)
    return tables.with_keys((tables.counts_R - fewer_keys).clamp(min=0)) if fewer_keys else tables


def row(number: int, count: int) -> list[torch.Tensor]:
    """Return queries, keys, values and the products of queries and of keys of a row."""
    draw = torch.Generator().manual_seed(number)
    return [torch.randn(1, HEADS, count, width, generator=draw) for width in (*[WIDTH] * 3, *[COLUMNS] * 2)]


def pack(rows, tables: RowTables, outside: float) -> list[torch.Tensor]:
    """Return the same of a pack, with a value between rows and behind them."""
    found = [torch.full((1, HEADS, tables.size, part.shape[-1]), outside) for part in rows[0]]
    for parts, begin in zip(rows, tables.begins_R.tolist(), strict=False):
        for x, part in zip(found, parts, strict=True):
            x[:, :, begin : begin + part.shape[2]] = part
    return found


def columns() -> torch.Tensor:
    return torch.arange(-5, 6).clamp(-5, 3) + 5


def lookup_of(of_queries: torch.Tensor, of_keys: torch.Tensor, terms: str) -> Lookup | None:
    return Lookup(columns(), of_queries if "q" in terms else None, of_keys if "k" in terms else None) if terms else None


def plain(parts, terms: str, keys: int) -> torch.Tensor:
    """Return the attention of a row alone by a table of distances."""
    q, k, v, of_queries, of_keys = parts
    scores, frames = q @ k.transpose(2, 3) * SCALE, torch.arange(q.shape[2])
    columns = (frames - frames[:, None]).clamp(-5, 3) + 5
    if "q" in terms:
        scores += of_queries[:, :, frames[:, None], columns]
    if "k" in terms:
        scores += of_keys[:, :, frames, columns]
    return (scores[..., :keys].softmax(-1) @ v[:, :, :keys]).transpose(1, 2).flatten(2)


def results(
    rows, terms: str, kernel, *, fewer_keys: int = 0, size: int = SIZE, outside: float = torch.nan
) -> list[torch.Tensor]:
    """Return the attended frames of each row of a pack."""
    counts = [parts[0].shape[2] for parts in rows]
    tables = tables_of(counts, size=size, fewer_keys=fewer_keys)
    q, k, v, of_queries, of_keys = pack(rows, tables, outside)
    found = attended(q, k, v, tables, lookup_of(of_queries, of_keys, terms), SCALE, kernel)
    assert found.shape == (1, size, HEADS * WIDTH)
    begins = tables.begins_R.tolist()
    return [found[:, begin : begin + count] for begin, count in zip(begins, counts, strict=False)]


@pytest.mark.parametrize("fewer_keys", [0, 1])
@pytest.mark.parametrize("terms", ["", "q", "k", "qk"])
def test_each_row_has_the_attention_that_it_has_alone(terms, fewer_keys):
    rows = [row(number, count) for number, count in enumerate(COUNTS)]
    found = results(rows, terms, flexible_attention, fewer_keys=fewer_keys)
    for parts, one in zip(rows, found, strict=True):
        expected = plain(parts, terms, max(1, parts[0].shape[2] - fewer_keys))
        torch.testing.assert_close(one, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("terms", ["", "qk"])
def test_a_row_has_the_same_bits_beside_any_rows(terms):
    rows = [row(number, count) for number, count in enumerate(COUNTS)]
    alone = [results([parts], terms, flexible_attention)[0] for parts in rows]
    broken = [torch.full_like(part, torch.nan) for part in row(9, 80)]
    for order in [(0, 1, 2, 3, 4), (4, 3, 2, 1, 0), (2, 0)]:
        given = [rows[number] for number in order]
        found = results([broken, *given], terms, flexible_attention)[1:]
        assert all(torch.equal(one, alone[number]) for one, number in zip(found, order, strict=True))


def test_each_block_reads_the_blocks_of_its_row_in_order():
    layout = tables_of((70, 1, 0, 129)).layout(multiple=BLOCK_FRAMES)
    _, numbers, indices = layout.key_blocks
    read = [indices[block, :number].tolist() for block, number in enumerate(numbers.tolist())]
    assert read[:8] == [[0, 1], [0, 1], [2], [], [4, 5, 6], [4, 5, 6], [4, 5, 6], []]
    assert not any(read[8:])
    assert indices.max() < layout.length // BLOCK_FRAMES == len(numbers)


@pytest.mark.slow
def test_the_kernel_of_torch_gives_the_attention_of_plain_products_and_is_traced_a_few_times_for_all_sizes():
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    kernel = torch.compile(flex_attention, backend="eager", dynamic=True, fullgraph=True)
    rows = [row(number, count) for number, count in enumerate(COUNTS)]
    with torch.inference_mode():
        for size, given in [(512, rows), (768, rows[:2]), (512, rows[1:4]), (1024, rows[:1])]:
            found = results(given, "qk", kernel, size=size, outside=0.0)  # without a compiler it reads all blocks
            for parts, one in zip(given, found, strict=True):
                torch.testing.assert_close(one, plain(parts, "qk", parts[0].shape[2]), rtol=1e-4, atol=1e-5)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] <= 4
    torch._dynamo.reset()


@pytest.fixture
def tried(monkeypatch, caplog):
    """Return a function that tries a kernel as that of a device, with the warnings of it."""
    caplog.set_level(logging.WARNING)

    def kernel_of_device(kernel):
        kernel_of_rows.cache_clear()
        monkeypatch.setattr(fused_attention, "compiled", lambda _: kernel)
        return kernel_of_rows(torch.device("cpu"), torch.float32, WIDTH), caplog.text

    yield kernel_of_device
    kernel_of_rows.cache_clear()


def test_a_kernel_whose_trial_is_right_is_used(tried):
    assert tried(flexible_attention) == (flexible_attention, "")


def test_a_kernel_that_reads_other_rows_is_not_used_and_a_warning_says_so(tried):
    def of_all_rows(q, k, v, *, block_mask, **options):
        return flexible_attention(q, k, v, **options)

    kernel, warnings = tried(of_all_rows)
    assert kernel is None
    assert "rows of packs go through attention one after another, since torch's kernel for it cannot" in warnings
    assert "its results differ from plain products" in warnings
