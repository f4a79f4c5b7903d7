"""Greedy decoding against a plain loop, beam search against sums over all alignments, and times of its texts."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from raysp.text import greedy_ctc
from raysp.text.beams.decoder import BeamDecoder, Extras
from raysp.text.beams.search import BeamSearch, Hypothesis
from raysp.text.beams.tokens import TokenTexts
from raysp.text.greedy_ctc import CTCTokens, best_frames
from tests.text.beams.exhaustive import best_path, collapsed, ranked
from tests.text.beams.frames_of_logits import top_frames


def random_logits(seed: int, *shape: int, sharpness: float = 1.0) -> torch.Tensor:
    return sharpness * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def greedy(logits: torch.Tensor, num_frames: torch.Tensor, *, blank: int) -> CTCTokens:
    frames = best_frames(logits)
    return greedy_ctc.collapsed(frames.ids.int().numpy(), frames.log_probs.numpy(), num_frames, blank=blank)


def naive(logits, num_frames, blank):
    """Return tokens with their highest log-probability and their first and last frame, frame by frame."""
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
    size, frames, tokens = draw(st.integers(0, 5)), draw(st.integers(0, 30)), draw(st.integers(1, 5))
    logits = random_logits(draw(st.integers(0, 10_000)), size, frames, tokens, sharpness=3)
    num_frames = torch.tensor(draw(st.lists(st.integers(0, frames), min_size=size, max_size=size)), dtype=torch.long)
    return logits, num_frames, draw(st.integers(0, tokens - 1))


@settings(max_examples=60, deadline=None)
@given(batches())
def test_greedy_tokens_times_and_scores_equal_a_plain_loop_and_those_of_a_row_alone(batch):
    logits, num_frames, blank = batch
    tokens = greedy(logits, num_frames, blank=blank)
    assert tokens.finite.all()
    for row, (place, ids, score) in enumerate(zip(tokens.rows(), tokens.ids(), tokens.score_list(), strict=True)):
        expected = naive(logits[row], int(num_frames[row]), blank)
        assert ids == [run[0] for run in expected]
        assert tokens.first_frames[place].tolist() == [run[2] for run in expected]
        assert tokens.last_frames[place].tolist() == [run[3] for run in expected]
        np.testing.assert_allclose(tokens.token_scores[place], [run[1] for run in expected], atol=1e-5)
        assert score == (pytest.approx(np.mean([run[1] for run in expected]), abs=1e-5) if expected else None)
        alone = greedy(logits[row : row + 1, : num_frames[row]], num_frames[row : row + 1], blank=blank)
        assert np.array_equal(alone.flat_ids, tokens.flat_ids[place])
        assert np.array_equal(alone.token_scores, tokens.token_scores[place])
        assert np.array_equal(alone.scores, tokens.scores[row : row + 1], equal_nan=True)


def test_logits_that_are_not_finite_are_named_where_they_count():
    logits = torch.zeros(4, 5, 3)
    logits[0, 2, 1] = torch.nan
    logits[1, 4, 1] = torch.nan  # behind the row's end
    logits[2, 0, 0] = torch.inf
    logits[3, :, 2] = -torch.inf  # a token that cannot be is no fault
    finite = greedy(logits, torch.tensor([5, 4, 5, 5]), blank=0).finite
    assert finite.tolist() == [False, True, False, True]


def searched(
    logits: torch.Tensor, beams: int, best: int, blank: int = 0, num_frames: list[int] | None = None, **options: float
) -> list[list[tuple[tuple[int, ...], float]]]:
    """Return the ids and scores of the best hypotheses of each row."""
    frames = top_frames(logits, blank=blank, kept=logits.shape[-1] - 1)
    lengths = num_frames or [logits.shape[1]] * len(logits)
    rows = BeamSearch(beams, **options)(frames, lengths, best=best)
    return [[(tuple(one.ids.tolist()), one.score) for one in row] for row in rows]


@pytest.mark.parametrize("blank", [0, 2])
def test_scores_are_sums_over_all_alignments_if_nothing_is_pruned(blank):
    for seed in range(5):
        logits = random_logits(seed, 1, 4, 3, sharpness=1.5)
        [found] = searched(logits, 40, 12, blank, least_log_prob=-math.inf)
        expected = ranked(logits[0].tolist(), blank)[:12]
        assert [ids for ids, _ in found] == [ids for ids, _ in expected]
        assert [score for _, score in found] == pytest.approx([score for _, score in expected], abs=1e-5)


@pytest.mark.parametrize("first", [1, 4], ids=["within a token", "after a blank"])
def test_frames_with_a_sure_blank_separate_repeated_tokens_wherever_a_chunk_ends(first):
    """Frames are searched in chunks of 4096, which 9 divides but for one."""
    tokens = ([0, 1, 1, 0, 0, 1, 0, 2, 0] * 460)[first : first + 4100]
    sure = torch.full((1, len(tokens), 3), -30.0)
    sure[0, range(len(tokens)), tokens] = 0
    [[(ids, _)]] = searched(sure, 4, 1)
    assert ids == collapsed(tokens, 0)


@pytest.mark.parametrize("sharpness", [1.0, 6.0])
def test_a_row_in_a_batch_equals_the_row_alone_to_the_last_bit(sharpness):
    num_frames = [40, 1, 0, 23, 40, 39]
    logits = random_logits(3, 6, 40, 20, sharpness=sharpness)
    for row, frames in enumerate(num_frames):
        logits[row, frames:] = torch.nan
    together = searched(logits, 8, 8, num_frames=num_frames)
    for row, frames in enumerate(num_frames):
        assert searched(logits[row : row + 1, :frames], 8, 8) == [together[row]]


def aligned(logits: torch.Tensor, *texts: tuple[int, ...], blank: int = 0, kept: int = 16) -> CTCTokens:
    """Align the tokens of each row with all its frames."""
    letters = [chr(97 + token) if token != blank else "" for token in range(logits.shape[-1])]
    decoder = BeamDecoder(TokenTexts(letters, None, blank, "|"), beams=2, extras=Extras())
    given_texts = [Hypothesis(np.array(one, np.int32), 0.0) for one in texts]
    return decoder.aligned(top_frames(logits, blank=blank, kept=kept), [logits.shape[1]] * len(logits), given_texts)


@pytest.mark.parametrize("blank", [0, 3])
def test_the_alignment_of_a_text_is_the_most_probable_of_all(blank):
    logits = random_logits(3, 1, 5, 4, sharpness=2)
    log_probs = logits[0].log_softmax(-1).numpy()
    others = [token for token in range(4) if token != blank]
    for ids in itertools.chain.from_iterable(itertools.product(others, repeat=n) for n in range(1, 4)):
        if len(ids) + sum(a == b for a, b in itertools.pairwise(ids)) > 5:
            continue
        found = aligned(logits, ids, blank=blank, kept=3)
        path = np.full(5, blank)
        for token, first, last in zip(ids, found.first_frames, found.last_frames, strict=True):
            path[first : last + 1] = token
        assert collapsed(path.tolist(), blank) == ids
        assert log_probs[range(5), path].sum() == pytest.approx(best_path(logits[0].tolist(), blank, ids), abs=1e-4)
        spans = zip(ids, found.first_frames, found.last_frames, strict=True)
        best = [log_probs[first : last + 1, token].max() for token, first, last in spans]
        assert found.token_scores == pytest.approx(best, abs=1e-5)


@pytest.mark.parametrize("frames", [30, 400])
def test_rows_of_other_tokens_are_aligned_as_alone_beside_rows_of_greedy_tokens(frames):
    logits = random_logits(frames, 4, frames, 12, sharpness=4)
    best = [tuple(row) for row in greedy(logits, torch.full((4,), frames), blank=0).ids()]
    texts = [best[0], best[1][1:], best[2][:-2], ()]
    together = aligned(logits, *texts)
    for row, part in enumerate(together.rows()):
        alone = aligned(logits[row : row + 1], texts[row])
        assert tuple(together.flat_ids[part].tolist()) == texts[row]
        for name in ("first_frames", "last_frames", "token_scores"):
            np.testing.assert_array_equal(getattr(together, name)[part], getattr(alone, name))
        np.testing.assert_array_equal(together.scores[row : row + 1], alone.scores)
    assert np.isnan(together.scores[3])
