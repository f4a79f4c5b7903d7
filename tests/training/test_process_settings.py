"""Settings of the process in which a worker trains: threads of torch, and primitives that oneDNN keeps."""

import os
import subprocess
import sys

import pytest
import torch

from raysp.training.process_settings import CACHE, CACHED_PRIMITIVES, process_settings

SHAPES = """
import torch
from raysp.training.process_settings import process_settings

layer = torch.nn.Conv1d(512, 512, 3)
with process_settings(1), torch.no_grad():
    for length in (*range(400, {end}), 400):
        layer(torch.zeros(1, 512, length))
"""


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="this torch has no oneDNN")
@pytest.mark.parametrize(("given", "last"), [(None, "cache_miss"), ("1024", "cache_hit")])
def test_few_primitives_are_kept_unless_the_environment_says_how_many(given, last):
    environment = {name: value for name, value in os.environ.items() if name != CACHE}
    environment |= {"ONEDNN_VERBOSE": "profile_create"} | ({CACHE: given} if given else {})
    code = SHAPES.format(end=400 + CACHED_PRIMITIVES + 1)
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    created = [line for line in done.stdout.splitlines() if "convolution" in line]
    assert last in created[-1]


def test_settings_are_undone(monkeypatch):
    monkeypatch.delenv(CACHE, raising=False)
    before = torch.get_num_threads()
    with process_settings(before + 1):
        assert torch.get_num_threads() == before + 1
        assert os.environ[CACHE] == str(CACHED_PRIMITIVES)
    assert torch.get_num_threads() == before
    assert CACHE not in os.environ
