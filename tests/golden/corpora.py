"""Recordings that the golden cases label: bundled digits, joined digits, and real recordings beside the checkout."""

import io
import json
from collections.abc import Sequence
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import soundfile

import raysp
from tests import kit
from tests.kit import AUDIO, DEMO
from tests.s3_servers import shared_folder

RECORDINGS = shared_folder() / "data"
"""Real recordings, which are not part of the project."""
DIGITS_RATE = 8_000
WORDS_OF_A_ROW = (3, 1, 4, 2, 18)
"""Digits of each row of `joined`. The last one is several windows long."""


def many_digits(folder: Path) -> raysp.Shards:
    """Return a shard of bundled digits."""
    return raysp.Shards(f"{DEMO}/audio/digits-00000-*.parquet", text="text")


def digits(folder: Path) -> raysp.Shards:
    """Write two shards of twelve digits."""
    for number, table in enumerate(map(pq.read_table, _shards())):
        pq.write_table(table.slice(30 * number, 12), folder / f"{number}.parquet", row_group_size=5)
    return raysp.Shards(f"{folder}/*.parquet", text="text")


def joined(folder: Path) -> raysp.Shards:
    """Write a shard of recordings of several digits."""
    rows = pq.read_table(_shards()[0]).to_pylist()
    parts = [rows[first:end] for first, end in pairwise(accumulate(WORDS_OF_A_ROW, initial=0))]
    waves = [np.concatenate([_samples(row) for row in part]) for part in parts]
    texts = [" ".join(row["text"] for row in part) for part in parts]
    return _written(folder, [_flac(wave) for wave in waves], texts)


def stereo(folder: Path) -> raysp.Shards:
    """Write a shard of recordings with a digit in each channel, and one with a single channel."""
    waves = [_samples(row) for row in pq.read_table(_shards()[0]).slice(40, 7).to_pylist()]
    pairs = [_side_by_side(first, second) for first, second in pairwise(waves)][::2]
    _written(folder, [_flac(wave) for wave in [*pairs, waves[-1]]], [""] * (len(pairs) + 1))
    return raysp.Shards(f"{folder}/*.parquet")


def faulty(folder: Path) -> raysp.Shards:
    """Write a shard with every fault but those of processes."""
    faults = [name for name, fault in kit.FAULTS.items() if "parquet" in fault.kinds and name != "crash_decoder"]
    corpus = kit.corpus(folder, rows=12, faults=faults)
    return raysp.Shards(corpus.url, audio_root=corpus.audio_root, text="text")


def spoken(folder: Path) -> raysp.Shards:
    """Write a shard of recordings of several digits with a column of languages."""
    joined(folder)
    table = pq.read_table(folder / "0.parquet")
    pq.write_table(table.append_column("lang", pa.array(["aaa", "ccc", "bbb", "aaa", "ccc"])), folder / "0.parquet")
    return raysp.Shards(f"{folder}/*.parquet", text="text")


def real(folder: Path, name: str, *files: str) -> raysp.Shards:
    """Write a manifest of some recordings of a folder of `RECORDINGS`."""
    lines = [json.loads(line) for line in (RECORDINGS / name / "manifest.jsonl").read_text().splitlines()]
    chosen = {line["audio_filepath"]: line for line in lines if line["audio_filepath"] in files}
    columns = ("audio_filepath", "text")
    rows = [{"id": file, **{column: chosen[file][column] for column in columns}} for file in files]
    (folder / "manifest.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return raysp.Shards(f"{folder}/manifest.jsonl", audio_root=str(RECORDINGS / name), text="text")


def _shards() -> list[Path]:
    return sorted((DEMO / "audio").glob("*.parquet"))


def _samples(row: dict[str, Any]) -> np.ndarray:
    samples, rate = soundfile.read(io.BytesIO(row["audio"]["bytes"]), dtype="int16")
    assert rate == DIGITS_RATE
    return samples


def _side_by_side(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    num_samples = min(len(first), len(second))
    return np.stack([first[:num_samples], second[:num_samples]], axis=1)


def _flac(wave: np.ndarray) -> bytes:
    return kit.sound(wave, DIGITS_RATE, "FLAC")


def _written(folder: Path, recordings: Sequence[bytes], texts: Sequence[str]) -> raysp.Shards:
    audio = pa.array([{"bytes": recording, "path": None} for recording in recordings], AUDIO)
    ids = [f"row-{number}" for number in range(len(recordings))]
    pq.write_table(pa.table({"id": ids, "audio": audio, "text": texts}), folder / "0.parquet")
    return raysp.Shards(f"{folder}/*.parquet", text="text")
