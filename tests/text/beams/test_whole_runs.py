"""Beam search through whole runs: rows of several windows, and a language model on object storage."""

import io
import itertools

import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile

import raysp
from benchmarks.inputs.corpus import join, read_utterances
from tests.corpora import DEMO, a_pipeline
from tests.runs import audio_shard
from tests.text.beams.arpa_files import write_arpa

pytestmark = pytest.mark.soak
DIGITS = ["ZERO", "ONE", "TWO", "THREE", "FOUR", "FIVE", "SIX", "SEVEN", "EIGHT", "NINE"]
SECONDS = (1.5, 7, 0.6, 4)


@pytest.fixture
def corpus(tmp_path) -> list[str]:
    """Joined digits of one speaker, most of them several windows long; returns their texts."""
    [utterances, *_] = read_utterances(str(DEMO / "audio" / "*.parquet")).values()
    rng, rows, texts = np.random.default_rng(3), [], []
    for number, seconds in enumerate(SECONDS):
        samples, chosen = join(rng, utterances, seconds)
        file = io.BytesIO()
        soundfile.write(file, samples, utterances[0].sample_rate, format="FLAC")
        rows.append((f"r{number}", file.getvalue()))
        texts.append(" ".join(one.text.upper() for one in chosen))
    (tmp_path / "in").mkdir()
    audio_shard(tmp_path / "in" / "a.parquet", rows)
    return texts


def test_a_model_on_object_storage_gives_the_labels_of_one_on_disk_for_rows_of_any_length(
    s3, corpus, tmp_path, monkeypatch
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "lm").mkdir()
    lm = write_arpa(tmp_path / "lm" / "words.arpa", [[a, b] for a, b in itertools.product(DIGITS, DIGITS)], 2)
    bucket = s3.bucket()
    s3.upload(tmp_path / "in", bucket, "in/")
    s3.upload(tmp_path / "lm", bucket, "lm/")

    def labelled(source: raysp.Shards, model: str, sink: str) -> list[dict]:
        output = raysp.Transcript(beams=8, nbest=3, words=True, lm=model, hot_words={"NINE": 0.5})
        windows = {"window_seconds": 2, "overlap_seconds": 0.8, "batch_seconds": 6}
        pipeline = a_pipeline(source, tmp_path / sink, label={"outputs": [output], **windows})
        raysp.run(pipeline, engine="here", progress=False)
        return pq.read_table(tmp_path / sink / "a.parquet").to_pylist()

    stored = raysp.Shards(f"s3://{bucket}/in/*.parquet", storage_options=s3.options)
    of_bucket = labelled(stored, f"s3://{bucket}/lm/words.arpa", "of_bucket")
    assert labelled(raysp.Shards(f"{tmp_path}/in/*.parquet"), str(lm), "of_disk") == of_bucket
    assert list(raysp.verify(str(tmp_path / "of_disk"), sample=4, trust=True).differences) == []
    for row, text in zip(of_bucket, corpus, strict=True):
        words = [word["word"] for word in row["pred_words"]]
        assert words == row["pred_text"].split() == row["pred_nbest"][0]["text"].split()
        assert {*words} <= {*DIGITS}
        assert sum(one != other for one, other in zip(words, text.split(), strict=False)) <= 2
        assert abs(len(words) - len(text.split())) <= 1
        edges = [edge for word in row["pred_words"] for edge in (word["start"], word["end"])]
        assert edges == sorted(edges)
        assert edges[-1] <= row["seconds"]
