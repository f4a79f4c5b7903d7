import pytest
import torch

from raysp.models.base.kernels import filled
from raysp.models.base.row_layout import Layout


def batch(counts, width=3):
    """Return frames of rows of these lengths, and their mask."""
    return torch.randn(len(counts), max(counts), width), torch.arange(max(counts)) < torch.tensor(counts)[:, None]


@torch.inference_mode()
@pytest.mark.parametrize("counts", [(4, 0, 2), (3, 3), (5,)])
def test_packed_rows_come_back_with_zeros_for_padding(counts):
    x, mask = batch(counts)
    layout = Layout.of(x, mask).packed(x)
    packed = layout.pack(x)
    assert packed.shape == (1, filled(sum(counts)), 3)
    assert not packed[0, sum(counts) :].any()
    for row, count, place in zip(x, counts, layout.places, strict=True):
        assert torch.equal(packed[0, place], row[:count])
    assert torch.equal(layout.unpack(packed), x.masked_fill(~mask[:, :, None], 0.0))


@torch.inference_mode()
def test_a_batch_without_padding_has_no_mask_and_comes_back_as_it_was():
    x, mask = batch((5, 5))
    for given in (None, mask):
        layout = Layout.of(x, given)
        assert (layout.lengths, layout.counts_B, layout.mask, layout.keys) == ((5, 5), None, None, None)
        layout = layout.packed(x)
        assert layout.pack(x).shape == (1, filled(10), 3)
        assert torch.equal(layout.unpack(layout.pack(x)), x)


def test_rows_with_gradients_lie_side_by_side():
    x, mask = batch((4, 2))
    layout = Layout.of(x, mask)
    assert layout.packed(x) is layout
    assert layout.mask.tolist() == mask.tolist()
    assert not layout.zeroed(x)[1, 2:].any()


@torch.inference_mode()
def test_a_row_without_frames_has_one_key_and_one_after_its_end_is_asked_for():
    x, mask = batch((3, 0, 2))
    layout = Layout.of(x, mask).packed(x, num_next=1)
    assert layout.queries_and_keys == [
        (slice(0, 3), slice(0, 3)),
        (slice(3, 4), slice(3, 4)),
        (slice(4, 7), slice(4, 6)),
    ]
    assert layout.mask[0, :7].tolist() == [True, True, True, False, True, True, False]
    assert Layout.of(x, mask).keys[1, 0, 0].tolist() == [True, False, False]


def test_frames_of_strided_layers_are_counted_within_the_tensor():
    x, mask = batch((9, 4, 1))
    layout = Layout.of(x, mask).after(lambda count: (count - 3) // 2 + 1, 4)
    assert layout.lengths == (4, 1, 0)
    assert layout.counts_B.tolist() == [4, 1, 0]
    assert Layout.of(x, None).after(lambda count: (count - 3) // 2 + 1, 4).lengths == (4, 4, 4)
    assert Layout.of(x, mask).after(lambda count: count // count, 1).counts_B is None
