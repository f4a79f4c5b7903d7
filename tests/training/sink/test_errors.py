"""Error rows of a training in its sink."""

import io
import json
import logging

import pyarrow as pa
import pytest
import soundfile

from raysp import Batching, Checkpoint, Schedule, finetune
from tests.corpora import AUDIO, wav, write_shard
from tests.recipes import a_recipe, write_words
from tests.training.runs.test_finetuning import broken_table
from tests.training.trained import error_rows_of, stopping_after

pytestmark = pytest.mark.slow

ROWS = [(f"{name}.parquet", row) for name in "yz" for row in range(3)]


@pytest.fixture
def recipe(tiny, tmp_path):
    """Two epochs of some steps, of which six rows of two shards fail in each."""
    write_words(tmp_path / "in", 20)
    for name in ("y", "z"):
        write_shard(tmp_path / "in" / f"{name}.parquet", table=broken_table(3))
    batching, schedule = Batching(seconds=2, micro_batches=1, window_seconds=2), Schedule(epochs=2)
    sink = Checkpoint(str(tmp_path / "out"), every=1)
    return a_recipe(f"{tmp_path}/in/*.parquet", tiny, sink, batching=batching, schedule=schedule)


def test_each_run_lists_its_rows_once_after_a_commit(recipe, tmp_path):
    half = finetune(recipe, should_stop=stopping_after(7))
    assert sum(half.errors.values()) > 0
    whole = finetune(recipe)
    assert 12 >= sum(whole.errors.values()) >= 6
    runs: dict[str, list[tuple[str, int]]] = {}
    files = sorted((tmp_path / "out" / ".raysp" / "errors").iterdir())
    for file in files:
        rows = [json.loads(line) for line in file.read_text().splitlines()]
        assert rows
        runs.setdefault(file.name.rpartition("-")[0], []).extend((row["shard"], row["row"]) for row in rows)
    assert len(runs) == 2
    assert len(files) > 2  # of several commits of a run
    assert all(len({*rows}) == len(rows) for rows in runs.values())
    found = error_rows_of(tmp_path / "out")
    assert [(row["shard"], row["row"]) for row in found] == ROWS
    assert {row["error_type"] for row in found} == {"corrupt_audio"}
    assert all(row["error_message"] for row in found)


def test_rows_that_cannot_be_written_are_written_later(recipe, tmp_path, caplog):
    folder = tmp_path / "out" / ".raysp" / "errors"
    warned = []

    def put(_: object) -> None:
        folder.write_text("in the place of the folder")

    def remove(progress):
        if folder.is_file() and "error rows are not written yet: " in caplog.text:
            warned.append(progress.done)
            folder.unlink()

    with caplog.at_level(logging.WARNING):
        finetune(recipe, on_plan=put, on_progress=remove)
    assert warned
    assert [(row["shard"], row["row"]) for row in error_rows_of(tmp_path / "out")] == ROWS


def test_a_row_whose_decoded_recording_has_fewer_frames_than_its_header_fails_alone(tiny, tmp_path):
    samples, rate = soundfile.read(io.BytesIO(wav(8000)))
    file = io.BytesIO()
    soundfile.write(file, samples[:4000], rate, format="FLAC")
    flac = bytearray(file.getvalue())
    assert int.from_bytes(flac[22:26], "big") == 4000
    flac[22:26] = (8000).to_bytes(4, "big")
    recordings = [{"bytes": one, "path": None} for one in (wav(8000), bytes(flac))]
    columns = {"id": ["0", "1"], "audio": pa.array(recordings, AUDIO), "text": ["abcdefghijklmnopqrst"] * 2}
    write_shard(tmp_path / "in" / "a.parquet", table=pa.table(columns))
    result = finetune(a_recipe(f"{tmp_path}/in/*.parquet", tiny, tmp_path / "out"))
    assert (result.rows, result.is_done, [*result.errors]) == (2, True, ["label_too_long"])
    [row] = error_rows_of(tmp_path / "out")
    assert (row["row"], row["error_message"]) == (1, "20 labels and 12 frames")
