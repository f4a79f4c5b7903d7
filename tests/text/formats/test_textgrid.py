"""TextGrids, read back by praatio."""

from itertools import pairwise

import pytest
from hypothesis import given
from praatio import textgrid as praat

from raysp.text.formats.annotations import textgrid
from raysp.text.formats.safe_values import on_one_line
from raysp.text.times import Span
from tests.text.formats.spans import WILD, words


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return tmp_path_factory.mktemp("praat") / "file.TextGrid"


def read(file, text: str):
    file.write_bytes(text.encode())
    return praat.openTextgrid(str(file), includeEmptyIntervals=True)


def test_intervals_cover_the_recording_with_empty_ones_between(file):
    spans = [Span('say "hi"', 0.5, 1.0, 1.0), Span("you", 1.0, 1.25, 1.0)]
    found = read(file, textgrid({"words": spans}, 2.0)).getTier("words")
    entries = [(one.start, one.end, one.label) for one in found.entries]
    assert entries == [(0, 0.5, ""), (0.5, 1.0, 'say "hi"'), (1.0, 1.25, "you"), (1.25, 2.0, "")]
    assert 'text = "say ""hi"""' in file.read_text()


def test_a_span_that_overlaps_the_one_before_is_shortened(file):
    spans = [Span("a", 0.0, 1.0, 1.0), Span("b", 0.5, 1.5, 1.0), Span("c", 0.6, 0.9, 1.0)]
    found = read(file, textgrid({"words": spans}, 1.0)).getTier("words")
    assert [(one.start, one.end, one.label) for one in found.entries] == [(0, 1, "a"), (1, 1.5, "b")]


def test_a_span_without_a_duration_joins_its_neighbour(file):
    spans = [Span('"', 0.0, 0.0, 1.0), Span("a", 0.0, 1.0, 1.0), Span("-", 1.0, 1.0, 1.0), Span("b", 1.5, 2.0, 1.0)]
    found = read(file, textgrid({"words": spans, "marks": spans[2:3]}, 2.0))
    entries = [(one.start, one.end, one.label) for one in found.getTier("words").entries]
    assert entries == [(0, 1, '" a -'), (1, 1.5, ""), (1.5, 2, "b")]
    assert [one.label for one in found.getTier("marks").entries] == ["-"]


@pytest.mark.slow
@given(spans=words(), chars=words(most=4))
def test_praatio_reads_the_same_texts_and_times(file, spans, chars):
    found = read(file, textgrid({"words": spans, "chars": chars}, 5.0))
    assert list(found.tierNames) == ["words", "chars"]
    for name, given_spans in (("words", spans), ("chars", chars)):
        entries = found.getTier(name).entries
        assert all(a.end == b.start for a, b in pairwise(entries))
        assert (entries[0].start, entries[-1].end) == (0, found.maxTimestamp)
        texts = {round(one.start, 6): one.label for one in entries if one.label}
        assert texts == {one.start: on_one_line(one.text) for one in given_spans if on_one_line(one.text)}


@given(spans=WILD)
def test_intervals_are_contiguous_for_any_spans(file, spans):
    bounded = [one for one in spans if abs(one.start) < 1e6 and abs(one.end) < 1e6]
    entries = read(file, textgrid({"words": bounded}, float("nan"))).getTier("words").entries
    assert all(a.end == b.start for a, b in pairwise(entries))


def test_a_recording_without_words_is_one_empty_interval(file):
    [one] = read(file, textgrid({"words": []}, 1.5)).getTier("words").entries
    assert (one.start, one.end, one.label) == (0, 1.5, "")
