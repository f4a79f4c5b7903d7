"""CTM and RTTM, read back by lhotse."""

import tempfile
from pathlib import Path
from urllib.parse import unquote

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lhotse import SupervisionSegment, SupervisionSet

import raysp
from tests.corpora import labelled
from tests.text.formats.spans import STORED, STORED_WILD, Span, as_labels, labels_of, words

SEGMENTS = pa.list_(
    pa.struct({"label": pa.string(), "start": pa.float64(), "end": pa.float64(), "score": pa.float32()})
)
ROWS = st.lists(st.tuples(STORED, words(STORED)), min_size=10, max_size=30)


def exported(folder: Path, to: str, ids: list[str], rows: list[list[Span]]) -> Path:
    """Return the file of an export of rows with these words, which are their segments too."""
    segments = pa.array([as_labels(one, "label") for one in rows], SEGMENTS)
    sink = labelled(folder, {"id": ids, **labels_of(rows), "pred_segments": segments})
    raysp.export(str(sink), to=to, dest=str(folder / to))
    return folder / to / f"a.{to}"


def test_the_lines_of_recordings(tmp_path):
    spans = [Span("two", 1.0, 1.5, float("nan")), Span("one", 0.04, 0.6004, 0.98768)]
    rows = {"a b": spans, "none": [], "": [Span("#three", 0.0, 2.0, 2.0)]}
    assert exported(tmp_path / "x", "ctm", [*rows], [*rows.values()]).read_text() == (
        "a%20b 1 0.040 0.560 one 0.9877\na%20b 1 1.000 0.500 two\n<NA> 1 0.000 2.000 %23three 1.0000\n"
    )
    assert exported(tmp_path / "y", "rttm", ["a", "b"], [spans[:1], []]).read_text() == (
        "SPEAKER a 1 1.000 0.500 <NA> <NA> two <NA> <NA>\n"
    )


@settings(max_examples=4, deadline=None)
@given(ROWS)
def test_lhotse_reads_the_words_of_a_ctm_file(rows):
    given_rows = {f"{id_}{number}": spans for number, (id_, spans) in enumerate(rows)}
    with tempfile.TemporaryDirectory() as folder:
        file = exported(Path(folder), "ctm", [*given_rows], [*given_rows.values()])
        names = dict.fromkeys(line.split()[0] for line in file.read_text().splitlines())
        whole = [SupervisionSegment(id=name, recording_id=name, start=0, duration=1e6) for name in names]
        found = list(SupervisionSet.from_segments(whole).with_alignment_from_ctm(file)) if whole else []
    read = {unquote(one.recording_id): (one.alignment or {}).get("word", []) for one in found}
    assert read.keys() == {id_ for id_, spans in given_rows.items() if spans}
    for id_, items in read.items():
        spans = given_rows[id_]
        assert [unquote(one.symbol) for one in items] == [one.text or "<NA>" for one in spans]
        assert [one.start for one in items] == pytest.approx([one.start for one in spans])
        assert [one.end for one in items] == pytest.approx([one.end for one in spans])
        assert [one.score for one in items] == pytest.approx([one.score for one in spans], abs=1e-4)


@settings(max_examples=4, deadline=None)
@given(ROWS)
def test_lhotse_reads_the_segments_of_an_rttm_file(rows):
    given_rows = {f"{id_}{number}": spans for number, (id_, spans) in enumerate(rows)}
    with tempfile.TemporaryDirectory() as folder:
        found = list(SupervisionSet.from_rttm(exported(Path(folder), "rttm", [*given_rows], [*given_rows.values()])))
    expected = [(id_, one) for id_, spans in given_rows.items() for one in spans]
    assert [unquote(one.recording_id) for one in found] == [id_ for id_, _ in expected]
    assert [unquote(one.speaker) for one in found] == [one.text or "<NA>" for _, one in expected]
    assert [(one.start, one.duration) for one in found] == [
        (pytest.approx(one.start), pytest.approx(one.end - one.start)) for _, one in expected
    ]


@settings(max_examples=4, deadline=None)
@given(st.lists(st.tuples(STORED, STORED_WILD), min_size=10, max_size=30))
def test_each_line_has_its_fields_for_any_spans(rows):
    ids, spans = ([*one] for one in zip(*rows, strict=True))
    with tempfile.TemporaryDirectory() as folder:
        ctm, rttm = (exported(Path(folder) / to, to, ids, spans).read_text() for to in ("ctm", "rttm"))
    assert all(5 <= len(line.split()) <= 6 for line in ctm.splitlines())
    assert all(len(line.split()) == 10 for line in rttm.splitlines())
