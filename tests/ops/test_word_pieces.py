"""Transcripts of a vocabulary of word pieces: words and their times, beams, and what needs letters."""

import re

import pytest
import torch

import raysp
from raysp import CheckpointError
from raysp.models import check_checkpoint, load_checkpoint
from tests.models.tokenizers.word_pieces import PIECES, save_parakeet
from tests.ops.phases import columns_of
from tests.ops.test_transcribing import ctc_forward

BLANK = 19


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    folder = tmp_path_factory.mktemp("parakeet")
    save_parakeet(folder)
    return load_checkpoint(folder)


def columns(loaded, output, frames):
    """Label one row whose frames have these tokens with probability 0.5."""
    probabilities = torch.full((1, len(frames), BLANK + 1), 0.5 / BLANK)
    probabilities[0, torch.arange(len(frames)), torch.tensor(frames)] = 0.5
    op = output.op(loaded.summary, loaded)
    return columns_of(op, ctc_forward(probabilities.log(), torch.tensor([len(frames)]), [None]))[: len(op.schema)]


def test_words_begin_at_their_marks_and_last_to_their_last_piece(loaded):
    the, cat, s, on, dot = (PIECES.index(piece) for piece in ("▁the", "▁cat", "s", "▁on", "."))
    frames = [BLANK, the, the, BLANK, cat, BLANK, s, s, BLANK, on, dot, BLANK]
    text, _, words, chars = columns(loaded, raysp.Transcript(words=True, chars=True), frames)
    assert text == ["the cats on."]
    found = [(one["word"], round(one["start"], 2), round(one["end"], 2)) for one in words[0]]
    assert found == [("the", 0.08, 0.24), ("cats", 0.32, 0.64), ("on.", 0.72, 0.8)]  # a mark has no length
    assert [one["char"] for one in chars[0]] == ["the", "cat", "s", "on", "."]
    assert all(one["score"] == pytest.approx(0.5) for one in words[0])


@torch.inference_mode()
def test_words_make_up_the_text_of_any_frames(loaded):
    frames = torch.randint(1, 20, (60,), generator=torch.Generator().manual_seed(0)).tolist()
    text, _, words = columns(loaded, raysp.Transcript(words=True), frames)
    assert " ".join(one["word"] for one in words[0]) == re.sub(" +", " ", text[0])


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
