"""Index tables of the rows of a pack: places and values, and sizes that no row changes."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from raysp.models.kernels.row_tables import RowTables

ROWS, SIZE = 8, 96
PACKS = {
    "three rows": ([5, 1, 17], [6, 2, 20]),
    "rows without gaps, one without frames": ([9, 0, 4], [9, 1, 4]),
    "one row of all frames": ([96], [96]),
    "as many rows as a pack may have": ([1, 2, 3, 4, 5, 6, 7, 8], [12] * 8),
    "no row": ([], []),
}
"""Frames and slots of rows."""
LAYOUTS = [(0, 1), (3, 1), (0, 16), (5, 2)]


def tables_of(counts: list[int], slots: list[int]) -> RowTables:
    absent = [0] * (ROWS - len(counts))
    return RowTables.of(torch.tensor([*counts, *absent]), torch.tensor([*slots, *absent]), SIZE)


def frames(seed: int = 0) -> torch.Tensor:
    return torch.randn(1, SIZE, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def rows_of(x: torch.Tensor, begins: list[int], counts: list[int]) -> list[torch.Tensor]:
    return [x[:, begin : begin + count] for begin, count in zip(begins, counts, strict=False)]


@pytest.mark.parametrize(("gap", "multiple"), LAYOUTS)
@pytest.mark.parametrize("pack", PACKS)
def test_rows_are_at_their_places_with_zeros_around_them(pack, gap, multiple):
    counts, slots = PACKS[pack]
    tables = tables_of(counts, slots)
    layout, x = tables.layout(gap, multiple), frames()
    spread = layout.spread(x)
    assert spread.shape == (1, layout.length, 2)
    begins = layout.begins_R.tolist()[: len(counts)]
    own = rows_of(x, np.cumsum([0, *slots]).tolist(), counts)
    assert all(map(torch.equal, rows_of(spread, begins, counts), own))
    assert int(spread.count_nonzero()) == 2 * sum(counts)
    assert all(begin % multiple == 0 for begin in begins)
    ends = [*begins, layout.length][1:]
    assert all(begin + count + gap <= end for begin, count, end in zip(begins, counts, ends, strict=True))


@pytest.mark.parametrize(("gap", "multiple"), LAYOUTS)
@pytest.mark.parametrize("pack", PACKS)
def test_frames_come_back_from_their_places(pack, gap, multiple):
    tables, x = tables_of(*PACKS[pack]), frames()
    layout = tables.layout(gap, multiple)
    inside = tables.inside_N
    assert int(inside.sum()) == sum(PACKS[pack][0])
    assert torch.equal(layout.back(layout.spread(x))[:, inside], x[:, inside])


@pytest.mark.parametrize("pack", PACKS)
def test_places_of_no_row_are_not_read_and_those_behind_a_row_have_its_first_frame(pack):
    counts, slots = PACKS[pack]
    tables, x = tables_of(counts, slots), frames()
    x[:, ~tables.inside_N] = torch.nan
    layout = tables.layout(0, 16)
    assert not layout.spread(x).isnan().any()
    taken, begins = layout.taken(x), [*layout.begins_R.tolist(), layout.length]
    for row, (count, first) in enumerate(zip(counts, np.cumsum([0, *slots]).tolist(), strict=False)):
        behind = taken[:, begins[row] + count : begins[row + 1]]
        assert count == 0 or torch.equal(behind, x[:, first : first + 1].expand_as(behind))


@pytest.mark.parametrize(("gap", "multiple"), LAYOUTS)
def test_sizes_do_not_depend_on_rows(gap, multiple):
    found = set()
    for counts, slots in PACKS.values():
        tables = tables_of(counts, slots)
        layout = tables.layout(gap, multiple)
        both = {**vars(layout), "inside": tables.inside_N, "valid": tables.valid_N}
        found.add(tuple((name, one.shape) for name, one in both.items() if isinstance(one, torch.Tensor)))
    assert len(found) == 1


def test_a_convolution_over_rows_with_gaps_is_that_of_each_row():
    counts, slots = PACKS["three rows"]
    tables, x = tables_of(counts, slots), frames()
    weight = frames(1)[0, :5].T[:, None]
    layout = tables.layout(gap=2)

    def convolved(row):
        return F.conv1d(row.transpose(1, 2), weight, padding=2, groups=2).transpose(1, 2)

    found, begins = layout.back(convolved(layout.spread(x))), np.cumsum([0, *slots]).tolist()
    for row, own in zip(rows_of(found, begins, counts), rows_of(x, begins, counts), strict=True):
        torch.testing.assert_close(row, convolved(own))


def test_a_strided_convolution_reads_rows_that_begin_at_multiples():
    counts, slots = PACKS["three rows"]
    layout = tables_of(counts, slots).layout(gap=1, multiple=2)
    x, begins = frames(), np.cumsum([0, *slots]).tolist()
    pooled = F.avg_pool1d(layout.spread(x).transpose(1, 2), 2).transpose(1, 2)
    halves = [begin // 2 for begin in layout.begins_R.tolist()]
    for half, own in zip(halves, rows_of(x, begins, counts), strict=False):
        expected = F.avg_pool1d(F.pad(own.transpose(1, 2), (0, 1)), 2).transpose(1, 2)[:, : -(-own.shape[1] // 2)]
        torch.testing.assert_close(pooled[:, half : half + expected.shape[1]], expected)


def test_fewer_frames_may_be_attended_to_than_a_row_has():
    counts, slots = PACKS["three rows"]
    tables = tables_of(counts, slots)
    some = tables.with_keys((tables.counts_R - 1).clamp(min=0))
    assert int(some.valid_N.sum()) == sum(counts) - len(counts)
    assert int(some.inside_N.sum()) == sum(counts)


def test_places_of_parts_of_frames_are_multiples():
    counts, slots = PACKS["three rows"]
    tables = tables_of(counts, slots)
    parts = tables.scaled(4, tables.counts_R * 4 - 1)
    assert parts.begins_R.tolist() == [4 * begin for begin in tables.begins_R.tolist()]
    assert (parts.size, int(parts.inside_N.sum())) == (4 * SIZE, 4 * sum(counts) - len(counts))


def test_a_layout_is_made_once():
    tables = tables_of(*PACKS["three rows"])
    assert tables.layout(3) is tables.layout(3)
    assert tables.layout(3) is not tables.layout(3, 2)
