"""Layers and sums over the rows of a pack: values of each row alone, with the same bits at any place."""

import functools
import itertools
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F

from raysp.models.kernels.row_tables import RowTables, centred, inputs_inside, of_slots, row_sums, strided, with_gaps

SIZE, MOST_ROWS = 64, 6
ORDERS = [(0, 1, 2, 3), (3, 1), (2, 0, 1), (2,)]


def rows_of(inputs: int, channels: int = 3) -> list[torch.Tensor]:
    """Return rows (S, C) of which a frame has so many inputs, the last ones of a row in no whole frame."""
    counts = (7, 1, 12, 4)
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(count * inputs - (inputs > 1), channels, generator=generator) for count in counts]


def pack_of(rows: list[torch.Tensor], inputs: int) -> tuple[torch.Tensor, torch.Tensor, RowTables]:
    """Return (1, S, C) with NaN outside of rows, the numbers of inputs, and the places of the rows."""
    counts = [-(-len(row) // inputs) for row in rows]
    slots = [count + number % 2 for number, count in enumerate(counts)]
    values = torch.full((1, SIZE * inputs, rows[0].shape[1]), torch.nan)
    for row, begin in zip(rows, itertools.accumulate(slots, initial=0), strict=False):
        values[0, begin * inputs : begin * inputs + len(row)] = row
    padding = [0] * (MOST_ROWS - len(rows))
    tables = RowTables.of(torch.tensor([*counts, *padding]), torch.tensor([*slots, *padding]), SIZE)
    return values, torch.tensor([*map(len, rows), *padding]), tables


def split(values: torch.Tensor, tables: RowTables, lengths: list[int], outputs: int = 1) -> list[torch.Tensor]:
    begins = [begin * outputs for begin in tables.begins_R.tolist()]
    return [values[begin : begin + length] for begin, length in zip(begins, lengths, strict=False)]


def convolution(taps: int, stride: int, padding: int) -> Callable[[torch.Tensor], torch.Tensor]:
    """Return a depthwise convolution of sums in one order, whatever the place of a frame."""
    weight = torch.randn(taps, 3, generator=torch.Generator().manual_seed(2))

    def convolved(x: torch.Tensor) -> torch.Tensor:
        windows = F.pad(x, (0, 0, padding, padding)).unfold(1, taps, stride)
        return functools.reduce(torch.add, (windows[..., tap] * weight[tap] for tap in range(taps)))

    return convolved


def assert_same_in_all_orders(rows, expected, found_in):
    """Check values against those of each row alone, and their bits in packs of some orders."""
    alone = [found_in([row])[0] for row in rows]
    for one, other in zip(alone, expected, strict=True):
        torch.testing.assert_close(one, other)
    for order in ORDERS:
        for row, found in zip(order, found_in([rows[row] for row in order]), strict=True):
            assert torch.equal(found, alone[row])


@pytest.mark.parametrize(("inputs", "stride", "taps"), [(1, 1, 5), (1, 1, 9), (4, 2, 3), (4, 4, 9)])
def test_a_convolution_reads_zeros_around_each_row(inputs, stride, taps):
    rows = rows_of(inputs)
    outputs = inputs // stride
    convolved = convolution(taps, stride, taps // 2)

    def found_in(chosen):
        values, num_inputs, tables = pack_of(chosen, inputs)
        inside = inputs_inside(num_inputs, tables, inputs).view(1, -1, 1)
        values = values.where(inside, 0.0) if inputs > 1 else values
        found = with_gaps(convolved, values, of_slots(tables) if inputs > 1 else tables, taps // 2)
        return split(found[0], tables, [-(-len(row) // stride) for row in chosen], outputs)

    assert_same_in_all_orders(rows, [convolved(row[None])[0] for row in rows], found_in)


@pytest.mark.parametrize(("kernel", "stride", "padding"), [(3, 2, 1), (4, 3, 1), (3, 1, 1), (8, 8, 4)])
def test_strides_begin_at_each_row(kernel, stride, padding):
    rows = [row for row in rows_of(1) if len(row) + 2 * padding >= kernel]
    convolved = convolution(kernel, stride, padding)

    def found_in(chosen):
        values, _, tables = pack_of(chosen, 1)
        found = strided(convolved, values, tables, stride, padding)
        return split(found[0], tables, [(len(row) + 2 * padding - kernel) // stride + 1 for row in chosen])

    expected = [convolved(row[None])[0] for row in rows]
    alone = [found_in([row])[0] for row in rows]
    for one, other in zip(alone, expected, strict=True):
        torch.testing.assert_close(one, other)
    for chosen in itertools.permutations(range(len(rows)), 2):
        for row, found in zip(chosen, found_in([rows[row] for row in chosen]), strict=True):
            assert torch.equal(found, alone[row])


@pytest.mark.parametrize("inputs", [1, 4])
def test_rows_are_centred_by_their_own_inputs(inputs):
    rows = rows_of(inputs)

    def found_in(chosen):
        values, num_inputs, tables = pack_of(chosen, inputs)
        found, squares = centred(values.view(SIZE, inputs, -1), num_inputs, tables)
        outside = ~inputs_inside(num_inputs, tables, inputs)
        assert bool((found[outside] == 0).all())
        of_rows = split(found.flatten(0, 1), tables, [*map(len, chosen)], inputs)
        return [torch.cat([row, one[None]]) for row, one in zip(of_rows, squares.float(), strict=False)]

    expected = [torch.cat([row - row.mean(0), (row - row.mean(0)).square().sum(0)[None]]) for row in rows]
    assert_same_in_all_orders(rows, expected, found_in)


def test_sums_over_rows_leave_absent_rows_at_zero():
    values, _, tables = pack_of(rows_of(1), 1)
    sums = row_sums(values[0].masked_fill(~tables.inside_N[:, None], 0.0), tables)
    assert sums.shape == (MOST_ROWS, 3)
    torch.testing.assert_close(sums[:4], torch.stack([row.sum(0) for row in rows_of(1)]))
    assert not sums[4:].any()
