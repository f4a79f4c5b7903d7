"""Texts and scores from logits."""

import math
from itertools import pairwise

import pyarrow as pa
import pytest
import torch

import raysp
from raysp.capabilities import Capability
from raysp.models import load_checkpoint
from raysp.models.base.outputs import CausalLMOutput
from raysp.ops.forward import Forward
from tests.corpora import CHECKPOINT
from tests.ops.phases import a_pass, columns_of


@pytest.fixture(scope="module")
def op():
    loaded = load_checkpoint(CHECKPOINT, dtype="float32", device="cpu")
    return raysp.Transcript("mine").op(loaded.summary, loaded)


def ctc_forward(logits, num_frames, parts) -> Forward:
    """Make the output of a CTC model."""
    return a_pass(num_frames.tolist(), parts, heads={Capability.CTC: CausalLMOutput(logits=logits)})


def forward_of(op, *texts: str, pad_with: float = 0.0) -> Forward:
    """Make logits that decode to each text with high confidence, with a blank after every character."""
    ids = [[i for c in text for i in (op.tokenizer.vocab[c if c != " " else "|"], op.blank)] for text in texts]
    longest = max(len(one) for one in ids) + 3
    logits = torch.full((len(ids), longest, len(op.tokenizer.vocab)), pad_with)
    for row, one in enumerate(ids):
        for frame, token in enumerate(one):
            logits[row, frame] = -100.0
            logits[row, frame, token] = 0.0
    return ctc_forward(logits, torch.tensor([len(one) for one in ids]), [None] * len(ids))


@pytest.mark.parametrize("pad_with", [0.0, 50.0, math.nan])
def test_padded_frames_say_nothing_whatever_they_hold(op, pad_with):
    texts, scores, *_ = columns_of(op, forward_of(op, "ONE", "TWO THREE", pad_with=pad_with))
    assert texts == ["ONE", "TWO THREE"]
    assert scores == pytest.approx([0.0, 0.0], abs=1e-6)


def staged(op, forward: Forward) -> pa.Table:
    columns = columns_of(op, forward)[len(op.schema) :]
    return pa.table([pa.array(c, f.type) for c, f in zip(columns, op.staged, strict=True)], schema=op.staged)


def alone(op, logits: torch.Tensor) -> list[object]:
    frames = torch.tensor([len(logits)])
    return [column[0] for column in columns_of(op, ctc_forward(logits[None], frames, [None]))[: len(op.schema)]]


def check_joined(op, logits: torch.Tensor, cuts: set[int], left: int, right: int) -> None:
    """Check that windows of a row, with frames before and behind what they own, give what the row in one gives."""
    edges = [0, *sorted(cut for cut in cuts if 0 < cut < len(logits)), len(logits)]
    windows = [torch.full((len(logits) + left + right, 20), torch.nan) for _ in edges[1:]]
    for window, (first, end) in zip(windows, pairwise(edges), strict=True):
        window[left : left + end - first] = logits[first:end]
    parts = [(left, left + end - first) for first, end in pairwise(edges)]
    forward = ctc_forward(torch.stack(windows), torch.full((len(windows),), len(windows[0])), parts)
    assert columns_of(op, forward)[0] == [None] * len(windows)
    assert list(op.join(staged(op, forward))) == alone(op, logits)
