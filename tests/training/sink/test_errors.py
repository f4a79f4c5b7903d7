"""Error rows of a training in its sink."""

import io
import json

import pyarrow as pa
import pytest
import soundfile

from raysp import Batching, Checkpoint, Schedule, finetune
from tests.corpora import AUDIO, wav, write_shard
from tests.recipes import a_recipe, broken_table, write_words
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


def test_each_run_lists_its_rows_once_in_the_records_of_steps(recipe, tmp_path):
    half = finetune(recipe, should_stop=stopping_after(7))
    assert sum(half.errors.values()) > 0
    whole = finetune(recipe)
    assert 12 >= sum(whole.errors.values()) >= 6
    listed: dict[str, list[list[tuple[str, int]]]] = {}
    for file in sorted((tmp_path / "out" / ".raysp" / "log").iterdir()):
        [record] = map(json.loads, file.read_text().splitlines())
        rows = [(row["shard"], row["row"]) for row in record.get("errors", ())]
        listed.setdefault(file.name.partition("-0000")[0], []).append(rows)
    assert len(listed) == 2
    assert max(sum(map(bool, steps)) for steps in listed.values()) > 1
    for steps in listed.values():
        rows = [row for step in steps for row in step]
        assert len({*rows}) == len(rows)
    found = error_rows_of(tmp_path / "out")
    assert [(row["shard"], row["row"]) for row in found] == ROWS
    assert {row["error_type"] for row in found} == {"corrupt_audio"}
    assert all(row["error_message"] for row in found)


@pytest.mark.parametrize(
    ("num_samples", "kind", "message"),
    [
        (4000, "label_too_long", "20 labels and 12 frames"),
        (300, "too_short", "300 samples; the model needs at least 400"),
    ],
)
def test_a_row_whose_decoded_recording_is_shorter_than_its_header_fails_alone(
    tiny, tmp_path, num_samples, kind, message
):
    samples, rate = soundfile.read(io.BytesIO(wav(8000)))
    file = io.BytesIO()
    soundfile.write(file, samples[:num_samples], rate, format="FLAC")
    flac = bytearray(file.getvalue())
    assert int.from_bytes(flac[22:26], "big") == num_samples
    flac[22:26] = (8000).to_bytes(4, "big")
    recordings = [{"bytes": one, "path": None} for one in (wav(8000), bytes(flac))]
    columns = {"id": ["0", "1"], "audio": pa.array(recordings, AUDIO), "text": ["abcdefghijklmnopqrst"] * 2}
    write_shard(tmp_path / "in" / "a.parquet", table=pa.table(columns))
    result = finetune(a_recipe(f"{tmp_path}/in/*.parquet", tiny, tmp_path / "out"))
    assert (result.rows, result.is_done, [*result.errors]) == (2, True, [kind])
    [row] = error_rows_of(tmp_path / "out")
    assert (row["row"], row["error_message"]) == (1, message)
