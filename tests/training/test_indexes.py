"""Indexes of many rows, which several processes make, or tasks of a cluster: the same as one process makes."""

import logging
import os
import threading
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import raysp
from tests.corpora import AUDIO, wav, write_shard
from tests.recipes import WORDS, a_recipe
from tests.runs import processes
from tests.training.trained import indexed

pytestmark = [pytest.mark.drivers, pytest.mark.slow]


@pytest.fixture(scope="module")
def many(tmp_path_factory) -> raysp.Shards:
    """Shards of so many rows that several processes index them; few rows have a recording, which takes long to open."""
    folder = tmp_path_factory.mktemp("many")
    recordings = [{"bytes": wav(8000 * (1 + length)), "path": None} for length in range(7)]
    for number in range(4):
        rows = range(26_000 + number)
        audio = [None if row % 50 else recordings[row // 50 % 7] for row in rows]
        texts = [WORDS[row // 50 % (6 + number)] for row in rows]
        table = pa.table({"id": [*map(str, rows)], "audio": pa.array(audio, AUDIO), "text": texts})
        write_shard(folder / f"{number}.parquet", table=table, row_group_size=5000)
    return raysp.Shards(f"{folder}/*.parquet", text="text")


def index_of(sink: Path) -> pa.Table:
    return pq.read_table(sink / ".raysp" / "index" / "source.parquet")


@pytest.fixture(scope="module")
def alone(many, tiny, tmp_path_factory) -> pa.Table:
    """The index that this process makes on one CPU."""
    sink, cpus = tmp_path_factory.mktemp("alone") / "out", os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cpus)})
    try:
        indexed(a_recipe("", tiny, sink, source=many))
    finally:
        os.sched_setaffinity(0, cpus)
    return index_of(sink)


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="one process has the only CPU")
def test_processes_of_which_one_is_killed_make_the_index_that_one_makes(many, tiny, tmp_path, alone, caplog):
    recipe, killed = a_recipe("", tiny, tmp_path / "out", source=many), []

    def kill() -> None:
        while not killed:
            killed.extend(processes("raysp.cluster.spreading")[:1])
            time.sleep(0.01)
        killed[0].kill()

    killer = threading.Thread(target=kill, daemon=True)
    killer.start()  # it meets a process that has yet to import what it needs
    calls = indexed(recipe)
    killer.join()
    assert [done for done, _ in calls] == [*range(len(calls))]
    [warning] = [one.message for one in caplog.records if one.levelno == logging.WARNING]
    assert "a process that indexes rows ended with signal SIGKILL; this process does the rest for it" in warning
    assert index_of(tmp_path / "out") == alone
    assert indexed(recipe) == []
