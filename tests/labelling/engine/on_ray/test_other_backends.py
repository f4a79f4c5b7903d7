"""A run on Ray whose model is one of transformers."""

import pytest

from tests.backends.runs import check_run, write_corpus
from tests.backends.theirs import tiny_whisper


@pytest.mark.soak
@pytest.mark.slow
def test_whisper_gives_on_ray_the_texts_of_a_loop_over_rows(tmp_path, with_ray, local_ray):
    check_run(write_corpus(tmp_path), tiny_whisper(tmp_path / "whisper"))
