"""Settings of the process in which a worker trains: threads of torch, and primitives that oneDNN keeps."""

import os
import subprocess
import sys

import pytest
import torch

from raysp import RunError
from raysp.training.loop.process_settings import CACHE, CACHED_PRIMITIVES, FIXED_WORKSPACE, WORKSPACE, process_settings

SHAPES = """
import torch
from raysp.training.loop.process_settings import process_settings

layer = torch.nn.Conv1d(64, 64, 3)
with process_settings(1), torch.no_grad():
    for length in (*range(400, {end}), 400):
        layer(torch.zeros(1, 64, length))
"""


@pytest.mark.slow
@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="this torch has no oneDNN")
@pytest.mark.parametrize(("given", "last"), [(None, "cache_miss"), ("1024", "cache_hit")])
def test_few_primitives_are_kept_unless_the_environment_says_how_many(given, last):
    environment = {name: value for name, value in os.environ.items() if name != CACHE}
    environment |= {"ONEDNN_VERBOSE": "profile_create"} | ({CACHE: given} if given else {})
    code = SHAPES.format(end=400 + CACHED_PRIMITIVES + 1)
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    created = [line for line in done.stdout.splitlines() if "convolution" in line]
    assert last in created[-1]


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
