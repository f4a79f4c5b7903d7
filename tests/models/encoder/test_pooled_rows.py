"""Heads that pool the rows of a pack at once: values of row by row, bits and shapes that other rows do not change."""

import itertools
from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch

from raysp.models import (
    Wav2Vec2Config,
    Wav2Vec2ForSequenceClassification,
    Wav2Vec2ForSpeechClassification,
    Wav2Vec2ForXVector,
)
from raysp.models.base.packs import EncodedPack, PackOutput
from raysp.models.kernels.packing import Packing
from raysp.models.kernels.row_tables import CHUNK_FRAMES, RowTables, pooled_sums
from tests.device.class_cases import SMALL, TDNN, WAVES

SIZE, MOST_ROWS = 256, 16
COUNTS = (40, 17, 75, 18, 33)
ORDERS = [(0, 1, 2, 3, 4), (4, 2, 0), (3, 1), (2, 2, 2)]
HEADS = {
    "mean of classes": (Wav2Vec2ForSequenceClassification, {}),
    "statistics": (Wav2Vec2ForXVector, {}),
    **{pooling: (Wav2Vec2ForSpeechClassification, {"pooling_mode": pooling}) for pooling in ("mean", "sum", "max")},
}


@pytest.fixture(scope="module", params=HEADS)
def head(request):
    cls, options = HEADS[request.param]
    torch.manual_seed(2)
    return cls(Wav2Vec2Config(**SMALL, **WAVES, **TDNN, **options)).init_weights().eval()


def rows(dtype: torch.dtype) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    return [torch.randn(count, SMALL["hidden_size"], generator=generator).to(dtype) for count in COUNTS]


def pack_of(rows: Sequence[torch.Tensor], *, at_once: bool = True) -> EncodedPack:
    """Return frames of rows, of which the last one is not pooled; NaN elsewhere."""
    counts = [*map(len, rows)]
    slots = [count + 1 + number % 3 for number, count in enumerate(counts)]
    values = torch.full((1, SIZE, rows[0].shape[1]), torch.nan, dtype=rows[0].dtype)
    for row, begin in zip(rows, itertools.accumulate(slots, initial=0), strict=False):
        values[0, begin : begin + len(row)] = row
    padded, places = torch.zeros(2, MOST_ROWS, dtype=torch.int64), torch.tensor([counts, slots])
    padded[:, : len(rows)] = places
    tables = RowTables.of(padded[0], padded[1], SIZE).with_keys((padded[0] - 1).clamp(min=0))
    packing = Packing.in_slots(counts, slots, SIZE, tables if at_once else None)
    return EncodedPack(values, replace(packing, keys=tuple(count - 1 for count in counts)))


def values(found: PackOutput) -> list[list[torch.Tensor]]:
    return [[row[name] for name in ("logits", "embeddings") if name in row.keys()] for row in found.rows]  # noqa: SIM118


@torch.inference_mode()
def test_rows_at_once_have_the_values_of_row_by_row(head):
    given = rows(torch.float32)
    found, expected = (values(head.read_pack(pack_of(given, at_once=one))) for one in (True, False))
    assert len(found) == len(expected) == len(COUNTS)
    for ours, theirs in zip(found, expected, strict=True):
        assert ours
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


@torch.inference_mode()
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_row_has_the_same_bits_beside_any_rows(head, dtype):
    given, of = rows(dtype), head.to(dtype)
    alone = [values(of.read_pack(pack_of([row])))[0] for row in given]
    assert all(value.isfinite().all() for row in alone for value in row)
    for order in ORDERS:
        beside = pack_of([given[row] for row in order])
        for row, found in zip(order, values(of.read_pack(beside)), strict=True):
            assert all(map(torch.equal, found, alone[row]))
    failing = [given[0], torch.full_like(given[1], torch.nan), given[2]]
    assert all(map(torch.equal, values(of.read_pack(pack_of(failing)))[2], alone[2]))
    head.to(torch.float32)


@torch.inference_mode()
def test_results_have_as_many_rows_for_any_rows(head):
    given = rows(torch.float32)
    found = [head.read_pack(pack_of(given[:number])).output.logits for number in (1, 2, 5)]
    assert {one.shape for one in found} == {found[0].shape}
    assert all(one.isfinite().all() for one in found)


@pytest.mark.parametrize("begin", [0, 1, 63])
def test_sums_go_by_chunks_from_the_start_of_a_row(begin):
    row = torch.randn(70, 3, generator=torch.Generator().manual_seed(4))
    values = torch.full((1, SIZE, 3), torch.nan)
    values[0, begin : begin + 70] = row
    counts = torch.tensor([0, 70, 0])
    found = pooled_sums(values, counts, RowTables.of(counts, torch.tensor([begin, 70, 0]), SIZE))
    expected = torch.zeros(3)
    for chunk in torch.split(torch.cat([row, row.new_zeros(-70 % CHUNK_FRAMES, 3)]), CHUNK_FRAMES):
        expected = expected + chunk[None].sum(1)[0]
    assert found.tolist() == [[0.0] * 3, expected.tolist(), [0.0] * 3]
