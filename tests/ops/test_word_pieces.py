"""Transcripts of a vocabulary of word pieces: words and their times, beams, and what needs letters."""

import pytest

import raysp
from raysp import CheckpointError
from raysp.models import check_checkpoint, load_checkpoint
from tests.models.tokenizers.word_pieces import save_parakeet


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    folder = tmp_path_factory.mktemp("parakeet")
    save_parakeet(folder)
    return load_checkpoint(folder)


@pytest.mark.parametrize(
    ("output", "message"),
    [
        (raysp.Transcript(beams=4, hot_words={"cat": 2.0}), "hot_words need a vocabulary of characters"),
        (raysp.Align(of="pred"), "Align spells texts by letters"),
    ],
)
def test_outputs_that_need_letters_are_refused_before_any_work(loaded, output, message):
    with pytest.raises(CheckpointError, match=message):
        output.check(check_checkpoint(loaded.summary.path))
    raysp.Transcript(beams=4, nbest=2).check(check_checkpoint(loaded.summary.path))
