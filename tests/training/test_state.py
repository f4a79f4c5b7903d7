import errno
import resource

import pytest
import torch

from raysp import StoreError
from raysp.models.files.weights import write_safetensors
from raysp.training.loop import state

TENSORS = {"a": torch.zeros(100_000)}


@pytest.fixture
def small_files():
    """Limit files to 50 kB, which fails as a full disk does."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_weights_that_cannot_be_written_are_an_error_of_the_operating_system(small_files, tmp_path):
    with pytest.raises(OSError, match="File too large") as raised:
        write_safetensors(tmp_path / "a.safetensors", TENSORS)
    assert raised.value.errno == errno.EFBIG


def test_state_that_cannot_be_written_names_the_file_and_what_to_do(small_files, tmp_path):
    with pytest.raises(StoreError, match=r"a\.safetensors: cannot write it \(File too large\); .* run again"):
        state.write(TENSORS, tmp_path / "a.safetensors")
