"""Best alignments of given tokens, against all alignments and against greedy decoding."""

import itertools

import numpy as np
import pytest
import torch

from raysp.text.beams.alignment import Emissions, align
from raysp.text.beams.frames import TopFrames, top_frames
from raysp.text.ctc import greedy
from tests.text.beams.exhaustive import best_path, collapsed


def emissions(frames: TopFrames, row: int = 0) -> Emissions:
    return Emissions(frames.blanks[row].numpy(), frames.ids[row].numpy(), frames.log_probs[row].numpy())


@pytest.mark.parametrize("blank", [0, 3])
def test_the_alignment_is_the_most_probable_of_all(blank):
    logits = 2 * torch.randn(1, 6, 4, generator=torch.Generator().manual_seed(3))
    frames = top_frames(logits, blank=blank, kept=3)
    log_probs = logits[0].log_softmax(-1).numpy()
    others = [token for token in range(4) if token != blank]
    for ids in itertools.chain.from_iterable(itertools.product(others, repeat=n) for n in range(1, 4)):
        found = align(emissions(frames), np.array(ids, np.int32), vocab_size=4)
        path = np.full(6, blank)
        for token, first, last in zip(ids, found.first_frames, found.last_frames, strict=True):
            path[first : last + 1] = token
        assert collapsed(path.tolist(), blank) == ids
        assert log_probs[range(6), path].sum() == pytest.approx(best_path(logits[0].tolist(), blank, ids), abs=1e-4)
        spans = zip(ids, found.first_frames, found.last_frames, strict=True)
        best = [log_probs[first : last + 1, token].max() for token, first, last in spans]
        assert found.scores == pytest.approx(best, abs=1e-5)


@pytest.mark.parametrize("frames", [1, 30, 400])
def test_tokens_of_greedy_decoding_have_its_times_and_scores_to_the_last_bit(frames):
    logits = 4 * torch.randn(3, frames, 12, generator=torch.Generator().manual_seed(frames))
    tokens = greedy(logits, torch.full((3,), frames), blank=0)
    for row, part in enumerate(tokens.rows()):
        found = align(emissions(top_frames(logits, blank=0), row), tokens.flat_ids[part], vocab_size=12)
        np.testing.assert_array_equal(found.first_frames, tokens.first_frames[part])
        np.testing.assert_array_equal(found.last_frames, tokens.last_frames[part])
        np.testing.assert_array_equal(found.scores, tokens.token_scores[part])


def test_tokens_far_less_probable_than_blanks_are_aligned():
    logits = torch.zeros(1, 5, 3)
    logits[..., 0] = 200.0
    logits[0, 2, 1] = 50.0
    [first], [last], [score] = align(emissions(top_frames(logits, blank=0)), np.array([1], np.int32), vocab_size=3)
    assert (first, last, score) == (2, 2, -150.0)


def test_no_tokens_have_an_empty_alignment_and_too_many_have_none():
    frames = emissions(top_frames(torch.zeros(1, 3, 4), blank=0))
    assert [len(one) for one in align(frames, np.empty(0, np.int32), vocab_size=4)] == [0, 0, 0]
    with pytest.raises(ValueError, match="3 tokens have no alignment with 3 frames"):
        align(frames, np.array([1, 1, 2], np.int32), vocab_size=4)
