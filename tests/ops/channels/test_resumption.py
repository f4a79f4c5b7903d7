"""Runs that end in the middle of a row of several channels, and go on; rows that are labelled again."""

import pyarrow.parquet as pq
import pytest

import raysp
from tests.corpora import CHECKPOINT, a_pipeline
from tests.ops.channels.calls import ALONE, TIMED, encoded, of_one_length, side


@pytest.fixture
def recordings():
    first, second = of_one_length([side(0, [0, 0.5]), side(1, [1])])
    return [encoded([first, second, first]), encoded([second])]


@pytest.mark.slow
def test_rows_that_are_retried_or_recomputed_are_those_of_a_run_of_all(tmp_path, recordings):
    call, mono = recordings
    files = {"a.wav": mono, "b.wav": b"no audio", "c.wav": call, "d.wav": b"", "e.wav": mono}
    (tmp_path / "in").mkdir()
    for name, held in files.items():
        (tmp_path / "in" / name).write_bytes(held)
    label = raysp.Label(str(CHECKPOINT), outputs=[TIMED], batch_seconds=ALONE, window_seconds=1, overlap_seconds=0.25)
    steps = [raysp.Decode(channel="each"), label]
    made = [
        a_pipeline(f"{tmp_path}/in", f"{tmp_path}/{name}", steps=steps, max_error_rate=1) for name in ("out", "all")
    ]
    raysp.run(made[0], engine="here", progress=False)
    for name in ("b.wav", "d.wav"):
        (tmp_path / "in" / name).write_bytes(call)
    retried = raysp.retry(f"{tmp_path}/out", pipeline=made[0], engine="here", progress=False)
    assert (retried.rows, retried.errors) == (2, {})
    raysp.run(made[1], engine="here", progress=False)
    found, expected = ([pq.read_table(one) for one in (tmp_path / name).glob("*.parquet")] for name in ("out", "all"))
    assert [one.to_pylist() for one in found] == [one.to_pylist() for one in expected]
    assert [len(texts) for texts in found[0].column("pred_text").to_pylist()] == [1, 3, 3, 3, 1]
    assert raysp.verify(f"{tmp_path}/out", pipeline=made[0], sample=5).differences == ()
