"""TextGrids, read back by praatio."""

import math
import tempfile
from itertools import pairwise
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from praatio import textgrid as praat

import raysp
from tests.corpora import labelled
from tests.text.formats.spans import STORED, STORED_WILD, Span, as_labels, labels_of, on_one_line, words


def grids(folder: Path, rows: list[tuple[list[Span], list[Span]]], seconds: list[float]) -> list[Any]:
    """Return the grids of rows of words and characters, by praatio."""
    columns = labels_of([spans for spans, _ in rows])
    chars = [as_labels(chars, "char") for _, chars in rows]
    ids = [f"r{number:03}" for number in range(len(rows))]
    sink = labelled(folder, {**columns, "id": ids, "pred_chars": chars, "seconds": seconds})
    raysp.export(str(sink), to="textgrid", dest=str(folder / "grids"))
    return [praat.openTextgrid(str(folder / f"grids/a/{id_}.TextGrid"), includeEmptyIntervals=True) for id_ in ids]


def intervals(folder: Path, spans: list[Span], seconds: float, chars: tuple[Span, ...] = ()) -> dict[str, list[Any]]:
    """Return the intervals of a row by their tier."""
    [grid] = grids(folder, [(spans, [*chars])], [seconds])
    return {name: [(one.start, one.end, one.label) for one in grid.getTier(name).entries] for name in grid.tierNames}


def test_intervals_cover_the_recording_with_empty_ones_between(tmp_path):
    spans = [Span('say "hi"', 0.5, 1.0, 1.0), Span("you", 1.0, 1.25, 1.0)]
    entries = intervals(tmp_path, spans, 2.0)["words"]
    assert entries == [(0, 0.5, ""), (0.5, 1.0, 'say "hi"'), (1.0, 1.25, "you"), (1.25, 2.0, "")]
    assert 'text = "say ""hi"""' in (tmp_path / "grids/a/r000.TextGrid").read_text()


def test_a_span_without_a_duration_joins_its_neighbour(tmp_path):
    spans = [Span('"', 0.0, 0.0, 1.0), Span("a", 0.0, 1.0, 1.0), Span("-", 1.0, 1.0, 1.0), Span("b", 1.5, 2.0, 1.0)]
    found = intervals(tmp_path, spans, 2.0, (spans[2],))
    assert found["words"] == [(0, 1, '" a -'), (1, 1.5, ""), (1.5, 2, "b")]
    assert [label for _, _, label in found["chars"]] == ["-"]


@settings(max_examples=3, deadline=None)
@given(st.lists(st.tuples(words(STORED), words(STORED, most=4)), min_size=10, max_size=25))
def test_praatio_reads_the_same_texts_and_times(rows):
    with tempfile.TemporaryDirectory() as folder:
        found = grids(Path(folder), rows, [5.0] * len(rows))
    for grid, spans in zip(found, rows, strict=True):
        assert list(grid.tierNames) == ["words", "chars"]
        for name, given_spans in zip(grid.tierNames, spans, strict=True):
            entries = grid.getTier(name).entries
            assert all(a.end == b.start for a, b in pairwise(entries))
            assert (entries[0].start, entries[-1].end) == (0, grid.maxTimestamp)
            texts = {round(one.start, 6): one.label for one in entries if one.label}
            assert texts == {one.start: on_one_line(one.text) for one in given_spans if on_one_line(one.text)}


@settings(max_examples=3, deadline=None)
@given(st.lists(STORED_WILD, min_size=10, max_size=25))
def test_intervals_are_contiguous_for_any_spans(rows):
    bounded = [[one for one in spans if abs(one.start) < 1e6 and abs(one.end) < 1e6] for spans in rows]
    with tempfile.TemporaryDirectory() as folder:
        found = grids(Path(folder), [(spans, []) for spans in bounded], [math.nan] * len(rows))
    for grid in found:
        assert all(a.end == b.start for a, b in pairwise(grid.getTier("words").entries))
