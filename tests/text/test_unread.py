"""Speech that no word covers: as counted millisecond by millisecond, and in transcripts with words removed."""

from itertools import pairwise

import numpy as np
import pytest

from raysp.text.unread import AFTER_SECONDS, BEFORE_SECONDS, PAUSE_SECONDS, unread

MILLISECONDS = 20_000


def counted(speech: list[tuple[int, int]], words: list[tuple[int, int]]) -> tuple[float, float]:
    """Count milliseconds of speech without a word; those between two words belong together."""
    is_speech, covered = np.zeros(MILLISECONDS, bool), np.zeros(MILLISECONDS, bool)
    for start, end in speech:
        is_speech[start:end] = True
    for (_, end), (start, _) in pairwise(speech):
        if start - end <= 1000 * PAUSE_SECONDS:
            is_speech[end:start] = True
    for start, end in words:
        covered[max(0, start - round(1000 * BEFORE_SECONDS)) : end + round(1000 * AFTER_SECONDS)] = True
    missing = is_speech & ~covered
    gaps = np.cumsum(np.diff(covered, prepend=True) & ~covered) * ~covered
    longest = max(int((missing & (gaps == gap)).sum()) for gap in range(gaps.max() + 1)) if not covered.all() else 0
    return longest / 1000, missing.sum() / is_speech.sum() if is_speech.any() else 0.0


def spans(draw: np.random.Generator, most: int) -> list[tuple[int, int]]:
    places = sorted(draw.choice(MILLISECONDS - 2, 2 * int(draw.integers(most)), replace=False).tolist())
    return list(zip(places[::2], places[1::2], strict=True))


def test_it_is_what_counting_milliseconds_gives():
    draw = np.random.default_rng(0)
    for _ in range(200):
        speech, words = spans(draw, 12), spans(draw, 20)
        words = [words[place] for place in draw.permutation(len(words))]
        words += [(start, min(MILLISECONDS, end + 900)) for start, end in words[:2]]  # words may overlap
        found = unread([(a / 1000, b / 1000) for a, b in speech], [(a / 1000, b / 1000) for a, b in words])
        longest, share = counted(speech, words)
        assert found.longest == pytest.approx(longest, abs=1e-6)
        assert found.share == pytest.approx(share, abs=1e-6)


@pytest.mark.parametrize(
    ("speech", "words", "longest", "share"),
    [
        ([], [], 0, 0),
        ([], [(1, 2)], 0, 0),
        ([(0, 10)], [], 10, 1),
        ([(0, 10)], [(0, 9.6)], 0, 0),
        ([(0, 10)], [(2.25, 4.5)], 5, 0.7),
        ([(0, 2), (2.4, 10)], [], 10, 1),  # a pause within speech
        ([(0, 2), (4, 10)], [], 8, 1),  # one stretch between words, without its pause
        ([(0, 2), (4, 10)], [(2.5, 3.5)], 6, 1),
        ([(3, 3)], [], 0, 0),
    ],
)
def test_stretches_end_at_words(speech, words, longest, share):
    assert unread(speech, words) == pytest.approx((longest, share))
