"""Texts of trained checkpoints: those that transformers wrote for each recording alone, whatever shares its batch."""

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

import raysp
from tests import kit

NAMES = ("unispeech-digits-ctc", "w2vbert-digits-ctc")


def corpus(shared: Path, folder: Path, texts: dict[str, str]) -> Path:
    """Write a shard of rows whose lengths differ by far: digits of half a second, and sentences."""
    digits = pq.read_table(shared / "data" / "digits" / "digits-00000-of-00010.parquet", columns=["id", "audio"])
    rows = digits.slice(0, 30).to_pylist()
    sentences = sorted(path for path in (shared / "data" / "sentences").iterdir() if path.name in texts)[::40]
    rows += [{"id": path.name, "audio": {"bytes": path.read_bytes(), "path": None}} for path in sentences]
    folder.mkdir()
    pq.write_table(digits.from_pylist(rows, schema=digits.schema), folder / "a.parquet")
    return folder


def labelled(source: Path, checkpoint: Path, sink: Path, engine: str = "here", **fields: object) -> dict[str, str]:
    steps = [raysp.Decode(), raysp.Label(str(checkpoint), outputs=[raysp.Transcript()], **fields)]
    pipeline = raysp.Pipeline(source=raysp.Shards(str(source)), steps=steps, sink=raysp.Parquet(str(sink)))
    assert raysp.run(pipeline, engine=engine).exit_code == 0
    return {row["id"]: row["pred_text"] for row in kit.rows(sink, "id", "pred_text")}


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_rows_of_mixed_lengths_have_their_texts_and_most_of_them_in_half_precision(shared, tmp_path, name):
    checkpoint = shared / "checkpoints" / name
    texts = json.loads((checkpoint / "texts.json").read_text())
    source = corpus(shared, tmp_path / "in", texts)
    by_id = labelled(source, checkpoint, tmp_path / "out", batch_seconds=60)
    assert len(by_id) > 32
    assert by_id == {row: texts[row] for row in by_id}
    half = labelled(source, checkpoint, tmp_path / "half", dtype="bfloat16")
    assert sum(half[row] == texts[row] for row in half) >= 0.9 * len(half)


@pytest.mark.soak
@pytest.mark.parametrize("name", NAMES)
def test_all_digits_have_their_texts_in_small_batches_of_two_actors(shared, local_ray, tmp_path, name):
    checkpoint = shared / "checkpoints" / name
    texts = json.loads((checkpoint / "texts.json").read_text())
    fields = {"batch_seconds": 5, "pool": raysp.Pool(actors=2)}
    by_id = labelled(shared / "data" / "digits", checkpoint, tmp_path / "out", "ray", **fields)
    assert len(by_id) == 2500
    assert by_id == {row: texts[row] for row in by_id}
