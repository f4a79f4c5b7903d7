"""Files of weights: comparisons of tensors in them."""

import pytest
import torch

from raysp.models.base import weights
from raysp.models.base.weights import (
    hold_equal,
    read_headers,
    write_tensors,
)


@pytest.mark.parametrize("shard_bytes", [10**9, 500], ids=["one file", "shards"])
@pytest.mark.parametrize("shape", [(50, 3), (7,), (), (0, 3)])
def test_tensors_of_a_checkpoint_are_compared_in_parts(tmp_path, monkeypatch, shape, shard_bytes):
    monkeypatch.setattr(weights, "COMPARED_BYTES", 100)
    value = torch.randn(shape)
    last = value.clone()
    if value.numel():
        last.view(-1)[-1] += 1.0
    half = value.half()
    tensors = {"a": value, "b": value.clone(), "last": last, "half": half, "wide": half.float(), "other": torch.ones(9)}
    write_tensors(tmp_path, tensors, shard_bytes)
    headers = read_headers(tmp_path)

    def equal(one: str, other: str) -> bool:
        return hold_equal(tmp_path, headers[one], headers[other])

    assert equal("a", "b")
    assert equal("half", "wide")  # in another type
    assert equal("a", "last") == equal("last", "a") == (value.numel() == 0)
    assert not equal("a", "other")
