"""Exports that `datasets.load_dataset` opens, and manifests of recordings that are read by path."""

import io
import json
import os
import shutil

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile
import yaml

import raysp
from raysp import ShardError
from tests.by_promise.export.sinks import RATE, content, digits, long_row, make_long_sink, make_manifest_sink
from tests.corpora import a_pipeline
from tests.exports import exported

pytestmark = pytest.mark.lengthy


def load(folder, cache):
    found = datasets.load_dataset(str(folder), split="train", cache_dir=str(cache))
    return found.cast_column("audio", datasets.Audio(decode=False)) if "audio" in found.column_names else found


def head_of(folder) -> dict:
    text = (folder / "README.md").read_text()
    return yaml.safe_load(text.split("---\n")[1])


class TestWithAudio:
    @pytest.fixture
    def opened(self, export, tmp_path):
        export("dataset", licence="cc-by-4.0", trust=True)
        return load(tmp_path / "dest", tmp_path / "cache")

    @pytest.mark.slow
    def test_labels_stand_beside_the_recordings_of_their_rows(self, opened):
        given = {row["id"]: row for row in digits().to_pylist()}
        assert opened["id"] == ["a/b", "a b", "u2", "U2", "שלום", "nul", "u7"]
        for row in opened:
            assert row["audio"]["bytes"] == given[row["id"]]["audio"]["bytes"]
            assert row["pred_text"] == given[row["id"]]["text"].upper()

    def test_the_card_has_counts_licence_checkpoint_fingerprint_and_command(self, opened, made, tmp_path):
        head = head_of(tmp_path / "dest")
        assert head["license"] == "cc-by-4.0"
        [split] = head["dataset_info"]["splits"]
        assert (split["name"], split["num_examples"]) == ("train", 7)
        text = (tmp_path / "dest" / "README.md").read_text()
        fingerprint = json.loads((made / "out" / ".raysp" / "run.json").read_text())["fingerprint"]
        for part in (
            "- 7 rows, 0:02 of audio (minutes:seconds)\n",
            "1 row (unsupported_format)",
            "unispeech-digits-ctc",
            fingerprint,
        ):
            assert part in text
        assert "raysp export PIPELINE DEST --to dataset --set to.licence=cc-by-4.0" in text


def test_without_audio_the_source_is_not_read(made, tmp_path):
    sink = shutil.copytree(made / "out", tmp_path / "out")
    raysp.export(str(sink), to=raysp.Dataset(audio=False), dest=str(tmp_path / "dest"))
    found = load(tmp_path / "dest", tmp_path / "cache")
    assert "audio" not in found.column_names
    assert (len(found), head_of(tmp_path / "dest")["license"]) == (7, "unknown")
    assert "`raysp export out DEST --to dataset --set to.audio=false`" in (tmp_path / "dest" / "README.md").read_text()


@pytest.mark.slow
def test_an_excerpt_is_cut_and_a_whole_file_kept(manifest, tmp_path):
    found = raysp.export(str(manifest / "out"), to="dataset", dest=str(tmp_path / "dest"), trust=True)
    assert (found.rows, found.left_out) == (3, {"not_found": 1})
    rows = load(tmp_path / "dest", tmp_path / "cache")
    whole = np.round(long_row()[0] * 32768).clip(-32768, 32767).astype(np.int16)
    assert rows[0]["audio"] == {"bytes": (manifest / "short.wav").read_bytes(), "path": "short.wav"}
    for row, (offset, seconds) in zip(list(rows)[1:], [(0.5, 1.25), (1.5, 2.0)], strict=True):
        samples, rate = soundfile.read(io.BytesIO(row["audio"]["bytes"]), dtype="int16")
        expected = whole[round(offset * RATE) :][: round(seconds * RATE)]
        assert rate == RATE
        assert np.abs(samples.astype(int) - expected).max() <= 1
        assert len(samples) == len(expected)


class TestManifests:
    def test_rows_by_path_have_the_path_and_the_offset(self, manifest, tmp_path):
        raysp.export(str(manifest / "out"), to="nemo", dest=str(tmp_path / "dest"), trust=True)
        [data] = exported(tmp_path / "dest").values()
        rows = [json.loads(line) for line in data.splitlines()]
        assert [row["audio_filepath"] for row in rows] == [
            f"{manifest}/{name}.wav" for name in ("short", "long", "long")
        ]
        assert [row.get("offset") for row in rows] == [None, 0.5, 1.5]
        assert [row["duration"] for row in rows] == [2.0, 1.25, 2.0]
        assert [row["text"] for row in rows] == ["one", "two", "three"]

    def test_the_manifest_is_a_source_of_the_same_rows(self, manifest, tmp_path):
        raysp.export(str(manifest / "out"), to=raysp.Nemo(one_file=True), dest=str(tmp_path / "dest"), trust=True)
        source = raysp.Shards(f"{tmp_path}/dest/labels.jsonl", audio_root=str(manifest))
        raysp.run(a_pipeline(source, str(tmp_path / "again")), engine="here", progress=False)
        texts = [
            [row["pred_text"] for row in pq.read_table(path).to_pylist()]
            for path in (next((manifest / "out").glob("*.parquet")), next((tmp_path / "again").glob("*.parquet")))
        ]
        assert texts[0][:3] == texts[1]


class TestChangedSources:
    @pytest.mark.slow
    def test_a_shard_that_changed_is_refused(self, tmp_path):
        make_long_sink(tmp_path)
        path = tmp_path / "in" / "a.parquet"
        table = pq.read_table(path)
        pq.write_table(table.set_column(0, "id", pa.array(["x", "y"])), path)
        with pytest.raises(ShardError, match=r"a\.parquet: changed since it was planned"):
            raysp.export(str(tmp_path / "out"), to="dataset", dest=str(tmp_path / "dest"), trust=True)
        assert "data/a.parquet" not in content(tmp_path / "dest")

    @pytest.mark.parametrize("to", ["dataset", "nemo"])
    def test_a_recording_that_was_replaced_is_refused(self, tmp_path, to):
        make_manifest_sink(tmp_path)
        os.utime(tmp_path / "long.wav", (1, 1))
        with pytest.raises(ShardError, match=r"recordings were replaced after they were labelled: row 1 .*row 2"):
            raysp.export(str(tmp_path / "out"), to=to, dest=str(tmp_path / "dest"), trust=True)

    @pytest.mark.slow
    def test_a_recording_that_is_gone_leaves_its_row_out(self, tmp_path):
        make_manifest_sink(tmp_path)
        (tmp_path / "short.wav").unlink()
        found = raysp.export(str(tmp_path / "out"), to="dataset", dest=str(tmp_path / "dest"), trust=True)
        assert (found.rows, found.left_out) == (2, {"not_found": 2})
