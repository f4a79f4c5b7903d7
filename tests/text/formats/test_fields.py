"""CTM and RTTM, read back by lhotse."""

from urllib.parse import unquote

import pytest
from hypothesis import given
from lhotse import SupervisionSegment, SupervisionSet

from raysp.text.formats.annotations import ctm, rttm
from raysp.text.formats.safe_values import valid
from raysp.text.times import Span
from tests.text.formats.spans import TEXTS, WILD, words


def test_the_lines_of_a_recording():
    spans = [Span("two", 1.0, 1.5, float("nan")), Span("one", 0.04, 0.6004, 0.98765)]
    assert ctm("a b", spans) == "a%20b 1 0.040 0.560 one 0.9877\na%20b 1 1.000 0.500 two\n"
    assert rttm("a", spans[:1]) == "SPEAKER a 1 1.000 0.500 <NA> <NA> two <NA> <NA>\n"
    assert ctm("a", []) == ""


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return tmp_path_factory.mktemp("lines") / "file"


@pytest.mark.slow
@given(id_=TEXTS, spans=words())
def test_lhotse_reads_the_words_of_a_ctm_file(file, id_, spans):
    file.write_bytes(ctm(id_, spans).encode())
    name = ctm(id_, [Span("x", 0, 1, 1)]).split()[0]
    whole = SupervisionSegment(id="s", recording_id=name, start=0, duration=1e6)
    [found] = SupervisionSet.from_segments([whole]).with_alignment_from_ctm(file)
    items = (found.alignment or {}).get("word", [])
    assert unquote(name) == (valid(id_) or "<NA>")
    assert [unquote(one.symbol) for one in items] == [valid(one.text) or "<NA>" for one in spans]
    assert [one.start for one in items] == pytest.approx([one.start for one in spans])
    assert [one.end for one in items] == pytest.approx([one.end for one in spans])
    assert [one.score for one in items] == pytest.approx([one.score for one in spans], abs=1e-4)


@pytest.mark.slow
@given(id_=TEXTS, spans=words())
def test_lhotse_reads_the_segments_of_an_rttm_file(file, id_, spans):
    file.write_bytes(rttm(id_, spans).encode())
    found = list(SupervisionSet.from_rttm(file))
    assert [unquote(one.speaker) for one in found] == [valid(one.text) or "<NA>" for one in spans]
    assert [(one.start, one.duration) for one in found] == [
        (pytest.approx(one.start), pytest.approx(one.end - one.start)) for one in spans
    ]
    assert {unquote(one.recording_id) for one in found} <= {valid(id_) or "<NA>"}


@given(TEXTS, WILD)
def test_each_line_has_its_fields_for_any_spans(id_, spans):
    assert all(5 <= len(line.split()) <= 6 for line in ctm(id_, spans).splitlines())
    assert all(len(line.split()) == 10 for line in rttm(id_, spans).splitlines())
