"""Weights that cannot be written."""

import errno
import resource

import pytest

from raysp.models import Wav2Vec2Config, Wav2Vec2Model
from tests.recipes import SMALL


@pytest.fixture
def small_files():
    """Limit files to 50 kB, which fails as a full disk does."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_weights_that_cannot_be_written_are_an_error_of_the_operating_system(small_files, tmp_path):
    with pytest.raises(OSError, match="File too large") as raised:
        Wav2Vec2Model(Wav2Vec2Config(**SMALL)).save_pretrained(tmp_path)
    assert raised.value.errno == errno.EFBIG
