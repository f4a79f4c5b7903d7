"""Forced alignment: against all paths of small cases, in any batch, within a beam, and with other speech around."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from raysp.text import alignment
from raysp.text.alignment import Alignment, Target, align

BLANK = 0


def log_probs_of(num_frames: int, num_tokens: int, seed: int, sharpness: float = 1.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (sharpness * torch.randn(num_frames, num_tokens, generator=generator)).log_softmax(-1)


def align_one(log_probs_TV: torch.Tensor, ids, separator=None) -> Alignment | None:
    [found] = align(log_probs_TV[None], [len(log_probs_TV)], [Target(ids, None, separator)], blank=BLANK)
    return found


def words_of(tokens, separator) -> list[list[int]]:
    """Return the tokens between separators, without empty words."""
    groups = itertools.groupby(tokens, lambda token: token == separator)
    return [[*group] for is_separator, group in groups if not is_separator]


def best_of_all(log_probs_TV: torch.Tensor, ids, separator=None) -> float:
    """Return the highest log-probability of all paths that collapse to the tokens, or to the same words of them."""
    frames, words = log_probs_TV.tolist(), words_of(ids, separator)
    best = -math.inf
    for path in itertools.product(range(len(frames[0])), repeat=len(frames)):
        tokens = [token for token, _ in itertools.groupby(path) if token != BLANK]
        if words_of(tokens, separator) == words:
            best = max(best, sum(frame[token] for frame, token in zip(frames, path, strict=True)))
    return best


def log_prob_of(found: Alignment, log_probs_TV: torch.Tensor) -> float:
    """Return the log-probability of a path, from its score."""
    return found.score * len(found.token_scores) + float(log_probs_TV.double().amax(-1).sum())


def assert_same(found: Alignment | None, expected: Alignment | None) -> None:
    assert found is not None
    assert expected is not None
    for name in ("first_frames", "last_frames", "token_scores"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
    assert found.score == expected.score


SEPARATOR = 3
WORD = st.lists(st.integers(1, 2), min_size=1, max_size=2)


@pytest.mark.slow
@given(
    st.integers(1, 6), st.lists(WORD, min_size=1, max_size=3), st.sampled_from([None, SEPARATOR]), st.integers(0, 99)
)
def test_the_path_is_the_best_of_all_paths_with_these_words(num_frames, words, separator, seed):
    between = [] if separator is None else [separator]
    ids = [token for word in words for token in [*between, *word]][len(between) :]
    log_probs_TV = log_probs_of(num_frames, 3 + len(between), seed)
    found, best = align_one(log_probs_TV, ids, separator=separator), best_of_all(log_probs_TV, ids, separator)
    assert (found is None) == (best == -math.inf)
    assert found is None or log_prob_of(found, log_probs_TV) == pytest.approx(best, abs=1e-5)


WILDCARD = 3
"""Column behind the tokens: the best token but the blank."""


def with_wildcard(log_probs_TV: torch.Tensor) -> torch.Tensor:
    return torch.cat([log_probs_TV, log_probs_TV[:, 1:].amax(-1, keepdim=True)], -1)


@pytest.mark.slow
@given(st.integers(1, 5), st.lists(st.integers(1, 3), min_size=1, max_size=4), st.integers(0, 1000))
def test_with_wildcards_the_path_is_the_best_of_all_paths(num_frames, ids, seed):
    log_probs_TV = with_wildcard(log_probs_of(num_frames, 3, seed, sharpness=3))
    best_T = log_probs_TV.amax(-1)
    below_TV = log_probs_TV - best_T[:, None]
    below_TV[:, WILDCARD].clamp_(min=-alignment.WITHIN)
    expected = best_of_all(below_TV, ids)
    [found] = align(log_probs_TV[None], [num_frames], [Target(ids, wildcard=WILDCARD)], blank=BLANK)
    if expected == -math.inf:
        assert found is None
        return
    assert found is not None
    path = np.zeros(num_frames, int)
    for token, first, last in zip(ids, found.first_frames, found.last_frames, strict=True):
        path[first : last + 1] = token
    costs = below_TV.double().numpy()[range(num_frames), path]
    assert costs.sum() == pytest.approx(expected, abs=1e-5)
    if num_spelt := sum(token != WILDCARD for token in ids):
        assert found.score == pytest.approx(costs[path != WILDCARD].sum() / num_spelt, abs=1e-5)
    else:
        assert found.score is None


@pytest.mark.parametrize(("has_gaps", "wildcard"), [(False, None), (True, None), (False, 5)])
def test_a_row_in_any_batch_equals_the_row_alone(has_gaps, wildcard):
    rng = np.random.default_rng(0)
    num_frames = [200, 64, 1, 65, 130, 200, 7]
    targets = []
    for frames in num_frames:
        ids = rng.integers(1, 6, rng.integers(1, 1 + max(1, frames // 3))).tolist()
        targets.append(Target(ids, [True, *(rng.random(len(ids)) < 0.3)] if has_gaps else None, wildcard=wildcard))
    log_probs_BTV = torch.stack([log_probs_of(200, 6, seed) for seed in range(len(num_frames))])
    together = align(log_probs_BTV, num_frames, targets, blank=BLANK)
    for row, (frames, target) in enumerate(zip(num_frames, targets, strict=True)):
        [alone] = align(log_probs_BTV[row : row + 1, :frames], [frames], [target], blank=BLANK)
        assert_same(together[row], alone)


def spoken(num_tokens: int, seed: int, silent: int = 0) -> tuple[torch.Tensor, list[int]]:
    """Return frames in which a model hears tokens, mostly, with blanks around, and the tokens."""
    rng = np.random.default_rng(seed)
    ids = rng.integers(1, 12, num_tokens).tolist()
    frames = [0] * silent
    for index in ids:
        frames += [index] * int(rng.integers(1, 3)) + [0] * int(rng.integers(1, 4))
    logits = torch.from_numpy(rng.normal(0, 1, (len(frames), 12)))
    logits[range(len(frames)), frames] += 6
    return logits.float().log_softmax(-1), ids


def best_by_frames(log_probs_TV: torch.Tensor, ids) -> float:
    """Return the highest log-probability of all paths, by a plain loop over the frames of a long row."""
    labels = np.array([BLANK, *(label for token in ids for label in (token, BLANK))])
    scores = np.full(len(labels) + 2, -math.inf)
    scores[2:4] = log_probs_TV[0, labels[:2]].numpy()
    may_skip = np.array([False, False, *((labels[2:] != BLANK) & (labels[2:] != labels[:-2]))])
    for frame in log_probs_TV[1:].double().numpy():
        skipped = np.where(may_skip, scores[:-2], -math.inf)
        scores[2:] = np.maximum(np.maximum(scores[2:], scores[1:-1]), skipped) + frame[labels]
    return float(scores[-2:].max())


def test_within_a_beam_the_path_is_the_best_of_all():
    log_probs_TV, ids = spoken(1600, seed=1, silent=700)
    assert len(log_probs_TV) * (2 * len(ids) + 1) > alignment.EXACT_CELLS
    found = align_one(log_probs_TV, ids)
    assert found is not None
    path = np.full(len(log_probs_TV), BLANK)
    for token, first, last in zip(ids, found.first_frames, found.last_frames, strict=True):
        path[first : last + 1] = token
    assert [token for token, _ in itertools.groupby(path) if token != BLANK] == ids
    log_prob = float(log_probs_TV.double()[range(len(path)), path].sum())
    assert log_prob == pytest.approx(best_by_frames(log_probs_TV, ids), abs=1e-3)


def test_a_row_that_needs_too_much_memory_has_no_path(monkeypatch):
    log_probs_TV, ids = spoken(1800, seed=1)
    monkeypatch.setattr(alignment, "MOST_CELLS", 1000)  # a row beyond the real limit would take minutes
    assert align_one(log_probs_TV, ids) is None
