"""Runs over other kinds of sources than Parquet, and ids and texts of any kind."""

import json
from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import raysp
from raysp import run
from tests.runs import CHECKPOINT, DEMO, read_labels

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def digits() -> list[dict]:
    return pq.read_table(min((DEMO / "audio").glob("*.parquet"))).slice(0, 24).to_pylist()


def labels_of(folder) -> list[dict]:
    rows = read_labels(folder).to_pylist()
    return sorted(rows, key=lambda row: (row["shard"], row["row"]))


def texts_of(folder) -> list[tuple]:
    return [(row["id"], row["pred_text"], round(row["pred_score"], 3)) for row in labels_of(folder)]


@pytest.fixture(scope="module")
def expected(digits, tmp_path_factory) -> list[tuple]:
    """Labels of the same recordings embedded in Parquet."""
    folder = tmp_path_factory.mktemp("expected")
    pq.write_table(pa.Table.from_pylist(digits), folder / "m.parquet")
    raysp.run(a_pipeline(folder / "m.parquet", folder / "labels"), engine="here", progress=False)
    return texts_of(folder / "labels")


def a_pipeline(url, sink, **source) -> raysp.Pipeline:
    return raysp.Pipeline(
        source=raysp.Shards(str(url), **source),
        steps=[raysp.Decode(), raysp.Label(str(CHECKPOINT), outputs=[raysp.Transcript()])],
        sink=raysp.Parquet(str(sink), keep=source.pop("keep", [])),
    )


def test_a_saved_data_set_has_the_labels_of_parquet(without_ray, digits, expected, tmp_path):
    (folder := tmp_path / "in").mkdir()
    table = pa.Table.from_pylist(digits)
    with pa.OSFile(str(folder / "m.arrow"), "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
        writer.write_table(table, max_chunksize=7)
    (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": "m.arrow"}]}))
    (folder / "cache-1234.arrow").write_bytes(b"what map left behind")
    result = run(a_pipeline(folder, tmp_path / "labels"))
    assert (result.exit_code, result.shards, result.rows) == (0, 1, 24)
    assert texts_of(tmp_path / "labels") == expected


def test_a_manifest_has_the_labels_of_parquet_and_added_lines_are_labelled(without_ray, digits, expected, tmp_path):
    manifest = write_manifest(tmp_path / "in", digits[:20])
    pipeline = a_pipeline(manifest, tmp_path / "labels")
    result = run(pipeline)
    assert (result.exit_code, result.rows) == (0, 20)
    assert [path.name for path in (tmp_path / "labels").glob("*.parquet")] == ["m-00000.parquet"]
    assert texts_of(tmp_path / "labels") == expected[:20]
    write_manifest(tmp_path / "in", digits)
    result = run(pipeline)
    assert (result.exit_code, result.rows, result.shards_before) == (0, 4, 1)
    assert sorted(path.name for path in (tmp_path / "labels").glob("*.parquet"))[1:] == ["m-00001.parquet"]
    assert texts_of(tmp_path / "labels") == expected


def write_manifest(folder, rows):
    (folder / "wav").mkdir(parents=True, exist_ok=True)
    lines = []
    for row in rows:
        (folder / "wav" / f"{row['id']}.bin").write_bytes(row["audio"]["bytes"])
        lines.append(
            json.dumps({"audio_filepath": f"wav/{row['id']}.bin", "id": row["id"], "text": row["text"]}) + "\n"
        )
    (folder / "m.jsonl").write_text("".join(lines))
    return folder / "m.jsonl"


def test_ids_and_texts_of_any_kind_are_stored_without_loss(without_ray, digits, tmp_path):
    ids = [
        b"nul \0",
        b"lone \xed\xa0\x80 surrogate",
        "\u202eright to left".encode(),
        "\U0001f600".encode(),
        b"x" * 1_000_000,
    ]
    ids += [b"\x1b[2J\x07", b"00:01 --> 00:02", b"=cmd|' /C calc'!A0", b"<script>alert(1)</script>", b"", None]
    texts = pa.array(ids, pa.binary()).view(pa.string())
    audio = [digits[0]["audio"]] * len(ids)
    pq.write_table(pa.table({"id": texts, "audio": audio, "text": texts}), tmp_path / "t.parquet")
    pipeline = a_pipeline(tmp_path / "t.parquet", tmp_path / "labels")
    result = run(replace(pipeline, sink=raysp.Parquet(str(tmp_path / "labels"), keep=["text"])))
    found = pq.read_table(tmp_path / "labels" / "t.parquet")
    assert found.column("id").cast(pa.binary()).to_pylist() == ids
    assert found.column("text").cast(pa.binary()).to_pylist() == ids
    shown = result.head(20).column("id").to_pylist()
    assert shown[1] == "lone \ufffd\ufffd\ufffd surrogate"
