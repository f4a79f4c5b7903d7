"""When a run stops because too many rows fail, and which shards wait until it is known."""

from pathlib import Path

import pyarrow as pa
import pytest

import raysp
from tests import kit
from tests.corpora import AUDIO, a_pipeline, wav, write_shard

SHORT, BAD = wav(20), b"no audio at all"
"""Recordings of rows that are skipped, and of error rows: both take no time."""


def write(folder: Path, *shards: tuple[int, int]) -> None:
    """Write shards a, b, c, ... of these numbers of rows and error rows, which are the last ones."""
    for name, (rows, errors) in zip("abcdef", shards, strict=False):
        audio = [{"bytes": SHORT if row < rows - errors else BAD, "path": None} for row in range(rows)]
        table = pa.table({"id": [f"{name}{row}" for row in range(rows)], "audio": pa.array(audio, AUDIO)})
        write_shard(folder / "in" / f"{name}.parquet", table=table)


def label(folder: Path, most: float) -> dict[int, str]:
    """Run, and return the label shards that were there once so many rows were staged; 0 stands for the end."""
    seen: dict[int, str] = {}

    def look(number: int) -> None:
        seen.setdefault(number, "".join(sorted(path.stem[0] for path in (folder / "out").glob("*.parquet"))))

    counted = {"on_progress": lambda progress: look(progress.staged.rows) if progress.staged.rows else None}
    pipeline = a_pipeline(f"{folder}/in", folder / "out", max_error_rate=most)
    raysp.run(pipeline, engine="here", progress=False, **counted)
    look(0)
    return seen


def test_clean_shards_wait_for_nothing_and_flawed_ones_for_enough_rows(tmp_path):
    write(tmp_path, (100, 0), (99, 1), (1, 0), (1, 0))
    assert label(tmp_path, 0.5) == {100: "a", 199: "a", 200: "abc", 201: "abcd", 0: "abcd"}


@pytest.mark.parametrize(
    ("rows", "errors", "most", "is_exceeded"),
    [
        (19, 19, 0.5, False),
        (20, 17, 0.5, True),
        (199, 121, 0.5, False),
        (200, 101, 0.5, True),
        (20, 20, 1.0, False),
        (20, 1, 0.0, True),
    ],
)
def test_few_rows_stop_a_run_only_beyond_doubt_or_without_tolerance(tmp_path, rows, errors, most, is_exceeded):
    write(tmp_path, (rows, errors))
    if not is_exceeded:
        assert label(tmp_path, most)[0] == "a"
        return
    with pytest.raises(raysp.RunError, match=f"more than max_error_rate={most}"):
        label(tmp_path, most)
    assert all(row["status"] == "skipped" for row in kit.rows(tmp_path / "out", "status"))
