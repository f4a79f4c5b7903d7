"""Texts of trained checkpoints: those that transformers wrote for each recording alone, whatever shares its batch."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import raysp
from tests import kit

NAMES = ("unispeech-digits-ctc", "w2vbert-digits-ctc")


def digits(shared: Path, number: int, first: int, count: int) -> pa.Table:
    """Return some rows of a shard of digits, of half a second each."""
    file = shared / "data" / "digits" / f"digits-{number:05}-of-00010.parquet"
    return pq.read_table(file, columns=["id", "audio"]).slice(first, count)


def with_sentences(shared: Path, table: pa.Table, texts: dict[str, str]) -> pa.Table:
    """Return a table with some sentences in addition, which are longer by far."""
    paths = sorted(path for path in (shared / "data" / "sentences").iterdir() if path.name in texts)[::40]
    rows = [{"id": path.name, "audio": {"bytes": path.read_bytes(), "path": None}} for path in paths]
    return pa.concat_tables([table, pa.Table.from_pylist(rows, schema=table.schema)])


def written(table: pa.Table, folder: Path) -> Path:
    folder.mkdir()
    pq.write_table(table, folder / "a.parquet")
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
    source = written(with_sentences(shared, digits(shared, 0, 0, 30), texts), tmp_path / "in")
    by_id = labelled(source, checkpoint, tmp_path / "out", batch_seconds=60)
    assert len(by_id) > 32
    assert by_id == {row: texts[row] for row in by_id}
    few = written(digits(shared, 1, 50, 60), tmp_path / "few")
    half = labelled(few, checkpoint, tmp_path / "half", dtype="bfloat16")
    assert len(half) == 60
    assert sum(half[row] == texts[row] for row in half) >= 0.96 * len(half)


@pytest.mark.soak
@pytest.mark.parametrize("name", NAMES)
def test_all_digits_have_their_texts_in_small_batches_of_two_actors(shared, local_ray, tmp_path, name):
    checkpoint = shared / "checkpoints" / name
    texts = json.loads((checkpoint / "texts.json").read_text())
    fields = {"batch_seconds": 5, "pool": raysp.Pool(actors=2)}
    by_id = labelled(shared / "data" / "digits", checkpoint, tmp_path / "out", "ray", **fields)
    assert len(by_id) == 2500
    assert by_id == {row: texts[row] for row in by_id}
