"""Subtitles, read back by webvtt-py and pysubs2."""

import tempfile
from pathlib import Path

import pysubs2
import webvtt
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.corpora import labelled
from tests.exports import export_to
from tests.text.formats.spans import HOSTILE, STORED, Span, labels_of, on_one_line

SHOWN = str.maketrans("<>{}\\", "＜＞｛｝＼")
ROWS = st.lists(st.lists(STORED, min_size=1, max_size=6), min_size=10, max_size=25)
ALL_HOSTILE = [[text.encode("utf-8", "replace").decode()] for text in HOSTILE]


def files(folder: Path, to: str, rows: list[list[Span]], max_chars: int = 400) -> list[Path]:
    """Return the files of rows of words, with cues that are shown as long as their words are said."""
    sink = labelled(folder, labels_of(rows))
    quick = {"min_seconds": 0.0, "max_seconds": 3600.0, "max_chars_per_second": 1000.0}
    export_to(to, str(sink), dest=f"{folder}/{to}", max_chars=max_chars, **quick)
    return [folder / to / "a" / f"u{row}.{to}" for row in range(len(rows))]


def apart(texts: list[str]) -> list[Span]:
    """Return words that have a cue each, the n-th from 10 n to 10 n + 2 seconds."""
    return [Span(text, 10.0 * n, 10.0 * n + 2, 1.0) for n, text in enumerate(texts)]


def cues(texts: list[str]) -> list[tuple[str, int, int]]:
    """Return text, start and end in milliseconds of the cues of `apart`; texts without visible characters have none."""
    cleaned = [(on_one_line(text), 10_000 * n) for n, text in enumerate(texts)]
    return [(text, start, start + 2000) for text, start in cleaned if text]


class TestTwoCues:
    SPANS = (
        Span("one", 0.0, 1.5, 1.0),
        *(Span(word, 3661.001, 3662.0, 1.0) for word in ("<two>", "&", "three", "--->", "{\\4}")),
    )

    def test_a_subrip_file(self, tmp_path):
        [file] = files(tmp_path, "srt", [[*self.SPANS]], 14)
        assert file.read_bytes().decode() == (
            "1\n00:00:00,000 --> 00:00:01,500\none\n\n2\n01:01:01,001 --> 01:01:02,000\n＜two＞ & three\n-＞ ｛＼4｝\n"
        )

    def test_a_webvtt_file(self, tmp_path):
        [file] = files(tmp_path, "vtt", [[*self.SPANS]], 14)
        assert file.read_bytes().decode() == (
            "WEBVTT\n\n00:00:00.000 --> 00:00:01.500\none\n"
            "\n01:01:01.001 --> 01:01:02.000\n&lt;two&gt; &amp; three\n---&gt; {\\4}\n"
        )


def test_without_words_there_is_a_file_that_readers_open(tmp_path):
    [subrip], [web] = (files(tmp_path / to, to, [[]]) for to in ("srt", "vtt"))
    assert subrip.read_text() == "1\n00:00:00,000 --> 00:00:00,001\n\n"
    assert web.read_text() == "WEBVTT\n"
    assert [one.text for one in pysubs2.load(str(subrip))] == [""]
    assert len(webvtt.read(str(web))) == 0


@settings(max_examples=2, deadline=None)
@example(ALL_HOSTILE)
@given(ROWS)
def test_webvtt_reads_the_same_texts_and_times(rows):
    with tempfile.TemporaryDirectory() as folder:
        for file, texts in zip(files(Path(folder), "vtt", [*map(apart, rows)]), rows, strict=True):
            found = [(one.raw_text, milliseconds(one.start), milliseconds(one.end)) for one in webvtt.read(str(file))]
            assert found == [(escaped(text), start, end) for text, start, end in cues(texts)]


def escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def milliseconds(time: str) -> int:
    hours, minutes, seconds = time.split(":")
    return round(((int(hours) * 60 + int(minutes)) * 60 + float(seconds)) * 1000)


@settings(max_examples=2, deadline=None)
@example(ALL_HOSTILE)
@given(ROWS)
def test_pysubs2_reads_the_same_texts_and_times_of_subrip(rows):
    rows = [[f"w{text}" for text in texts] for texts in rows]
    with tempfile.TemporaryDirectory() as folder:
        for file, texts in zip(files(Path(folder), "srt", [*map(apart, rows)]), rows, strict=True):
            found = [(one.plaintext, one.start, one.end) for one in pysubs2.load(str(file), format_="srt")]
            assert found == [(without_arrows(text).translate(SHOWN), start, end) for text, start, end in cues(texts)]


def without_arrows(text: str) -> str:
    while "-->" in text:
        text = text.replace("-->", "->")
    return text
