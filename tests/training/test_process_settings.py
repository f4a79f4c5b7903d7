"""Settings of the process in which a worker trains: threads of torch, and primitives that oneDNN keeps."""

import os

import pytest
import torch

from raysp import RunError
from raysp.training.loop.process_settings import FIXED_WORKSPACE, WORKSPACE, process_settings


def flags() -> tuple[object, ...]:
    cudnn = torch.backends.cudnn
    return torch.are_deterministic_algorithms_enabled(), cudnn.deterministic, cudnn.benchmark, os.environ.get(WORKSPACE)


@pytest.mark.parametrize("given", [None, ":16:8"])
def test_deterministic_kernels_are_asked_for_within_the_block_alone(monkeypatch, given):
    monkeypatch.delenv(WORKSPACE, raising=False)
    if given:
        monkeypatch.setenv(WORKSPACE, given)
    before = flags()
    with process_settings(1):
        assert flags() == before
    with process_settings(1, deterministic=True):
        assert flags() == (True, True, False, given or FIXED_WORKSPACE)
    assert flags() == before
    with pytest.raises(KeyError), process_settings(1, deterministic=True):
        raise KeyError
    assert flags() == before


def test_an_operation_without_a_deterministic_kernel_is_named_with_a_remedy():
    message = "cumsum_cuda_kernel does not have a deterministic implementation, but you set ..."
    expected = r"deterministic=True.*cumsum_cuda_kernel.*Set deterministic=False"
    with pytest.raises(RunError, match=expected), process_settings(1, deterministic=True):
        raise RuntimeError(message)
    with pytest.raises(RuntimeError, match="another"), process_settings(1, deterministic=True):
        raise RuntimeError("another")
