import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from raysp.text.greedy_ctc import greedy


def naive(logits, num_frames, blank):
    """One row, frame by frame."""
    log_probs = logits.float().log_softmax(-1)
    runs = []
    for frame in range(num_frames):
        token, score = int(logits[frame].argmax()), float(log_probs[frame].max())
        if runs and runs[-1][0] == token:
            runs[-1] = (token, max(runs[-1][1], score), runs[-1][2], frame)
        else:
            runs.append((token, score, frame, frame))
    return [run for run in runs if run[0] != blank]


@st.composite
def batches(draw):
    size, frames, tokens = draw(st.integers(1, 5)), draw(st.integers(0, 30)), draw(st.integers(1, 5))
    seed = draw(st.integers(0, 10_000))
    logits = 3 * torch.randn(size, frames, tokens, generator=torch.Generator().manual_seed(seed))
    num_frames = torch.tensor(draw(st.lists(st.integers(0, frames), min_size=size, max_size=size)))
    return logits, num_frames, draw(st.integers(0, tokens - 1))


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(batches())
def test_tokens_times_and_scores_equal_a_plain_loop(batch):
    logits, num_frames, blank = batch
    tokens = greedy(logits, num_frames, blank=blank)
    assert len(tokens.counts) == len(logits)
    for row, (place, ids, score) in enumerate(zip(tokens.rows(), tokens.ids(), tokens.score_list(), strict=True)):
        expected = naive(logits[row], int(num_frames[row]), blank)
        assert ids == [run[0] for run in expected]
        assert tokens.first_frames[place].tolist() == [run[2] for run in expected]
        assert tokens.last_frames[place].tolist() == [run[3] for run in expected]
        np.testing.assert_allclose(tokens.token_scores[place], [run[1] for run in expected], atol=1e-5)
        if expected:
            np.testing.assert_allclose(score, np.mean([run[1] for run in expected]), atol=1e-5)
        else:
            assert score is None
            assert np.isnan(tokens.scores[row])
    assert tokens.finite.all()


@settings(max_examples=50, deadline=None)
@given(batches())
def test_a_row_does_not_depend_on_its_batch(batch):
    logits, num_frames, blank = batch
    together = greedy(logits, num_frames, blank=blank)
    for row, place in enumerate(together.rows()):
        alone = greedy(logits[row : row + 1, : num_frames[row]], num_frames[row : row + 1], blank=blank)
        assert np.array_equal(alone.flat_ids, together.flat_ids[place])
        assert np.array_equal(alone.token_scores, together.token_scores[place])
        assert np.array_equal(alone.scores, together.scores[row : row + 1], equal_nan=True)


def test_logits_that_are_not_finite_are_named_where_they_count():
    logits = torch.zeros(4, 5, 3)
    logits[0, 2, 1] = torch.nan
    logits[1, 4, 1] = torch.nan  # behind the row's end
    logits[2, 0, 0] = torch.inf
    logits[3, :, 2] = -torch.inf  # a token that cannot be is no fault
    finite = greedy(logits, torch.tensor([5, 4, 5, 5]), blank=0).finite
    assert finite.tolist() == [False, True, False, True]


def test_a_batch_without_rows_or_frames_has_no_tokens():
    assert greedy(torch.zeros(0, 5, 3), torch.zeros(0, dtype=torch.long), blank=0).counts.tolist() == []
    assert greedy(torch.zeros(2, 0, 3), torch.zeros(2, dtype=torch.long), blank=0).counts.tolist() == [0, 0]
