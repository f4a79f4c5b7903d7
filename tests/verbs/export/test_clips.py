"""Clips, opened by `datasets` and compared with the recordings they were cut from."""

import io

import pyarrow.parquet as pq
import pytest
import soundfile

import raysp
from raysp import PlanError
from tests.exports import export_to
from tests.verbs.export.sinks import make_sink

SHORT = {"min_seconds": 0.2, "max_seconds": 1.5}


@pytest.fixture
def clips(long, tmp_path):
    def run(**options: object):
        return export_to("clips", str(long / "out"), dest=str(tmp_path / "dest"), trust=True, **{**SHORT, **options})

    return run


@pytest.mark.slow
def test_low_scores_and_short_clips_are_left_out_and_counted(clips, tmp_path):
    every = clips().clips
    strict = clips(min_score=1.0, restart=True)
    assert (strict.clips, strict.left_out) == (0, {"clip_below_min_score": every, "no_clip": 3})
    reasons = f"{every} clips (clip_below_min_score), 3 rows (no_clip)"
    assert strict.nothing_exported == f"no row was exported; all were left out: {reasons}"
    card = (tmp_path / "dest" / "README.md").read_text()
    assert f"- left out: {reasons}\n" in card
    short = clips(min_seconds=1.4, restart=True)
    assert short.left_out["clip_too_short"] + short.clips <= every


@pytest.mark.slow
def test_small_row_groups_hold_the_same_clips(clips, tmp_path, monkeypatch):
    clips()
    before = pq.read_table(tmp_path / "dest/data/a.parquet")
    monkeypatch.setattr("raysp.verbs.export.clips.GROUP_BYTES", 1)
    clips(restart=True)
    file = pq.ParquetFile(tmp_path / "dest/data/a.parquet")
    assert file.num_row_groups == before.num_rows
    assert file.read() == before


@pytest.mark.slow
def test_another_sample_rate(clips, tmp_path):
    clips(sample_rate=8000)
    [row] = pq.read_table(tmp_path / "dest/data/b.parquet").slice(0, 1).to_pylist()
    found, rate = soundfile.read(io.BytesIO(row["audio"]["bytes"]))
    assert rate == 8000
    assert len(found) == pytest.approx(row["seconds"] * 8000, abs=1)


def test_rows_without_words_need_another_output(tmp_path):
    make_sink(tmp_path, output=raysp.Transcript())
    with pytest.raises(PlanError, match=r"needs a column pred_words or pred_speech with .*Transcript\(words=True\)"):
        raysp.export(str(tmp_path / "out"), to="clips", dest=str(tmp_path / "dest"), trust=True)
