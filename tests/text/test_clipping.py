"""Clips of recordings, cut at pauses."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raysp.text.clipping import Clip, cut_clips
from raysp.text.times import Span
from tests.text.formats.spans import WILD, words


def spoken(*times: tuple[float, float], score: float = 0.5) -> list[Span]:
    return [Span(f"w{number}", start, end, score) for number, (start, end) in enumerate(times)]


def cut(words: list[Span], seconds: float = 60.0, least: float = 1.0, most: float = 10.0):
    return cut_clips(words, seconds, min_seconds=least, max_seconds=most)


def test_a_recording_that_fits_is_one_clip_without_the_silence_around_it():
    clips, left_out = cut(spoken((5.0, 6.0), (6.5, 8.0)))
    assert clips == [Clip(4.75, 8.25, "w0 w1", 0.5)]
    assert not left_out


def test_a_clip_stays_within_the_recording():
    assert cut(spoken((0.1, 1.9)), seconds=2.0)[0] == [Clip(0.0, 2.0, "w0", 0.5)]


def test_a_clip_ends_at_the_widest_pause_after_half_of_the_longest_clip():
    found, _ = cut(spoken((0, 2), (2.9, 5.5), (6.0, 7.5), (7.6, 9.0), (9.1, 12.0)))
    assert [one.text for one in found] == ["w0 w1", "w2 w3 w4"]
    assert found[0].end == 5.75
    assert found[1].start == 5.75


def test_a_long_pause_ends_a_clip():
    found, _ = cut(spoken((0, 1), (3.0, 4.0)))
    assert [(one.start, one.end) for one in found] == [(0, 1.25), (2.75, 4.25)]


def test_words_that_are_too_long_and_clips_that_are_too_short_are_counted():
    found, left_out = cut(spoken((0, 15), (20, 20.1), (30, 32)))
    assert [one.text for one in found] == ["w2"]
    assert left_out == {"clip_too_long": 1, "clip_too_short": 1}


def test_a_word_without_times_belongs_to_the_clip_of_the_one_before():
    nan = float("nan")
    found, _ = cut([*spoken((0, 2), (2.5, 4)), Span("7", nan, nan, nan), *spoken((10, 12))])
    assert [(one.text, one.end) for one in found] == [("w0 w1 7", 4.25), ("w0", 12.25)]


def test_the_score_is_the_mean_of_the_words():
    spans = [Span("a", 0.0, 1.0, 0.5), Span("b", 1.0, 2.0, 1.0), Span("c", 2.0, 3.0, float("nan"))]
    assert cut(spans)[0][0].score == 0.75
    assert cut(spans[2:])[0][0].score is None


@pytest.mark.slow
@given(words(most=40), st.floats(0.1, 3), st.floats(4, 30))
def test_each_word_is_in_one_clip_or_left_out_and_clips_do_not_overlap(spans, least, most):
    spans = [one._replace(text=f"{number}") for number, one in enumerate(spans)]
    seconds = spans[-1].end + 0.5 if spans else 1.0
    clips, left_out = cut(spans, seconds, least, most)
    found = [int(word) for clip in clips for word in clip.text.split()]
    assert found == sorted(set(found))
    assert left_out or len(found) == len(spans)
    assert all(0 <= one.start < one.end <= round(seconds, 3) for one in clips)
    assert all(least <= one.seconds <= most for one in clips)
    assert all(a.end <= b.start for a, b in pairwise(clips))
    for clip in clips:
        for word in clip.text.split():
            assert round(clip.start, 3) <= spans[int(word)].start + 0.001
            assert spans[int(word)].end <= clip.end + 0.001


@given(WILD)
def test_wild_times_give_clips_within_bounds(spans):
    clips, _ = cut(spans, 30.0, 0.5, 5.0)
    assert all(0 <= one.start < one.end <= 30 for one in clips)
    assert all(0.5 <= one.seconds <= 5 for one in clips)


@pytest.mark.parametrize("seconds", [0.0, float("nan")])
def test_a_recording_without_a_duration_has_no_clips(seconds):
    assert cut(spoken((0.0, 2.0)), seconds)[0] == []
