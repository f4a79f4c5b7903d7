"""Subtitles, read back by webvtt-py and pysubs2."""

import io
from itertools import pairwise

import pysubs2
import pytest
import webvtt
from hypothesis import given
from hypothesis import strategies as st

from raysp.text.formats.safe_values import on_one_line
from raysp.text.formats.subtitles import Cue, cues_of, one_cue, srt, vtt
from raysp.text.times import Span
from tests.text.formats.spans import TEXTS, WILD, words


def spoken(text: str, seconds: float = 0.4, start: float = 0.0) -> list[Span]:
    """Time words evenly."""
    return [
        Span(word, start + number * seconds, start + (number + 1) * seconds, 0.9)
        for number, word in enumerate(text.split())
    ]


@pytest.fixture
def two() -> tuple[Cue, ...]:
    return (Cue(0, 1500, ("one",)), Cue(3_661_001, 3_662_000, ("<two> & three", "--> four")))


def test_a_subrip_file(two):
    assert srt(two) == (
        "1\n00:00:00,000 --> 00:00:01,500\none\n\n2\n01:01:01,001 --> 01:01:02,000\n＜two＞ & three\n-＞ four\n"
    )


def test_a_webvtt_file(two):
    assert vtt(two) == (
        "WEBVTT\n\n00:00:00.000 --> 00:00:01.500\none\n"
        "\n01:01:01.001 --> 01:01:02.000\n&lt;two&gt; &amp; three\n--&gt; four\n"
    )


def test_without_cues_there_is_a_file_that_readers_open():
    assert (srt([]), vtt([])) == ("1\n00:00:00,000 --> 00:00:00,001\n\n", "WEBVTT\n")
    assert [one.text for one in pysubs2.SSAFile.from_string(srt([]))] == [""]
    assert len(webvtt.from_buffer(io.StringIO(vtt([])))) == 0


class TestCues:
    def test_a_cue_has_two_lines_of_about_equal_length(self):
        [cue] = cues_of(spoken("the quick brown fox jumps over the lazy dog near a river"))
        assert cue.lines == ("the quick brown fox jumps", "over the lazy dog near a river")
        assert (cue.start, cue.end) == (0, 4800)

    def test_a_pause_and_the_end_of_a_sentence_end_a_cue(self):
        early, late = spoken("so it is done. And then"), spoken("later", start=6.0)
        assert [cue.lines for cue in cues_of([*early, *late])] == [("so it is done.",), ("And then",), ("later",)]

    def test_a_short_cue_is_shown_for_a_second_but_not_into_the_next(self):
        cues = cues_of([Span("no.", 0.0, 0.2, 1.0), Span("yes", 5.0, 5.2, 1.0)])
        assert [(cue.start, cue.end) for cue in cues] == [(0, 1000), (5000, 6000)]
        cues = cues_of([Span("no.", 0.0, 0.2, 1.0), Span("yes", 1.25, 1.5, 1.0)])
        assert [(cue.start, cue.end) for cue in cues] == [(0, 1000), (1250, 2250)]

    def test_a_gap_too_short_to_be_seen_is_closed(self):
        first, second = cues_of([Span("a" * 30 + ".", 0.0, 2.0, 1.0), Span("b", 2.1, 4.0, 1.0)])
        assert (first.end, second.start) == (2100, 2100)

    def test_a_longer_text_and_a_longer_time_begin_another_cue(self):
        assert [len(cue.lines) for cue in cues_of(spoken("word " * 20, 0.1))] == [2, 1]
        assert len(cues_of(spoken("a b c d", 2.0), max_seconds=4.0)) == 2

    def test_a_word_longer_than_a_line_is_divided(self):
        cues = cues_of([Span("e\u0301" * 30, 0.0, 6.0, 1.0)], max_chars=5)
        assert "".join("".join(cue.lines) for cue in cues) == "e\u0301" * 30
        assert all(line.startswith("e") for cue in cues for line in cue.lines)

    def test_a_text_without_words_is_one_cue_over_the_recording(self):
        [cue] = one_cue("one\ntwo " * 5, 3.25, max_chars=12)
        assert (cue.start, cue.end) == (0, 3250)
        assert cue.lines == ("one two one", "two one two", "one two one", "two")
        assert one_cue(" \n", 3.0) == ()

    @given(words(), st.integers(5, 60), st.floats(0.5, 10))
    def test_all_words_are_kept_in_order_and_no_cue_is_too_long(self, spans, max_chars, max_seconds):
        cues = cues_of(spans, max_chars=max_chars, max_seconds=max_seconds)
        shown = "".join(line for cue in cues for line in cue.lines).replace(" ", "")
        assert shown == "".join(on_one_line(one.text) for one in spans).replace(" ", "")
        assert all(len(line) <= max_chars for cue in cues for line in cue.lines)
        assert all(1 <= len(cue.lines) <= 2 for cue in cues)
        assert all(0 < cue.end - cue.start <= round(max_seconds * 1000) for cue in cues)
        assert all(a.end <= b.start for a, b in pairwise(cues))

    @given(WILD)
    def test_wild_times_make_no_error(self, spans):
        bounded = [one for one in spans if abs(one.start) < 1e9 and abs(one.end) < 1e9]
        cues = cues_of(bounded)
        assert all(a.end <= b.start for a, b in pairwise(cues))
        srt(cues).encode()


SHOWN = {"<": "＜", ">": "＞", "{": "｛", "}": "｝", "\\": "＼"}


@given(st.lists(TEXTS, min_size=1, max_size=6))
def test_webvtt_reads_the_same_texts_and_times(texts):
    spans = [Span(text, 10.0 * n, 10.0 * n + 2, 1.0) for n, text in enumerate(texts)]
    cues = cues_of(spans, max_chars=400)
    found = webvtt.from_buffer(io.StringIO(vtt(cues)))
    escaped = [[line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;") for line in c.lines] for c in cues]
    assert [caption.raw_text.split("\n") for caption in found] == escaped
    times = [tuple(milliseconds(time) for time in (one.start, one.end)) for one in found]
    assert times == [(cue.start, cue.end) for cue in cues]


def milliseconds(time: str) -> int:
    hours, minutes, seconds = time.split(":")
    return round(((int(hours) * 60 + int(minutes)) * 60 + float(seconds)) * 1000)


@given(st.lists(TEXTS, min_size=1, max_size=6))
def test_pysubs2_reads_the_same_texts_and_times_of_subrip(texts):
    spans = [Span(f"w{text}", 10.0 * n, 10.0 * n + 2, 1.0) for n, text in enumerate(texts)]
    cues = cues_of(spans, max_chars=400)
    found = pysubs2.SSAFile.from_string(srt(cues), format_="srt")
    assert [(one.start, one.end) for one in found] == [(cue.start, cue.end) for cue in cues]
    for event, cue in zip(found, cues, strict=True):
        text = "\n".join(cue.lines)
        while "-->" in text:
            text = text.replace("-->", "->")
        assert event.plaintext == "".join(SHOWN.get(c, c) for c in text)
