"""Pieces: as much audio as the hardware and the pool ask for, whatever holds the recordings."""

import json
from itertools import accumulate, pairwise

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import raysp
from tests import kit
from tests.corpora import AUDIO, a_pipeline, write_tar

NUM_ROWS, ROW_SECONDS = 120, 20
BYTES_PER_SECOND = 16_000
"""Of FLAC, by which audio is estimated."""


def write_rows(folder, kind: str):
    """Write rows as large as recordings of a little less than `ROW_SECONDS`, and return the url of the source."""
    recording = bytes(BYTES_PER_SECOND * ROW_SECONDS - 400)
    names = [f"{row:04}.flac" for row in range(NUM_ROWS)]
    folder.mkdir()
    audio = pa.array([{"bytes": recording, "path": name} for name in names], AUDIO)
    table = pa.table({"id": names, "audio": audio})
    if kind == "parquet":
        pq.write_table(table, folder / "a.parquet", use_dictionary=["id"], compression="zstd")
    elif kind == "arrow":
        with pa.ipc.new_file(str(folder / "a.arrow"), table.schema) as writer:
            writer.write_table(table, max_chunksize=5)
    elif kind == "tar":
        write_tar(folder / "a.tar", dict.fromkeys(names, recording))
    elif kind == "manifest":
        lines = (json.dumps({"audio_filepath": name, "duration": ROW_SECONDS}) for name in names)
        (folder / "a.jsonl").write_text("\n".join(lines))
        return str(folder / "a.jsonl")
    else:
        for name in names:
            with (folder / name).open("wb") as file:
                file.truncate(len(recording))
    return str(folder)


def pieces_of(source: object, sink, **label) -> list[int]:
    """Plan, check that the pieces hold every row once, and return their numbers of rows."""
    [shard] = raysp.plan(a_pipeline(source, sink, label=label)).corpus.shards
    sizes = [piece.num_rows for piece in shard.pieces]
    assert [(piece.first, piece.end) for piece in shard.pieces] == [*pairwise(accumulate(sizes, initial=0))]
    assert sum(sizes) == shard.num_rows
    return sizes


@pytest.mark.parametrize("kind", ["parquet", "arrow", "tar", "manifest", "folder"])
def test_without_gpus_a_piece_has_five_minutes(tmp_path, kind):
    found = pieces_of(write_rows(tmp_path / "in", kind), tmp_path / "out")
    assert 8 <= len(found) <= 10
    assert max(found) * ROW_SECONDS <= 300


@pytest.mark.parametrize(("actors", "num_pieces"), [(1, 4), (3, 12), ((1, 8), 40), (64, 40)])
def test_with_gpus_each_actor_has_four_pieces_of_at_least_a_minute(tmp_path, actors, num_pieces):
    source = write_rows(tmp_path / "in", "manifest")
    pool = raysp.Pool(actors=actors, gpus=1)
    found = pieces_of(source, tmp_path / "out", device="cuda", pool=pool)
    assert len(found) == num_pieces
    assert min(found) * ROW_SECONDS >= 60


def test_recorded_pieces_stay_whatever_later_runs_have(tmp_path):
    kit.corpus(tmp_path / "in")
    pipeline = a_pipeline(f"{tmp_path}/in", tmp_path / "out")
    kit.interrupted(pipeline)
    before = [shard.pieces for shard in raysp.plan(pipeline).corpus.shards]
    larger = a_pipeline(f"{tmp_path}/in", tmp_path / "out", label={"pool": raysp.Pool(actors=(1, 100))})
    assert [shard.pieces for shard in raysp.plan(larger).corpus.shards] == before
