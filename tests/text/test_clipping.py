"""Clips of recordings, cut at pauses."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from raysp.text.clipping import Rules, cut_clips, solo_regions
from raysp.text.times import Span
from tests.text.formats.spans import words


def spoken(*times: tuple[float, float]) -> list[Span]:
    return [Span(f"w{number}", start, end, 0.5) for number, (start, end) in enumerate(times)]


def cut(words: list[Span], seconds: float = 60.0, least: float = 1.0, most: float = 10.0):
    return cut_clips(words, seconds, Rules(least, most))


def test_a_clip_ends_at_the_widest_pause_after_half_of_the_longest_clip():
    found, _ = cut(spoken((0, 2), (2.9, 5.5), (6.0, 7.5), (7.6, 9.0), (9.1, 12.0)))
    assert [one.text for one in found] == ["w0 w1", "w2 w3 w4"]
    assert found[0].end == 5.75
    assert found[1].start == 5.75


def test_words_that_are_too_long_and_clips_that_are_too_short_are_counted():
    found, left_out = cut(spoken((0, 15), (20, 20.1), (30, 32)))
    assert [one.text for one in found] == ["w2"]
    assert left_out == {"too_long": 1, "too_short": 1}


def test_a_word_without_times_belongs_to_the_clip_of_the_one_before():
    nan = float("nan")
    found, _ = cut([*spoken((0, 2), (2.5, 4)), Span("7", nan, nan, nan), *spoken((10, 12))])
    assert [(one.text, one.end) for one in found] == [("w0 w1 7", 4.25), ("w0", 12.25)]


def said(*words: tuple[str, float, float, str]) -> list[Span]:
    return [Span(text, start, end, 0.5, speaker) for text, start, end, speaker in words]


def test_regions_in_which_several_speak_are_left_out():
    turns = said(("A", 0, 10, "A"), ("B", 6, 7, "B"), ("B", 12.5, 15, "B"))
    assert [(turn.speaker, turn.start, turn.end) for turn in solo_regions(turns)] == [
        ("A", 0, 6),
        ("A+B", 6, 7),
        ("A", 7, 10),
        ("B", 12.5, 15),
    ]
    clips, left_out = cut_clips(solo_regions(turns), 60.0, Rules(0.5, 20.0, by="turns"))
    assert [(clip.start, clip.end, clip.speaker) for clip in clips] == [
        (0, 6, "A"),
        (7, 10.25, "A"),
        (12.25, 15.25, "B"),
    ]
    assert left_out == {"of_several_speakers": 1}


@given(words(most=40), st.floats(0, 1), st.floats(0.1, 5), st.sampled_from(["words", "sentences", "turns"]))
def test_any_rules_give_clips_within_bounds_of_one_speaker_each(spans, padding, max_pause, by):
    spans = [span._replace(text=f"{n}{'.' * (n % 3 == 0)}", speaker=f"{n // 4 % 2}") for n, span in enumerate(spans)]
    clips, _ = cut_clips(spans, 60.0, Rules(0.5, 8.0, max_pause, padding, by))
    assert all(a.end <= b.start for a, b in pairwise(clips))
    assert all(0.5 <= clip.seconds <= 8 for clip in clips)
    places = [[int(word.strip(".")) for word in clip.text.split()] for clip in clips]
    assert by != "turns" or all(len({place // 4 % 2 for place in clip}) == 1 for clip in places)
    for clip, found in zip(clips, places, strict=True):
        assert all(b.start - a.end < max_pause for a, b in pairwise(spans[found[0] : found[-1] + 1]))
        assert clip.start >= spans[found[0]].start - padding - 0.001
