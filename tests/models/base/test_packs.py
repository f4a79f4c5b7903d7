"""Packs: rows begin at multiples of the stride, with zeros between and behind them, and come back as they were."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from raysp.models.base.packs import Pack
from raysp.models.kernels.pack_sizes import slot_frames

STRIDE = 4


@given(st.lists(st.integers(1, 30), min_size=1, max_size=8), st.integers(0, 5))
def test_rows_come_back_and_the_rest_is_zero(lengths, unused):
    rows = [1 + torch.rand(length) for length in lengths]
    size = sum(slot_frames(length, STRIDE) for length in lengths) + unused
    pack = Pack.of(rows, [length // STRIDE for length in lengths], STRIDE, size)
    assert len(pack.values_S) == size * STRIDE
    assert all(torch.equal(found[0], row) for found, row in zip(pack.rows, rows, strict=True))
    assert torch.count_nonzero(pack.values_S) == sum(lengths)


def test_frames_of_rows_are_joined_at_their_places_and_padded_again():
    pack = Pack.of([torch.ones(9), torch.ones(5)], [2, 1], STRIDE, 8)
    assert pack.packing.places == [slice(0, 2), slice(3, 4)]
    frames = pack.packing.joined([torch.full((1, 2, 3), 7.0), torch.full((1, 1, 3), 8.0)])
    assert frames[0, :, 0].tolist() == [7, 7, 0, 8, 0, 0, 0, 0]
    assert pack.packing.unpack(frames)[:, :, 0].tolist() == [[7, 7], [8, 0]]


def test_features_of_several_values_are_packed():
    pack = Pack.of([torch.ones(3, 2), torch.ones(1, 2)], [3, 1], 1, 5)
    assert pack.values_S[:, 1].tolist() == [1, 1, 1, 1, 0]


def test_rows_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"in slots of \[3, 2\], do not fit into 4 frames"):
        Pack.of([torch.ones(9), torch.ones(5)], [2, 1], STRIDE, 4)
    with pytest.raises(ValueError, match=r"rows of \[4\] frames, in slots of \[3\]"):
        Pack.of([torch.ones(9)], [4], STRIDE, 8)


def test_values_of_another_length_are_refused():
    pack = Pack.of([torch.ones(9)], [2], STRIDE, 3)
    with pytest.raises(ValueError, match=r"found 11 inputs in rows of \[9\], expected 12 in rows of at most \[12\]"):
        Pack(pack.values_S[1:], pack.num_inputs, pack.packing, STRIDE)
