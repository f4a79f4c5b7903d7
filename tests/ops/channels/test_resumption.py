"""Runs that end in the middle of a row of several channels, and go on."""

import itertools

import pyarrow.parquet as pq
import pytest

import raysp
from raysp.sink import stage
from tests.ops.channels.calls import encoded, of_one_length, pipeline, side


class Killed(Exception):  # noqa: N818 - stands in for the end of a process
    """The end of a process."""


@pytest.fixture
def recordings():
    first, second = of_one_length([side(0, [0, 0.5]), side(1, [1])])
    return [encoded([first, second, first]), encoded([second])]


@pytest.mark.slow
def test_a_run_that_ends_after_any_block_goes_on_to_the_same_labels(tmp_path, recordings, monkeypatch):
    monkeypatch.setattr("raysp.ops.decoding.STREAM_BLOCK_BYTES", 4 * 24_000)  # channels of a row in several blocks
    options = {"window_seconds": 1, "overlap_seconds": 0.25}
    raysp.run(pipeline(tmp_path / "whole", recordings, **options), engine="here", progress=False)
    killed = pipeline(tmp_path / "killed", recordings, **options)
    whole, passed = stage.stage, itertools.count()

    def stage_until(store, name, table):
        if next(passed) in (2, 5):
            raise Killed
        whole(store, name, table)

    monkeypatch.setattr(stage, "stage", stage_until)
    for _ in range(2):
        with pytest.raises(Killed):
            raysp.run(killed, engine="here", progress=False)
    raysp.run(killed, engine="here", progress=False)
    found, expected = (pq.read_table(tmp_path / name / "out" / "a.parquet") for name in ("killed", "whole"))
    assert found.equals(expected)
    assert found.column("status").to_pylist() == ["ok"] * 2
    assert next(passed) > 9
