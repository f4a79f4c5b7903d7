"""Transcripts by beam search: columns, batches, longer rows, language models and hot words."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import raysp
from raysp.models import load_checkpoint
from tests.corpora import CHECKPOINT
from tests.ops.phases import columns_of
from tests.ops.test_transcribing import alone, check_joined, ctc_forward
from tests.text.beams.arpa_files import write_arpa

NUMBERS = ["ZERO", "ONE", "TWO", "THREE", "FOUR", "FIVE", "SIX", "SEVEN", "EIGHT", "NINE"]


@pytest.fixture(scope="module")
def loaded():
    return load_checkpoint(CHECKPOINT, dtype="float32", device="cpu")


@pytest.fixture(scope="module")
def lm(tmp_path_factory):
    pairs = [[one, NUMBERS[(place + 1) % 10], one] for place, one in enumerate(NUMBERS)]
    return str(write_arpa(tmp_path_factory.mktemp("lm") / "words.arpa", pairs, 3))


@pytest.fixture(scope="module")
def everything(loaded, lm):
    output = raysp.Transcript(beams=6, nbest=3, words=True, chars=True, lm=lm, hot_words={"NINE": 1.0, "ONE TWO": 2.0})
    return output.op(loaded.summary, loaded)


def noisy(seed: int, rows: int, frames: int, size: float = 4.0) -> torch.Tensor:
    return size * torch.randn(rows, frames, 20, generator=torch.Generator().manual_seed(seed))


def test_rows_whose_text_is_that_of_greedy_decoding_have_its_scores_and_times_to_the_last_bit(loaded):
    greedy = raysp.Transcript(words=True, chars=True).op(loaded.summary, loaded)
    search = raysp.Transcript(words=True, chars=True, beams=8).op(loaded.summary, loaded)
    forward = ctc_forward(noisy(5, 20, 25, 6.0), torch.full((20,), 25), [None] * 20)
    theirs, ours = (list(zip(*columns_of(op, forward)[:4], strict=True)) for op in (greedy, search))
    same = [place for place in range(20) if ours[place][0] == theirs[place][0]]
    assert len(same) >= 5
    assert [ours[place] for place in same] == [theirs[place] for place in same]


def test_a_row_in_a_batch_equals_the_row_alone_to_the_last_bit(everything):
    lengths = [30, 12, 0, 1, 29]
    logits = noisy(2, 5, 30, 1.5)
    for row, frames in enumerate(lengths):
        logits[row, frames:] = math.nan
    columns = columns_of(everything, ctc_forward(logits, torch.tensor(lengths), [None] * 5))
    for row, frames in enumerate(lengths):
        assert alone(everything, logits[row, :frames]) == [column[row] for column in columns[: len(everything.schema)]]


@pytest.mark.slow
@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10_000), st.integers(1, 40), st.sets(st.integers(0, 39)), st.integers(0, 4), st.integers(0, 4))
def test_any_row_in_one_window_equals_the_row_joined(everything, seed, frames, cuts, left, right):
    check_joined(everything, noisy(seed, 1, frames, 3.0)[0], cuts, left, right)
