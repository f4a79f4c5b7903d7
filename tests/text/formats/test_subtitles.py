"""Subtitles, read back by webvtt-py and pysubs2."""

import io

import pysubs2
import pytest
import webvtt
from hypothesis import given
from hypothesis import strategies as st

from raysp.text.formats.cues import Cue, Rules, cues_of
from raysp.text.formats.subtitles import srt, vtt
from raysp.text.times import Span
from tests.text.formats.spans import TEXTS


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


SHOWN = {"<": "＜", ">": "＞", "{": "｛", "}": "｝", "\\": "＼"}


@given(st.lists(TEXTS, min_size=1, max_size=6))
def test_webvtt_reads_the_same_texts_and_times(texts):
    spans = [Span(text, 10.0 * n, 10.0 * n + 2, 1.0) for n, text in enumerate(texts)]
    cues = cues_of(spans, Rules(max_chars=400))
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
    cues = cues_of(spans, Rules(max_chars=400))
    found = pysubs2.SSAFile.from_string(srt(cues), format_="srt")
    assert [(one.start, one.end) for one in found] == [(cue.start, cue.end) for cue in cues]
    for event, cue in zip(found, cues, strict=True):
        text = "\n".join(cue.lines)
        while "-->" in text:
            text = text.replace("-->", "->")
        assert event.plaintext == "".join(SHOWN.get(c, c) for c in text)
