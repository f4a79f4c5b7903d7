"""Sizes of files of weights before they are written."""

import torch

from raysp.models.files.weights import TensorHeader, num_file_bytes, write_safetensors


def test_the_size_of_a_file_is_known_before_it_is_written(tmp_path):
    tensors = {f"layers.{number}.weight": torch.randn(3, number + 1) for number in range(40)}
    tensors |= {"step|bias": torch.tensor(3.0), "updates": torch.tensor(3), "halves": torch.randn(5).bfloat16()}
    write_safetensors(tmp_path / "model.safetensors", tensors)
    headers = [TensorHeader(name, one.dtype, tuple(one.shape)) for name, one in tensors.items()]
    assert num_file_bytes(headers) == (tmp_path / "model.safetensors").stat().st_size
