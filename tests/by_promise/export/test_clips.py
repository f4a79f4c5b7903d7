"""Clips, opened by `datasets` and compared with the recordings they were cut from."""

import io

import pyarrow.parquet as pq
import pytest
import soundfile

from tests.exports import export_to

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
def test_another_sample_rate(clips, tmp_path):
    clips(sample_rate=8000)
    [row] = pq.read_table(tmp_path / "dest/data/b.parquet").slice(0, 1).to_pylist()
    found, rate = soundfile.read(io.BytesIO(row["audio"]["bytes"]))
    assert rate == 8000
    assert len(found) == pytest.approx(row["seconds"] * 8000, abs=1)
