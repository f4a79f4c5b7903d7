"""Files of strangers that are small and claim or decode to much: each is refused in a process with little memory."""

import json
import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.corpora import CHECKPOINT, wav
from tests.storage.limited import MIB, limited

OPEN = "from raysp.models import check_checkpoint, load_model"
CONFIGURATIONS = {
    "hidden_size": 10**9,
    "vocab_size": 10**12,
    "conv_dim": [10**9] * 7,
}


@pytest.mark.slow
def test_a_configuration_of_any_sizes_is_refused_before_anything_is_allocated(tmp_path):
    values = json.loads((CHECKPOINT / "config.json").read_text())
    for name, value in CONFIGURATIONS.items():
        shutil.copytree(CHECKPOINT, tmp_path / name)
        (tmp_path / name / "config.json").write_text(json.dumps({**values, name: value}))
    work = (
        f"for name in {list(CONFIGURATIONS)}:\n    for read in (check_checkpoint, load_model):\n"
        f"        try:\n            read({str(tmp_path)!r} + '/' + name)\n"
        "        except RayspError as error:\n            print(name, type(error).__name__, len(str(error)) < 2000)\n"
    )
    assert limited(OPEN, work).splitlines() == [f"{name} CheckpointError True" for name in CONFIGURATIONS for _ in "12"]


def csv(folder):
    """More rows than a folder has recordings, of two bytes each."""
    (folder / "metadata.csv").write_bytes(b"file_name,b\n" + b",\n" * 10_000_001)


def wide_jsonl(folder):
    """A line with many keys, which every row then has."""
    keys = {str(key): 1 for key in range(900)}
    (folder / "metadata.jsonl").write_text(json.dumps({"file_name": "a.wav", **keys}) + "\n" + "{}\n" * 112_000)


def long_line(folder):
    (folder / "metadata.jsonl").write_text('{"file_name": "' + "a" * 20 * MIB + '"}\n')


def hole(folder):
    with (folder / "metadata.jsonl").open("wb") as file:
        file.truncate(20 * 1024 * MIB)


def parquet(folder):
    """A value that a dictionary stores once."""
    texts = pa.DictionaryArray.from_arrays(pa.array([0] * 3000, pa.int32()), pa.array(["x" * MIB]))
    table = pa.table({"file_name": [f"{row}.wav" for row in range(3000)], "text": texts})
    pq.write_table(table, folder / "metadata.parquet", compression="zstd")


TABLES = {
    csv: "has 10,000,002 rows; expected at most 10,000,000",
    wide_jsonl: "cells; expected at most 100,000,000",
    long_line: "a line has more than 16,777,216 bytes",
    hole: "has 21,474,836,480 bytes; expected at most 1,073,741,824",
    parquet: "bytes decoded; expected at most 1,073,741,824",
}


@pytest.mark.slow
@pytest.mark.parametrize(("make", "message"), TABLES.items(), ids=lambda value: getattr(value, "__name__", ""))
def test_a_table_beside_recordings_is_bounded(tmp_path, make, message):
    (tmp_path / "a.wav").write_bytes(wav(1600))
    make(tmp_path)
    name = next(tmp_path.glob("metadata.*")).name
    found = limited(
        "from raysp.corpus import metadata\nfrom raysp.storage.audio_root import AudioRoot",
        f"metadata.read(AudioRoot({str(tmp_path)!r}), [{name!r}])",
        more_bytes=1200 * MIB,
    )
    assert found.startswith("ShardError")
    assert name in found
    assert message in found
    assert len(found) < 600
