"""Texts and scores from logits."""

import math

import pyarrow as pa
import pytest
import torch

import raysp
from raysp.models.loading import load_checkpoint
from raysp.ops.labelling import Forward
from tests.corpora import CHECKPOINT


@pytest.fixture(scope="module")
def op():
    loaded = load_checkpoint(CHECKPOINT, dtype="float32", device="cpu", padding="exact")
    return raysp.Transcript("mine").op(loaded)


def forward_of(op, *texts: str, pad_with: float = 0.0) -> Forward:
    """Make logits that say each text, a blank behind every character, surely."""
    ids = [[i for c in text for i in (op.tokenizer.vocab[c if c != " " else "|"], op.blank)] for text in texts]
    longest = max(len(one) for one in ids) + 3
    logits = torch.full((len(ids), longest, len(op.tokenizer.vocab)), pad_with)
    for row, one in enumerate(ids):
        for frame, token in enumerate(one):
            logits[row, frame] = -100.0
            logits[row, frame, token] = 0.0
    return Forward(logits, torch.tensor([len(one) for one in ids]), [None] * len(ids))


def test_each_window_has_its_text_and_a_sure_score(op):
    texts, scores, *_ = op(forward_of(op, "ONE", "TWO THREE"))
    assert texts == ["ONE", "TWO THREE"]
    assert scores == pytest.approx([0.0, 0.0], abs=1e-6)


@pytest.mark.parametrize("pad_with", [0.0, 50.0, math.nan, math.inf])
def test_padded_frames_say_nothing_whatever_they_hold(op, pad_with):
    texts, scores, *_ = op(forward_of(op, "ONE", "TWO THREE", pad_with=pad_with))
    assert texts == ["ONE", "TWO THREE"]
    assert scores == pytest.approx([0.0, 0.0], abs=1e-6)


def test_a_window_of_blanks_has_an_empty_text_and_no_score(op):
    blanks = torch.zeros(1, 5, len(op.tokenizer.vocab))
    blanks[..., op.blank] = 10
    assert op(Forward(blanks, torch.tensor([5]), [None])) == [[""], [None], [None], [None]]


def test_the_columns_are_named_after_the_output_and_a_short_recording_fills_them(op):
    assert op.schema == pa.schema({"mine_text": pa.string(), "mine_score": pa.float32()})
    assert op.empty() == ("", None)
    assert len(op.empty()) == len(op.schema)
