"""Recordings inside of shards by their row: any order of rows gives those of the shard, which is read on."""

import io
import tarfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raysp import AudioError
from raysp.corpus.stored_rows import StoredRows
from raysp.storage.store import Entry
from tests.corpora import wav
from tests.kit import AUDIO

NUM_ROWS = 150
RECORDINGS = [wav(100 + row, seed=row) for row in range(NUM_ROWS)]


@pytest.fixture(scope="module")
def shards(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("shards")
    audio = pa.array([{"bytes": data, "path": None} for data in RECORDINGS], AUDIO)
    table = pa.table({"id": list(map(str, range(NUM_ROWS))), "audio": audio})
    pq.write_table(table, folder / "a.parquet", row_group_size=40)
    with pa.OSFile(f"{folder}/a.arrow", "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table, max_chunksize=7)
    with tarfile.open(folder / "a.tar", "w") as archive:
        for row, data in enumerate(RECORDINGS):
            member = tarfile.TarInfo(f"{row:04}.wav")
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return {path.suffix[1:]: path for path in folder.iterdir()}


def entry_of(path: Path) -> Entry:
    status = path.stat()
    return Entry(path.name, status.st_size, str(status.st_mtime_ns))


@pytest.mark.parametrize("kind", ["parquet", "arrow", "tar"])
@settings(max_examples=8)
@given(numbers=st.lists(st.integers(0, NUM_ROWS - 1), max_size=12))
def test_rows_in_any_order_are_those_of_the_shard(shards, kind, numbers):
    rows, path = StoredRows(), shards[kind]
    for order in (numbers, sorted(numbers)):
        for row in order:
            assert bytes(rows(str(path), entry_of(path), row, "audio")) == RECORDINGS[row]


def test_a_row_behind_the_last_one_or_an_error_does_not_end_the_reading_of_others(shards):
    rows, path = StoredRows(), shards["parquet"]
    for column, row, kind in (("audio", NUM_ROWS, "not_found"), ("id", 0, "no_audio"), ("more", 0, "no_audio")):
        with pytest.raises(AudioError) as refused:
            rows(str(path), entry_of(path), row, column)
        assert refused.value.error_type == kind
        assert bytes(rows(str(path), entry_of(path), 5, "audio")) == RECORDINGS[5]


def test_a_shard_of_another_version_is_not_read(shards):
    path = shards["parquet"]
    entry = entry_of(path)
    with pytest.raises(AudioError, match="changed since it was planned"):
        StoredRows()(str(path), Entry(entry.path, entry.num_bytes + 1, entry.version), 0, "audio")
