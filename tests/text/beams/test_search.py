"""Beam search against sums over all alignments; batches, padding, and ties."""

import math

import numpy as np
import pytest
import torch

from raysp.text.beams import search as search_module
from raysp.text.beams.search import BeamSearch, Hypothesis
from raysp.text.greedy_ctc import best_frames, greedy
from tests.text.beams.exhaustive import ranked
from tests.text.beams.frames_of_logits import top_frames


def random_logits(seed: int, *shape: int, sharpness: float = 1.0) -> torch.Tensor:
    return sharpness * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def searched(
    logits: torch.Tensor, beams: int, best: int, blank: int = 0, num_frames: list[int] | None = None, **options: float
) -> list[list[Hypothesis]]:
    frames = top_frames(logits, blank=blank, kept=logits.shape[-1] - 1)
    lengths = num_frames or [logits.shape[1]] * len(logits)
    return BeamSearch(beams, **options)(frames, lengths, best=best)


def as_tuples(rows: list[list[Hypothesis]]) -> list[list[tuple[tuple[int, ...], float]]]:
    return [[(tuple(one.ids.tolist()), one.score) for one in row] for row in rows]


@pytest.mark.slow
@pytest.mark.parametrize("blank", [0, 2])
@pytest.mark.parametrize(("frames", "tokens"), [(1, 3), (4, 3)])
def test_scores_are_sums_over_all_alignments_if_nothing_is_pruned(frames, tokens, blank):
    for seed in range(5):
        logits = random_logits(seed, 1, frames, tokens, sharpness=1.5)
        [found] = as_tuples(searched(logits, 3000, 12, blank, least_log_prob=-math.inf))
        expected = ranked(logits[0].tolist(), blank)[:12]
        assert [ids for ids, _ in found] == [ids for ids, _ in expected]
        assert [score for _, score in found] == pytest.approx([score for _, score in expected], abs=1e-5)


def test_frames_with_a_sure_blank_separate_repeated_tokens_also_between_chunks(monkeypatch):
    sure = torch.full((1, 9, 3), -30.0)
    for frame, token in enumerate([0, 1, 1, 0, 0, 1, 0, 2, 0]):
        sure[0, frame, token] = 0
    whole = as_tuples(searched(sure, 4, 1))
    assert whole[0][0][0] == (1, 1, 2)
    for frames in range(1, 9):
        monkeypatch.setattr(search_module, "CHUNK_FRAMES", frames)
        assert as_tuples(searched(sure, 4, 1)) == whole


@pytest.mark.parametrize("sharpness", [1.0, 6.0])
def test_a_row_in_a_batch_equals_the_row_alone_to_the_last_bit(sharpness):
    num_frames = [40, 1, 0, 23, 40, 39]
    logits = random_logits(3, 6, 40, 20, sharpness=sharpness)
    for row, frames in enumerate(num_frames):
        logits[row, frames:] = torch.nan
    together = as_tuples(searched(logits, 8, 8, num_frames=num_frames))
    for row, frames in enumerate(num_frames):
        assert as_tuples(searched(logits[row : row + 1, :frames], 8, 8)) == [together[row]]


def test_the_best_tokens_of_frames_are_those_of_greedy_decoding_to_the_last_bit():
    logits = random_logits(1, 3, 50, 30, sharpness=3)
    logits[0, 0] = 1.0
    (ids, log_probs), theirs = top_frames(logits, blank=4).best(4), best_frames(logits)
    np.testing.assert_array_equal(ids, theirs.ids)
    np.testing.assert_array_equal(log_probs, theirs.log_probs)


def test_sure_frames_give_the_tokens_of_greedy_decoding():
    logits = random_logits(7, 4, 60, 12)
    logits += 10 * torch.nn.functional.one_hot(logits.argmax(-1), 12)
    tokens = greedy(logits, torch.full((4,), 60), blank=0)
    assert [one.ids.tolist() for [one] in searched(logits, 8, 1)] == list(tokens.ids())
