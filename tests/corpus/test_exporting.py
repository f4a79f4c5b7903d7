"""Data sets in memory or on disk as audio shards, from the side of who has one."""

import datasets
import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile

import raysp
from raysp import PlanError, ShardError
from raysp.corpus import dataset_export
from tests.corpora import a_pipeline, wav

pytestmark = pytest.mark.lengthy


@pytest.fixture
def files(tmp_path):
    """Write recordings into a folder."""
    paths = [tmp_path / f"{number}.wav" for number in range(3)]
    for path in paths:
        path.write_bytes(wav())
    return [str(path) for path in paths]


def by_path(files):
    made = datasets.Dataset.from_dict({"id": ["a", "b", "c"], "sound": files, "text": ["x", None, "z"]})
    return made.cast_column("sound", datasets.Audio())


def rows(source):
    return [row for url in source.urls for row in pq.read_table(url).to_pylist()]


def test_a_data_set_in_memory_is_a_source_with_the_bytes_of_its_files(files, tmp_path):
    source = raysp.Shards.from_dataset(by_path(files), str(tmp_path / "shards"), text="text")
    assert (source.audio, source.id, source.text) == ("sound", "id", "text")
    assert [row["text"] for row in rows(source)] == ["x", None, "z"]
    assert [row["sound"]["bytes"] for row in rows(source)] == [wav()] * 3
    assert raysp.plan(a_pipeline(source, tmp_path / "out")).num_rows == 3


def test_shards_are_written_once(files, tmp_path, monkeypatch):
    monkeypatch.setattr(dataset_export, "SHARD_BYTES", 1)
    monkeypatch.setattr(dataset_export, "ROWS_AT_ONCE", 1)
    made = by_path(files)
    first = raysp.Shards.from_dataset(made, str(tmp_path / "shards"))
    assert len(first.urls) == 3
    (tmp_path / "shards" / dataset_export.MARKER).unlink()  # as if the first attempt had died: the same shards are made
    assert raysp.Shards.from_dataset(made, str(tmp_path / "shards")) == first
    monkeypatch.setattr(dataset_export, "_write", None)
    assert raysp.Shards.from_dataset(made, str(tmp_path / "shards")) == first
    with pytest.raises(PlanError, match=r"holds another data set .* use another folder"):
        raysp.Shards.from_dataset(made.select([0]), str(tmp_path / "shards"))
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").touch()
    with pytest.raises(PlanError, match=r"holds 'notes.txt', expected an empty folder"):
        raysp.Shards.from_dataset(made, str(tmp_path / "other"))


@pytest.mark.parametrize(
    ("samples", "subtype"),
    [
        (np.array([0, 5, -(2**15) + 1]), "PCM_16"),
        (np.array([0.0, 0.25, -1.5]), "FLOAT"),
        (np.array([0.1, 1 / 3]), "DOUBLE"),
    ],
)
def test_arrays_are_kept_to_the_last_bit(tmp_path, samples, subtype):
    made = datasets.Dataset.from_dict({"audio": [{"array": samples, "sampling_rate": 8000}]})
    source = raysp.Shards.from_dataset(made, str(tmp_path / "shards"))
    (tmp_path / "x.wav").write_bytes(rows(source)[0]["audio"]["bytes"])
    info = soundfile.info(tmp_path / "x.wav")
    assert (info.samplerate, info.subtype, source.id) == (8000, subtype, None)
    dtype = {"PCM_16": "int16", "FLOAT": "float32", "DOUBLE": "float64"}[subtype]
    assert soundfile.read(tmp_path / "x.wav", dtype=dtype)[0].tolist() == samples.tolist()


def test_a_saved_data_set_is_loaded_and_selected_rows_are_those(files, tmp_path):
    datasets.DatasetDict({"train": by_path(files), "test": by_path(files).select([2])}).save_to_disk(tmp_path / "saved")
    source = raysp.Shards.from_dataset(str(tmp_path / "saved"), str(tmp_path / "shards"), split="test")
    assert [row["id"] for row in rows(source)] == ["c"]
    with pytest.raises(PlanError, match="has the splits train, test; choose one"):
        raysp.Shards.from_dataset(str(tmp_path / "saved"), str(tmp_path / "more"))


def test_a_file_that_is_gone_is_named_with_its_row(files, tmp_path):
    (tmp_path / "1.wav").unlink()
    with pytest.raises(ShardError, match=r"row 1: its recording '.*1.wav' cannot be read"):
        raysp.Shards.from_dataset(by_path(files), str(tmp_path / "shards"))


def test_a_data_set_without_audio_is_refused(tmp_path):
    with pytest.raises(PlanError, match="found 0 audio columns among text"):
        raysp.Shards.from_dataset(datasets.Dataset.from_dict({"text": ["x"]}), str(tmp_path / "shards"))
    with pytest.raises(PlanError, match=r"found list, expected a datasets.Dataset"):
        raysp.Shards.from_dataset([1], str(tmp_path / "shards"))
