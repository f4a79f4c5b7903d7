"""Runs over every kind of source; among the rows paths of strangers and recordings that crash the decoder."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile

import raysp
from raysp import run
from tests.corpora import wav
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


@pytest.mark.parametrize("form", ["file", "stream", "saved"])
def test_arrow_shards_have_the_labels_of_parquet(without_ray, digits, expected, tmp_path, form):
    table = pa.Table.from_pylist(digits)
    folder = tmp_path / "in"
    folder.mkdir()
    make = pa.ipc.new_file if form == "file" else pa.ipc.new_stream
    with pa.OSFile(str(folder / "m.arrow"), "wb") as file, make(file, table.schema) as writer:
        writer.write_table(table, max_chunksize=7)
    if form == "saved":
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


def test_a_folder_has_the_labels_of_parquet_and_new_files_make_a_new_label_shard(
    without_ray, digits, expected, tmp_path
):
    folder = tmp_path / "recordings"
    for number, row in enumerate(digits[:20]):
        place = folder / f"deep/{number % 3}" / f"{row['id']}.wav"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(row["audio"]["bytes"])
    pipeline = a_pipeline(folder, tmp_path / "labels")
    assert run(pipeline).rows == 20
    (folder / "deep/0/a-new-one.flac").write_bytes(digits[20]["audio"]["bytes"])
    gone = next(iter(sorted((folder / "deep/2").iterdir())))
    gone.unlink()
    result = run(pipeline)
    assert (result.exit_code, result.rows, result.shards_before) == (0, 1, 1)
    found = {
        row["id"].rpartition("/")[2].rpartition(".")[0]: row["pred_text"] for row in labels_of(tmp_path / "labels")
    }
    assert found == {name: text for name, text, _ in expected[:20]} | {"a-new-one": expected[20][1]}
    assert {row["shard"] for row in labels_of(tmp_path / "labels")} == {
        "recordings-00000.parquet",
        "recordings-00001.parquet",
    }


def test_parts_of_a_long_file_have_the_labels_of_separate_files(without_ray, digits, expected, tmp_path):
    """Digits joined in one FLAC, each of them named by offset and duration."""
    import io

    samples, lines, place = [], [], 0
    for row in digits:
        wave, rate = soundfile.read(io.BytesIO(row["audio"]["bytes"]), dtype="int16")
        lines.append(
            {"audio_filepath": "all.flac", "id": row["id"], "offset": place / rate, "duration": len(wave) / rate}
        )
        samples += [wave, np.zeros(rate // 5, np.int16)]
        place += len(wave) + rate // 5
    soundfile.write(tmp_path / "all.flac", np.concatenate(samples), rate)
    (tmp_path / "m.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    run(a_pipeline(tmp_path / "m.jsonl", tmp_path / "labels"))
    assert texts_of(tmp_path / "labels") == expected


def test_untrusted_paths_become_error_rows_and_an_audio_root_allows_the_files_in_it(
    without_ray, digits, expected, tmp_path
):
    root = tmp_path / "root"
    root.mkdir()
    (root / "in.wav").write_bytes(digits[0]["audio"]["bytes"])
    (tmp_path / "out.wav").write_bytes(digits[1]["audio"]["bytes"])
    (root / "link.wav").symlink_to(tmp_path / "out.wav")
    paths = {
        "in.wav": None,
        f"{root}/in.wav": None,
        "../out.wav": "path_not_allowed",
        "/etc/passwd": "path_not_allowed",
        "link.wav": "path_not_allowed",
        f"file://{root}/in.wav": "path_not_allowed",
        "http://127.0.0.1:8265/x.wav": "path_not_allowed",
        "s3://another/x.wav": "path_not_allowed",
        "gone.wav": "not_found",
    }
    audio = [{"bytes": None, "path": path} for path in paths]
    audio.append({"bytes": digits[2]["audio"]["bytes"], "path": "/etc/passwd"})
    pq.write_table(pa.table({"id": [*paths, "bytes"], "audio": audio}), tmp_path / "p.parquet")
    run(a_pipeline(tmp_path / "p.parquet", tmp_path / "labels", audio_root=str(root)))
    run(a_pipeline(tmp_path / "p.parquet", tmp_path / "without"))
    found = labels_of(tmp_path / "labels")
    assert {row["id"]: row["error_type"] for row in found} == {**paths, "bytes": None}
    assert [found[0]["pred_text"], found[1]["pred_text"], found[-1]["pred_text"]] == [
        expected[0][1],
        expected[0][1],
        expected[2][1],
    ]
    without = labels_of(tmp_path / "without")
    assert {row["error_type"] for row in without[:-1]} == {"path_not_allowed"}
    assert without[-1]["pred_text"] == expected[2][1]


@pytest.mark.drivers
def test_recordings_that_crash_or_hang_the_decoder_cost_their_rows(digits, expected, tmp_path):
    marks = {b"raysp-test-crash": "SIGSEGV", b"raysp-test-hoard": "memory"}
    rows = [*digits[:10]]
    for place, mark in zip((2, 5, 9), [*marks, b"raysp-test-crash"], strict=True):
        plain = wav(4000)
        start = plain.index(b"data") + 8
        bad = plain[:start] + mark + plain[start + len(mark) :]
        rows.insert(place, {**digits[0], "id": mark.decode(), "audio": {"bytes": bad, "path": None}})
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "c.parquet")
    file = tmp_path / "label_crashes.py"
    file.write_text(
        f"import raysp\npipeline = raysp.Pipeline(source=raysp.Shards({str(tmp_path / 'c.parquet')!r}), "
        f"steps=[raysp.Decode(), raysp.Label({str(CHECKPOINT)!r}, outputs=[raysp.Transcript()])], "
        f"sink=raysp.Parquet({str(tmp_path / 'labels')!r}))\n"
    )
    faults = ",".join(f"{mark.decode()}={fault}" for mark, fault in marks.items())
    done = subprocess.run(
        [sys.executable, "-m", "raysp.cli", "run", str(file)],
        env={**os.environ, "RAYSP_DECODER_FAULTS": faults},
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr
    found = labels_of(tmp_path / "labels")
    assert [row["error_type"] for row in found if row["status"] == "error"] == [
        "decoder_crashed",
        "out_of_memory",
        "decoder_crashed",
    ]
    good = [(row["id"], row["pred_text"], round(row["pred_score"], 3)) for row in found if row["status"] == "ok"]
    assert good == expected[:10]


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


def test_real_recordings_by_their_manifests(shared, without_ray, tmp_path):
    """Sentences in ten languages and recordings of a minute, read in place."""
    entries = []
    for kind, number in (("sentences", 16), ("long", 4)):
        folder = shared / "data" / kind
        rows = [json.loads(line) for line in (folder / "manifest.jsonl").read_text().splitlines()]
        rows = sorted(rows, key=lambda row: row["duration"])[: number if kind == "long" else None]
        entries += [
            {**row, "audio_filepath": f"{kind}/{row['audio_filepath']}"} for row in rows[:: len(rows) // number]
        ]
    manifest = tmp_path / "real.jsonl"
    manifest.write_text(
        "".join(json.dumps({**row, "duration": None, "said": row["duration"]}) + "\n" for row in entries)
    )
    pipeline = a_pipeline(manifest, tmp_path / "labels", audio_root=str(shared / "data"))
    result = run(replace(pipeline, sink=raysp.Parquet(str(tmp_path / "labels"), keep=["said", "language", "text"])))
    rows = labels_of(tmp_path / "labels")
    assert (result.exit_code, len(rows), {row["status"] for row in rows}) == (0, len(entries), {"ok"})
    assert len(rows) >= 20
    for row, entry in zip(rows, entries, strict=True):
        assert row["id"] == entry["audio_filepath"]
        assert row["seconds"] == pytest.approx(entry["duration"], abs=0.15)
        assert (row["text"], row["language"]) == (entry.get("text"), entry["language"])


def test_a_manifest_that_was_changed_in_place_is_refused(without_ray, digits, tmp_path):
    manifest = write_manifest(tmp_path / "in", digits[:3])
    run(a_pipeline(manifest, tmp_path / "labels"))
    shutil.copy(manifest, tmp_path / "kept")
    write_manifest(tmp_path / "in", digits[3:6])
    with pytest.raises(raysp.PlanError, match=r"m.jsonl: its content changed since it was planned"):
        run(a_pipeline(manifest, tmp_path / "labels"))
