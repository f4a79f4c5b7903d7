from pathlib import Path

import pytest

from tests.backends.runs import write_corpus
from tests.backends.theirs import tiny_whisper


@pytest.fixture(scope="session")
def whisper(tmp_path_factory) -> Path:
    """A random Whisper for recordings of two seconds."""
    return tiny_whisper(tmp_path_factory.mktemp("whisper"))


@pytest.fixture
def corpus(tmp_path) -> Path:
    """The folder of a corpus of four rows."""
    return write_corpus(tmp_path)
