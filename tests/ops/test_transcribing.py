"""Texts and scores from logits."""

import math
from itertools import pairwise

import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

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


def logits_of(forward: Forward) -> torch.Tensor:
    return forward.heads[Capability.CTC]["logits"]


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


def test_a_window_of_blanks_has_an_empty_text_and_no_score(op):
    blanks = torch.zeros(1, 5, len(op.tokenizer.vocab))
    blanks[..., op.blank] = 10
    assert columns_of(op, ctc_forward(blanks, torch.tensor([5]), [None])) == [[""], [None], [None], [None]]


@pytest.fixture(scope="module")
def timed():
    loaded = load_checkpoint(CHECKPOINT, dtype="float32", device="cpu")
    return raysp.Transcript(words=True, chars=True).op(loaded.summary, loaded)


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


@pytest.mark.slow
@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10_000), st.integers(1, 60), st.sets(st.integers(0, 59)), st.integers(0, 5), st.integers(0, 5))
def test_the_frames_of_a_row_give_the_same_to_the_last_bit_in_one_window_and_joined(
    timed, seed, frames, cuts, left, right
):
    sure = 4 * torch.randn(frames, 20, generator=torch.Generator().manual_seed(seed))
    check_joined(timed, sure, cuts, left, right)


def test_a_word_begins_with_its_first_frame_and_ends_with_the_end_of_its_last(timed):
    forward = forward_of(timed, "ONE TWO")  # O _ N _ E _ | _ T _ W _ O _, 20 ms each
    _, _, (words,), (chars,), *_ = columns_of(timed, forward)
    assert [(w["word"], w["start"], w["end"]) for w in words] == [
        ("ONE", 0.0, pytest.approx(0.1)),
        ("TWO", pytest.approx(0.16), pytest.approx(0.26)),
    ]
    assert [c["char"] for c in chars] == list("ONETWO")
    assert [c["start"] for c in chars] == pytest.approx([0, 0.04, 0.08, 0.16, 0.2, 0.24])
    assert all(c["end"] - c["start"] == pytest.approx(0.02) for c in chars)
    assert [w["score"] for w in words] == pytest.approx([1.0, 1.0])


def test_a_character_that_lasts_has_the_probability_of_its_best_frame_and_a_word_their_mean(timed):
    forward = forward_of(timed, "AB" if "A" in timed.tokenizer.vocab else "ON")
    logits = logits_of(forward).clone()
    logits[0, 1] = logits[0, 0]  # the first character again in place of the blank, less surely
    logits[0, 0, timed.blank] = 0.0  # now as sure as the blank
    logits[0, 0] += torch.nn.functional.one_hot(logits[0, 1].argmax(), logits.shape[-1]) * 0.1
    _, _, (words,), (chars,), *_ = columns_of(timed, ctc_forward(logits, forward.num_frames_B, forward.rows.parts))
    assert [c["end"] - c["start"] for c in chars] == pytest.approx([0.04, 0.02])
    assert [c["score"] for c in chars] == pytest.approx([1.0, 1.0])
    (word,) = words
    assert word["score"] == pytest.approx(sum(c["score"] for c in chars) / 2)


@pytest.mark.parametrize("asked", [{}, {"chars": True}, {"words": True, "chars": True}])
def test_only_requested_columns_are_returned(asked):
    loaded = load_checkpoint(CHECKPOINT, dtype="float32", device="cpu")
    output = raysp.Transcript(**asked)
    op = output.op(loaded.summary, loaded)
    names = ["pred_text", "pred_score", *(f"pred_{name}" for name in asked)]
    assert list(output.columns) == op.schema.names == names
    assert len(columns_of(op, forward_of(op, "ONE"))) == len(names) + 2
    assert op.empty() == ("", None, *([] for _ in asked))
    spans = [output.schema(None).field(f"pred_{name}").type.value_type for name in asked]
    for span, name in zip(spans, asked, strict=True):
        assert [(f.name, f.type) for f in span] == [
            (name[:-1], pa.string()),
            ("start", pa.float64()),
            ("end", pa.float64()),
            ("score", pa.float32()),
        ]
