"""Long rows through whole runs: windows, streams that break off, one row beside many."""

import io

import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile

import raysp
from benchmarks.inputs.corpus import join, read_utterances
from raysp import run
from tests.runs import DEMO, audio_shard, read_labels

pytestmark = pytest.mark.slow
WORDS = {"outputs": [raysp.Transcript(words=True, chars=True)], "window_seconds": 6, "overlap_seconds": 2}


@pytest.fixture(scope="module")
def recordings() -> dict[str, tuple[bytes, str, float]]:
    """Joined digits by name, with their texts and seconds."""
    speakers = read_utterances(str(DEMO / "audio" / "*.parquet"))
    rng, found = np.random.default_rng(3), {}
    for number, seconds in enumerate([22, 3, 12, 1, 5.9, 14, 2]):
        utterances = speakers[list(speakers)[number % len(speakers)]]
        samples, chosen = join(rng, utterances, seconds)
        file = io.BytesIO()
        soundfile.write(file, samples, utterances[0].sample_rate, format="FLAC")
        text = " ".join(one.text for one in chosen)
        found[f"r{number}"] = (file.getvalue(), text, len(samples) / utterances[0].sample_rate)
    return found


def test_long_rows_short_rows_and_a_stream_that_breaks_off(without_ray, make_pipeline, recordings, tmp_path):
    broken = bytearray(recordings["r0"][0])
    broken[len(broken) * 3 // 4 : len(broken) * 3 // 4 + 300] = b"\x55" * 300
    rows = [(name, data) for name, (data, _, _) in recordings.items()]
    rows[3:3] = [("broken", bytes(broken)), ("nothing", None)]
    (tmp_path / "corpus").mkdir()
    audio_shard(tmp_path / "corpus" / "all.parquet", rows)
    audio_shard(tmp_path / "corpus" / "one.parquet", [rows[0]])
    result = run(make_pipeline(tmp_path / "corpus", **WORDS))
    assert (result.exit_code, result.rows, result.shards_committed) == (0, 10, 2)
    assert result.errors == {"corrupt_audio": 1, "no_audio": 1}
    assert result.audio_seconds == pytest.approx(
        sum(seconds for _, _, seconds in recordings.values()) + recordings["r0"][2], abs=25
    )
    labels = pq.read_table(tmp_path / "labels" / "all.parquet").to_pylist()
    assert [row["id"] for row in labels] == [name for name, _ in rows]
    assert [row["row"] for row in labels] == list(range(9))
    for row in labels:
        if row["id"] in recordings:
            _, text, seconds = recordings[row["id"]]
            assert (row["status"], row["seconds"]) == ("ok", pytest.approx(seconds, abs=1e-9))
            words = [word["word"] for word in row["pred_words"]]
            assert words == row["pred_text"].split()
            assert abs(len(words) - len(text.split())) <= 2
            assert row["pred_words"][-1]["end"] <= row["seconds"]
            assert row["pred_words"][-1]["end"] > row["seconds"] - 1.5
        else:
            assert row["pred_text"] is row["pred_words"] is row["seconds"] is None
    (alone,) = pq.read_table(tmp_path / "labels" / "one.parquet").to_pylist()
    assert alone["pred_text"] == labels[0]["pred_text"]
    assert [w["start"] for w in alone["pred_words"]] == [w["start"] for w in labels[0]["pred_words"]]
    names = pq.read_schema(tmp_path / "labels" / "all.parquet").names
    assert names[6:] == ["pred_text", "pred_score", "pred_words", "pred_chars"]


def test_labels_do_not_depend_on_the_size_of_batches(without_ray, make_pipeline, recordings, tmp_path):
    (tmp_path / "corpus").mkdir()
    audio_shard(tmp_path / "corpus" / "all.parquet", [(name, data) for name, (data, _, _) in recordings.items()])
    found = []
    for sink, batch_seconds in (("usual", 600), ("small", 7)):
        result = run(make_pipeline(tmp_path / "corpus", sink=sink, batch_seconds=batch_seconds, **WORDS))
        assert result.exit_code == 0
        found.append(read_labels(tmp_path / sink).drop_columns(["pred_score", "pred_words", "pred_chars"]))
    assert found[0].equals(found[1])
