"""The sink of a try-out: lent, and gone afterwards."""

import os
import time
from pathlib import Path

import pytest

import raysp
from raysp.sink import layout
from raysp.sink.sinks import trial_sink
from raysp.storage.stores import open_store
from tests import kit


@pytest.mark.parametrize("was_there", [False, True])
def test_on_a_cluster_it_is_hidden_below_the_sink_and_nothing_of_it_stays(tmp_path, was_there):
    place = tmp_path / "a" / "labels"
    if was_there:
        place.mkdir(parents=True)
    with trial_sink(raysp.Parquet(str(place)), is_shared=True) as sink:
        open_store(sink.url).create("x/part.parquet", b"x")
        assert (Path(sink.url) / "x" / "part.parquet").relative_to(place).parts[0] == ".raysp"
    assert list(tmp_path.rglob("*")) == ([tmp_path / "a", place] if was_there else [])


def test_gc_removes_the_files_of_one_that_no_longer_writes(tmp_path):
    out = tmp_path / "out"
    raysp.run(kit.corpus(tmp_path / "in", 1).pipeline(out), engine="here", progress=False)
    beats = [f"{layout.TRIAL}{name}/{layout.lease_path(1)}" for name in ("killed", "active")]
    rows = [f"{layout.TRIAL}{name}/part.parquet" for name in ("killed", "active")]
    for path in (*rows, *beats):
        open_store(str(out)).create(path, b"x")
    long_ago = time.time() - 25 * 3600
    for path in (*rows, beats[0]):
        os.utime(out / path, (long_ago, long_ago))
    assert kit.run(["gc", out]).code == 0
    assert [(out / path).exists() for path in (*rows, *beats)] == [False, True, False, True]
