"""Hostile texts, ids, times and values in every format, as independent readers read them."""

import datetime
import json
import math
import tempfile
from collections.abc import Mapping
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pyarrow as pa
import pysubs2
import pytest
import webvtt
from hypothesis import example, given, settings
from hypothesis import strategies as st
from lhotse import SupervisionSegment, SupervisionSet
from praatio import textgrid as praat

import raysp
from tests.corpora import labelled
from tests.exports import export_to
from tests.text.formats.spans import HOSTILE, STORED, STORED_WILD, Span, as_labels, on_one_line

SEGMENTS = pa.list_(
    pa.struct({"label": pa.string(), "start": pa.float64(), "end": pa.float64(), "score": pa.float32()})
)
TYPES = {"t": pa.string(), "f": pa.float64(), "n": pa.int64(), "l": pa.list_(pa.string())}
VALUES = st.fixed_dictionaries(
    {"t": st.none() | STORED, "f": st.none() | st.floats(), "n": st.none() | st.integers(-(2**63), 2**63 - 1)}
    | {"l": st.none() | st.lists(st.none() | STORED, max_size=3)}
)
NO_VALUES = dict.fromkeys(TYPES)
ALL_HOSTILE = [(text, [text, "a"], NO_VALUES) for text in (one.encode("utf-8", "replace").decode() for one in HOSTILE)]
OUTPUTS = (raysp.Transcript(words=True, chars=True), raysp.Transcript("visible", words=True))


def sink_of(folder: Path, rows: Mapping[str, list[Span]], **columns: Any) -> Path:
    """Return a sink of rows by id with words, which are their characters and segments too."""
    visible = [[one._replace(text=f"w{one.text}") for one in spans] for spans in rows.values()]
    return labelled(
        folder,
        {
            "id": [*rows],
            "pred_text": [" ".join(one.text for one in spans) for spans in rows.values()],
            "pred_words": [as_labels(spans) for spans in rows.values()],
            "pred_chars": [as_labels(spans, "char") for spans in rows.values()],
            "pred_segments": pa.array([as_labels(spans, "label") for spans in rows.values()], SEGMENTS),
            "visible_text": [" ".join(one.text for one in spans) for spans in visible],
            "visible_words": [as_labels(spans) for spans in visible],
            **columns,
        },
        OUTPUTS,
    )


def exported(sink: Path, to: str, **options: object) -> list[Path]:
    """Return the files of an export, with cues as long as their words are said.

    Where each row has a file they are in the order of the rows: ids end with two digits, the number of the row.
    """
    quick = {"min_seconds": 0.0, "max_seconds": 3600.0, "max_chars_per_second": 1000.0, "max_chars": 400}
    dest = sink.parent / f"to-{to}"
    export_to(to, str(sink), dest=str(dest), **(quick if to in ("srt", "vtt") else {}) | options)
    if to in ("ctm", "rttm", "jsonl"):
        return [dest / f"a.{to}"]
    return sorted((dest / "a").iterdir(), key=lambda file: int(file.stem.rpartition("~")[2][-2:]))


def apart(texts: list[str]) -> list[Span]:
    """Return words that have a cue each, the n-th from 10 n to 10 n + 2 seconds."""
    return [Span(text, 10.0 * n, 10.0 * n + 2, 1 / (n + 1)) for n, text in enumerate(texts)]


def cues(texts: list[str]) -> list[tuple[str, int, int]]:
    """Return text, start and end in milliseconds of the cues of `apart`; texts without visible characters have none."""
    cleaned = [(on_one_line(text), 10_000 * n) for n, text in enumerate(texts)]
    return [(text, start, start + 2000) for text, start in cleaned if text]


def whole(found: list[tuple[str, int, int]]) -> list[tuple[str, int, int]]:
    """Return the cues of `apart` with those in one that a word of a script without spaces is cut into."""
    words = [[*parts] for _, parts in groupby(found, key=lambda one: one[1] // 10_000)]
    return [("".join(text for text, *_ in parts), parts[0][1], parts[-1][2]) for parts in words]


@settings(max_examples=2, deadline=None)
@example(ALL_HOSTILE)
@given(st.lists(st.tuples(STORED, st.lists(STORED, min_size=1, max_size=6), VALUES), min_size=10, max_size=25))
def test_readers_of_each_format_read_the_same_texts_times_and_values(given_rows):
    texts = {f"{id_}{number:02}": of_row for number, (id_, of_row, _) in enumerate(given_rows)}
    rows = {id_: apart(of_row) for id_, of_row in texts.items()}
    values = {name: pa.array([one[name] for *_, one in given_rows], kind) for name, kind in TYPES.items()}
    with tempfile.TemporaryDirectory() as folder:
        sink = sink_of(Path(folder), rows, **values)
        check_ctm(exported(sink, "ctm")[0], rows)
        check_rttm(exported(sink, "rttm")[0], rows)
        check_json(exported(sink, "jsonl")[0], [one for *_, one in given_rows])
        for file, of_row in zip(exported(sink, "vtt"), texts.values(), strict=True):
            found = [(one.raw_text, milliseconds(one.start), milliseconds(one.end)) for one in webvtt.read(str(file))]
            assert whole(found) == [(escaped(text), start, end) for text, start, end in cues(of_row)]
        for file, of_row in zip(exported(sink, "srt", column="visible"), texts.values(), strict=True):
            found = [(one.plaintext, one.start, one.end) for one in pysubs2.load(str(file), format_="srt")]
            shown = cues([f"w{text}" for text in of_row])
            assert whole(found) == [(without_arrows(text).translate(SHOWN), start, end) for text, start, end in shown]
        for file, spans in zip(exported(sink, "textgrid"), rows.values(), strict=True):
            check_textgrid(file, spans)


def check_ctm(file: Path, rows: Mapping[str, list[Span]]) -> None:
    names = dict.fromkeys(line.split()[0] for line in file.read_text().splitlines())
    whole = [SupervisionSegment(id=name, recording_id=name, start=0, duration=1e6) for name in names]
    found = SupervisionSet.from_segments(whole).with_alignment_from_ctm(file)
    read = {unquote(one.recording_id): (one.alignment or {})["word"] for one in found}
    assert read.keys() == rows.keys()
    for id_, items in read.items():
        assert [unquote(one.symbol) for one in items] == [one.text or "<NA>" for one in rows[id_]]
        for name in ("start", "end", "score"):
            expected = [getattr(one, name) for one in rows[id_]]
            assert [getattr(one, name) for one in items] == pytest.approx(expected, abs=1e-4)


def check_rttm(file: Path, rows: Mapping[str, list[Span]]) -> None:
    expected = [(id_, one.text or "<NA>", one.start, one.end) for id_, spans in rows.items() for one in spans]
    found = SupervisionSet.from_rttm(file)
    read = [(unquote(one.recording_id), unquote(one.speaker), one.start, one.end) for one in found]
    assert read == expected


def check_json(file: Path, values: list[dict[str, Any]]) -> None:
    for line, row in zip(file.read_bytes().decode().splitlines(), values, strict=True):
        found, number = json.loads(line, parse_constant=lambda name: 1 / 0), row["f"]
        expected = None if number is None or not math.isfinite(number) else number
        assert {name: found[name] for name in TYPES} == {**row, "f": expected}


def check_textgrid(file: Path, spans: list[Span]) -> None:
    grid = praat.openTextgrid(str(file), includeEmptyIntervals=True)
    assert list(grid.tierNames) == ["words", "chars"]
    for name in grid.tierNames:
        entries = grid.getTier(name).entries
        assert all(a.end == b.start for a, b in pairwise(entries))
        assert (entries[0].start, entries[-1].end) == (0, grid.maxTimestamp)
        texts = {round(one.start, 6): one.label for one in entries if one.label}
        assert texts == {one.start: on_one_line(one.text) for one in spans if on_one_line(one.text)}


SHOWN = str.maketrans("<>{}\\", "＜＞｛｝＼")


def escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def without_arrows(text: str) -> str:
    while "-->" in text:
        text = text.replace("-->", "->")
    return text


def milliseconds(time: str) -> int:
    hours, minutes, seconds = time.split(":")
    return round(((int(hours) * 60 + int(minutes)) * 60 + float(seconds)) * 1000)


@settings(max_examples=3, deadline=None)
@given(st.lists(STORED_WILD, min_size=10, max_size=25))
def test_files_of_any_times_keep_the_rules_of_their_format(rows):
    bounded = [[one for one in spans if not max(abs(one.start), abs(one.end)) >= 1e6] for spans in rows]
    with tempfile.TemporaryDirectory() as folder:
        sink = sink_of(Path(folder), {f"r{number:02}": spans for number, spans in enumerate(bounded)})
        ctm, rttm = (exported(sink, to)[0].read_text().splitlines() for to in ("ctm", "rttm"))
        assert all(5 <= len(line.split()) <= 6 for line in ctm)
        assert all(len(line.split()) == 10 for line in rttm)
        for file in exported(sink, "textgrid"):
            grid = praat.openTextgrid(str(file), includeEmptyIntervals=True)
            assert all(a.end == b.start for a, b in pairwise(grid.getTier("words").entries))
        for file in exported(sink, "srt", column="visible"):
            assert all(a.end <= b.start for a, b in pairwise(pysubs2.load(str(file), format_="srt")))


NAN = float("nan")
ROWS = {
    "a b00": [Span("two", 1.0, 1.5, NAN), Span("one", 0.04, 0.6004, 0.98768)],
    "01": [Span("#<3>", 0.0, 2.0, 2.0)],
    "figures02": [
        Span("7", NAN, NAN, NAN),
        Span("a", 1.0, 1.5, 0.5),
        Span("8", NAN, NAN, NAN),
        Span("b", 20.0, 21.0, 1),
    ],
    "marks03": [Span('"', 0.0, 0.0, 1.0), Span("a", 0.0, 1.0, 1.0), Span("-", 1.0, 1.0, 1.0), Span("b", 1.5, 2.0, 1.0)],
    "late04": [Span("one", 0.0, 1.5, 1.0), Span("--->", 3661.001, 3662.0, 1.0)],
}


def test_files_of_some_rows_to_the_letter(tmp_path):
    sink = sink_of(tmp_path, ROWS)
    ctm = exported(sink, "ctm")[0].read_text()
    assert ctm.startswith(
        "a%20b00 1 0.040 0.560 one 0.9877\na%20b00 1 1.000 0.500 two\n01 1 0.000 2.000 %23<3> 1.0000\n"
    )
    assert exported(sink, "rttm")[0].read_text().startswith("SPEAKER a%20b00 1 0.040 0.560 <NA> <NA> one <NA> <NA>\n")
    *_, file = exported(sink, "srt")
    assert file.read_bytes().decode() == (
        "1\n00:00:00,000 --> 00:00:01,500\none\n\n2\n01:01:01,001 --> 01:01:02,000\n-＞\n"
    )
    *_, file = exported(sink, "vtt")
    assert file.read_bytes().decode() == (
        "WEBVTT\n\n00:00:00.000 --> 00:00:01.500\none\n\n01:01:01.001 --> 01:01:02.000\n---&gt;\n"
    )


def test_words_without_times_or_without_a_duration_follow_the_word_before_them(tmp_path):
    sink = sink_of(tmp_path, ROWS)
    figures = pysubs2.load(str(exported(sink, "srt")[2]))
    assert [(one.plaintext, one.start) for one in figures] == [("7 a 8", 1000), ("b", 20_000)]
    grid = praat.openTextgrid(str(exported(sink, "textgrid")[3]), includeEmptyIntervals=True)
    words = [(one.start, one.end, one.label) for one in grid.getTier("words").entries]
    assert words == [(0, 1, '" a -'), (1, 1.5, ""), (1.5, 2, "b")]


def test_bytes_and_dates_are_texts_and_scripts_are_readable_in_json(tmp_path):
    columns = {
        "pred_text": [""],
        "x": pa.array([b"\xff"]),
        "y": pa.array([datetime.date(2020, 1, 2)]),
        "z": pa.array([{"d": [NAN]}]),
        "zz": pa.array(["שלום\u2028\x85"]),
    }
    [file] = exported(labelled(tmp_path, columns), "jsonl")
    assert file.read_text().endswith(
        '"x": "/w==", "y": "2020-01-02", "z": {"d": [null]}, "zz": "שלום\\u2028\\u0085"}\n'
    )
