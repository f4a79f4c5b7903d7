"""Runs that end in the middle of a row of several channels, and go on."""

import pyarrow.parquet as pq
import pytest

import raysp
from tests.ops.channels.calls import encoded, of_one_length, pipeline, side


@pytest.fixture
def recordings():
    first, second = of_one_length([side(0, [0, 0.5]), side(1, [1])])
    return [encoded([first, second, first]), encoded([second])]


@pytest.mark.slow
def test_a_run_that_ends_between_blocks_of_a_row_goes_on_to_the_same_labels(tmp_path, recordings, monkeypatch):
    monkeypatch.setattr("raysp.ops.decoding.STREAM_BLOCK_BYTES", 4 * 24_000)  # channels of a row in several blocks
    options = {"window_seconds": 1, "overlap_seconds": 0.25}
    raysp.run(pipeline(tmp_path / "whole", recordings, **options), engine="here", progress=False)
    killed = pipeline(tmp_path / "killed", recordings, **options)
    blocks = []

    def stop(progress):
        blocks.append(progress.blocks)
        if progress.blocks == 2:
            raise KeyboardInterrupt

    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            raysp.run(killed, engine="here", progress=False, on_progress=stop)
    assert blocks == [1, 2, 1, 2]
    raysp.run(killed, engine="here", progress=False, on_progress=lambda progress: blocks.append(progress.blocks))
    found, expected = (pq.read_table(tmp_path / name / "out" / "a.parquet") for name in ("killed", "whole"))
    assert found.equals(expected)
    assert found.column("status").to_pylist() == ["ok"] * 2
    assert blocks[-1] > 5
