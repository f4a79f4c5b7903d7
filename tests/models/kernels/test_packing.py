import pytest
import torch

from raysp.models.base.kernels import Packing, filled


@pytest.mark.parametrize("counts", [(4, 0, 2), (3, 3), (5,)])
def test_packed_rows_come_back_with_zeros_for_padding(counts):
    x = torch.randn(len(counts), max(counts), 3)
    valid = torch.arange(max(counts)) < torch.tensor(counts)[:, None]
    packing = Packing.of(x, valid)
    packed = packing.pack(x)
    assert packed.shape == (1, filled(sum(counts)), 3)
    assert not packed[0, sum(counts) :].any()
    for row, count, place in zip(x, counts, packing.places, strict=True):
        assert torch.equal(packed[0, place], row[:count])
    assert torch.equal(packing.unpack(packed), x.masked_fill(~valid[:, :, None], 0.0))


def test_a_batch_without_padding_comes_back_as_it_was():
    x = torch.randn(2, 5, 3)
    packing = Packing.of(x, None)
    assert packing.pack(x).shape == (1, filled(10), 3)
    assert torch.equal(packing.unpack(packing.pack(x)), x)
