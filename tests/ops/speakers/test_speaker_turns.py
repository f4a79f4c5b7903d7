"""Turns: within the regions of speech, numbered by first speech, of one speaker each."""

from itertools import pairwise

import numpy as np
import pytest

from raysp.ops.speakers.speaker_turns import Diarization, Turn
from raysp.ops.speakers.word_speakers import spoken

STEP = 0.5


def diarization(**fields):
    given = {"threshold": 0.5, "bounds": (1, None), "least_seconds": 1.0, "merge_seconds": 0.5, "step_seconds": STEP}
    given |= {"window_seconds": 1.5, "change_seconds": 0.375}
    return Diarization(**{**given, **fields})


def vectors_of(speakers, seed=0):
    """Return vectors near an axis for each speaker."""
    noise = 0.05 * np.random.default_rng(seed).standard_normal((len(speakers), 8))
    return np.eye(8)[np.array(speakers, int)] + noise


def middles_of(count):
    return (np.arange(count) + 0.5) * STEP


def spans(turns):
    return [(one.speaker, one.start, one.end) for one in turns]


def test_a_region_changes_its_speaker_halfway_between_windows():
    found = diarization()([(0.2, 9.9)], middles_of(20), vectors_of([5] * 8 + [2] * 8 + [5] * 4))
    assert spans(found) == [(0, 0.2, 4.0), (1, 4.0, 8.0), (0, 8.0, 9.9)]
    assert all(0.9 < one.score <= 1 for one in found)


def test_speech_alone_is_in_turns_and_short_pauses_end_none():
    regions = [(0.1, 2.0), (2.3, 4.0), (5.0, 7.0), (7.2, 9.0)]
    found = diarization()(regions, middles_of(20), vectors_of([0] * 14 + [1] * 6))
    assert spans(found) == [(0, 0.1, 4.0), (0, 5.0, 7.0), (1, 7.2, 9.0)]
    apart = diarization(merge_seconds=0)(regions, middles_of(20), vectors_of([0] * 14 + [1] * 6))
    assert [one[1:] for one in spans(apart)] == regions


def test_windows_outside_of_speech_have_no_part():
    speakers = [3] * 6 + [6] * 8 + [3] * 6  # silence sounds like another speaker
    found = diarization()([(0.0, 3.0), (7.0, 10.0)], middles_of(20), vectors_of(speakers))
    assert {one.speaker for one in found} == {0}


def test_a_region_without_a_window_has_the_nearest_speaker():
    middles = np.array([0.25, 0.75, 1.25, 5.25, 5.75, 6.25])
    found = diarization(least_seconds=0)([(0, 1.5), (4.6, 4.7), (5, 6.5)], middles, vectors_of([0, 0, 0, 1, 1, 1]))
    assert spans(found) == [(0, 0, 1.5), (1, 4.6, 6.5)]
    for regions, count in (([], 10), ([(0.0, 1.0)], 0)):
        assert diarization()(regions, middles_of(count), vectors_of([0] * count)) == []


def test_a_single_odd_window_changes_no_speaker():
    vectors = vectors_of([0] * 10 + [1] * 10)
    vectors[4] = 0.6 * np.eye(8)[1] + 0.5 * np.eye(8)[0]
    assert [one.speaker for one in diarization()([(0, 10)], middles_of(20), vectors)] == [0, 1]


def test_what_all_windows_share_counts_only_if_there_may_be_one_speaker():
    speakers = [0] * 10 + [1] * 10
    vectors = vectors_of(speakers) + 20 * np.eye(8)[7]
    found = [diarization(bounds=bounds)([(0, 10)], middles_of(20), vectors) for bounds in ((1, None), (2, 2), (2, 5))]
    assert [[one.speaker for one in turns] for turns in found] == [[0], [0, 1], [0, 1]]


@pytest.mark.parametrize("seed", range(5))
def test_turns_are_in_order_do_not_overlap_and_cover_the_speech(seed):
    draw = np.random.default_rng(seed)
    edges = np.sort(draw.uniform(0, 60, 24))
    regions = list(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True))
    vectors = vectors_of(np.repeat(draw.integers(0, 4, 24), 5), seed)
    found = diarization(merge_seconds=0)(regions, middles_of(120), vectors)
    assert sum(one.end - one.start for one in found) == pytest.approx(sum(end - start for start, end in regions))
    assert all(before.end <= after.start for before, after in pairwise(found))
    firsts = list(dict.fromkeys(one.speaker for one in found))
    assert firsts == list(range(len(firsts)))


class TestWords:
    turns = tuple(turn._asdict() for turn in (Turn(0, 1.0, 3.0, 0.9), Turn(1, 3.0, 5.0, 0.9), Turn(0, 6.0, 7.0, 0.9)))

    @pytest.mark.parametrize(
        ("start", "end", "speaker"),
        [
            (1.2, 1.5, 0),
            (2.8, 3.4, 1),
            (5.1, 5.4, 1),
            (5.6, 5.9, 0),
            (0.0, 0.5, 0),
            (2, 7, 1),
        ],
    )
    def test_a_word_has_the_speaker_of_the_largest_part_or_of_the_nearest_turn(self, start, end, speaker):
        [word] = spoken(self.turns, [{"word": "a", "start": start, "end": end, "score": 0.5}])
        assert word == {"word": "a", "start": start, "end": end, "score": 0.5, "speaker": speaker}

    def test_words_without_times_or_turns_have_no_speaker(self):
        word = {"word": "a", "start": None, "end": None, "score": None}
        assert spoken(self.turns, [word]) == [{**word, "speaker": None}]
        assert spoken([], [{**word, "start": 1.0, "end": 2.0}])[0]["speaker"] is None
        assert spoken(self.turns, None) is None
