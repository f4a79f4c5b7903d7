"""Files of weights: their sizes before they are written, and comparisons of tensors in them."""

import pytest
import torch

from raysp.models.base import weights
from raysp.models.base.weights import (
    TensorHeader,
    hold_equal,
    num_file_bytes,
    read_headers,
    write_safetensors,
    write_tensors,
)


def test_the_size_of_a_file_is_known_before_it_is_written(tmp_path):
    tensors = {f"layers.{number}.weight": torch.randn(3, number + 1) for number in range(40)}
    tensors |= {"step|bias": torch.tensor(3.0), "updates": torch.tensor(3), "halves": torch.randn(5).bfloat16()}
    write_safetensors(tmp_path / "model.safetensors", tensors)
    headers = [TensorHeader(name, one.dtype, tuple(one.shape)) for name, one in tensors.items()]
    assert num_file_bytes(headers) == (tmp_path / "model.safetensors").stat().st_size


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
