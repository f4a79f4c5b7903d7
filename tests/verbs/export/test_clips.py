"""Clips, opened by `datasets` and compared with the recordings they were cut from."""

import io

import datasets
import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile

import raysp
from raysp import PlanError
from tests.exports import export_to
from tests.verbs.export.sinks import RATE, long_row, make_sink

SHORT = {"min_seconds": 0.2, "max_seconds": 1.5}


@pytest.fixture
def clips(long, tmp_path):
    def run(**options: object):
        return export_to("clips", str(long / "out"), dest=str(tmp_path / "dest"), trust=True, **{**SHORT, **options})

    return run


@pytest.fixture
def whole() -> np.ndarray:
    return np.round(long_row()[0] * 32768).clip(-32768, 32767).astype(np.int16)


def samples_of(data: bytes) -> np.ndarray:
    found, rate = soundfile.read(io.BytesIO(data), dtype="int16")
    assert rate == RATE
    return found


@pytest.mark.slow
def test_datasets_opens_clips_with_their_texts_and_samples(clips, long, whole, tmp_path):
    found = clips()
    opened = datasets.load_dataset(str(tmp_path / "dest"), split="train", cache_dir=str(tmp_path / "cache"))
    assert isinstance(opened.features["audio"], datasets.Audio)
    rows = list(opened.cast_column("audio", datasets.Audio(decode=False)))
    assert (found.clips, found.rows, found.shards) == (len(rows), 3, 2)
    assert found.seconds == pytest.approx(sum(row["seconds"] for row in rows), abs=0.01)
    labels = pq.read_table(long / "out" / "a.parquet").to_pylist()[0]
    first = [row for row in rows if row["source_id"] == "long/0"][: len(rows) // 3]
    assert " ".join(row["text"] for row in first) == " ".join(word["word"] for word in labels["pred_words"])
    for row in rows:
        assert 0.2 <= row["seconds"] <= 1.5
        assert 0 < row["score"] <= 1
        expected = whole[round(row["start"] * RATE) : round(row["end"] * RATE)]
        assert np.abs(samples_of(row["audio"]["bytes"]).astype(int) - expected).max() <= 1


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
