"""Texts, ids and names of files after cleaning."""

from urllib.parse import unquote

import pytest
from hypothesis import given

from raysp.text.formats.safe_values import FileNames, as_field, in_order, on_one_line, valid, with_times
from raysp.text.times import Span
from tests.text.formats.spans import TEXTS, WILD


@given(TEXTS)
def test_a_cleaned_text_is_one_line_and_stays_so(text):
    found = on_one_line(text)
    assert len(found.splitlines()) <= 1
    assert found == on_one_line(found)
    found.encode()


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [("one\r\n two\tthree ", "one two three"), ("\x00a\x1b[0m", "a[0m"), ("שלום עולם", "שלום עולם"), ("\ud800", "�")],
)
def test_a_cleaned_text_keeps_its_words(text, cleaned):
    assert on_one_line(text) == cleaned


@given(TEXTS)
def test_a_field_is_one_word_that_is_no_comment_and_decodes_to_the_text(text):
    found = as_field(text)
    assert found.split() == [found]
    assert not found.startswith((";", "#"))
    assert unquote(found) == (valid(text) or "<NA>")


@given(WILD)
def test_spans_in_order_have_finite_times(spans):
    found = in_order(spans)
    assert [one.start for one in found] == sorted(one.start for one in found)
    assert all(0 <= one.start <= one.end < float("inf") for one in found)


def test_words_without_times_follow_the_word_before_them():
    nan = float("nan")
    words = [Span("7", nan, nan, nan), Span("a", 1.0, 1.5, 0.5), Span("8", nan, nan, nan), Span("b", 2.0, 2.5, 0.5)]
    assert [(one.text, one.start, one.end) for one in with_times(words)] == [
        ("7", 1.0, 1.0),
        ("a", 1.0, 1.5),
        ("8", 1.5, 1.5),
        ("b", 2.0, 2.5),
    ]
    assert with_times(words[:1]) == []


@pytest.mark.parametrize(
    ("ids", "names"),
    [
        (["a-1", "b.c", "ß"], ["a-1", "b.c", "ß"]),
        (["a", "A", "a"], ["a", "A~1", "a~2"]),
        (["a/b", "a_b", "a:b"], ["a_b~0", "a_b", "a_b~2"]),
        (["../../x", "..", ""], ["x_.._x~0", "x~1", "x~2"]),
        (["CON", "nul.txt", "COM1", "console"], ["xCON~0", "xnul.txt~1", "xCOM1~2", "console"]),
        (["a~1", "é", "e\u0301"], ["a_1~0", "é", "é~2"]),
        ([".hidden", "-rf", "end. "], ["hidden~0", "x-rf~1", "end._~2"]),
    ],
)
def test_names_of_files(ids, names):
    name = FileNames()
    assert [name(one, row) for row, one in enumerate(ids)] == names
