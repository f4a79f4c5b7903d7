"""Runs, evaluations, try-outs and calls of Python programs on the stand-in device: the labels of the CPU."""

import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

import raysp
from raysp import Labeller, PlanError, RunError
from tests.corpora import CHECKPOINT, DEMO, write_shard
from tests.device.conftest import assert_same
from tests.device.stand_in import NAME, Event, faulty

ROOT = Path(__file__).parents[2]
ROWS = 9
LONGEST = 8000
"""Samples of a row for which a device with little memory has room."""


def is_of_waves(result: torch.Tensor) -> bool:
    """Return whether a result of the device has the samples of rows: each has more of them than anything else."""
    return result.dim() == 2 and result.shape[1] > LONGEST // 2


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    """A shard of real speech with its texts, and one row that is no audio."""
    folder = tmp_path_factory.mktemp("corpus")
    table = pq.ParquetFile(min((DEMO / "audio").glob("*.parquet"))).read_row_group(0).slice(0, ROWS)
    audio = table.column("audio").to_pylist()
    audio[4] = {"bytes": b"no audio", "path": None}
    place = table.column_names.index("audio")
    return write_shard(folder / "a.parquet", table=table.set_column(place, "audio", pa.array(audio)))


def steps(device: str) -> list[Any]:
    outputs = [raysp.Transcript(words=True), raysp.Embedding()]
    return [raysp.Decode(), raysp.Label(str(CHECKPOINT), outputs=outputs, device=device, dtype="float32")]


def pipeline(corpus: Path, device: str, sink: Path | str = "not written") -> raysp.Pipeline:
    source = raysp.Shards(str(corpus), text="text")
    return raysp.Pipeline(source, steps=steps(device), sink=raysp.Parquet(str(sink)))


def test_a_small_run_starts_no_ray(corpus, tmp_path):
    """The device is registered in each process by torch itself, which loads the backends of installed packages."""
    code = tmp_path / "code"
    installed = code / "standin-1.dist-info"
    installed.mkdir(parents=True)
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: standin\nVersion: 1\n")
    (installed / "entry_points.txt").write_text("[torch.backends]\nstandin = tests.device.stand_in:install\n")
    (code / "ray.py").write_text("raise ImportError('Ray is imported')\n")
    (tmp_path / "label.py").write_text(
        "import raysp\n"
        "label = raysp.Label(\n"
        f"    {str(CHECKPOINT)!r}, outputs=[raysp.Transcript(words=True), raysp.Embedding()], dtype='float32'\n"
        ")\n"
        f"pipeline = raysp.Pipeline(raysp.Shards({str(corpus)!r}, text='text'), steps=[raysp.Decode(), label], "
        "sink=raysp.Parquet('out'))\n"
    )
    path = os.pathsep.join([str(code), str(ROOT)])
    environment = {**os.environ, "PYTHONPATH": path}
    command = [sys.executable, "-m", "raysp", "run", "label.py", "--set", f"steps.1.device={NAME}"]
    ran = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    labels = pq.read_table(tmp_path / "out").to_pylist()
    assert [row["status"] for row in labels].count("ok") == ROWS - 1
    assert_same(labels, labels_of(pipeline(corpus, "cpu")))


def labels_of(made: raysp.Pipeline) -> list[dict[str, object]]:
    return raysp.run(made, rows=ROWS, progress=False).table.to_pylist()


def test_a_few_rows_are_labelled_in_this_process(corpus):
    result = raysp.run(pipeline(corpus, NAME), rows=ROWS, progress=False)
    assert (result.rows, sum(result.errors.values())) == (ROWS, 1)
    assert_same(result.table.to_pylist(), labels_of(pipeline(corpus, "cpu")))


def test_a_batch_that_exceeds_the_memory_of_the_device_is_halved(corpus):
    expected = labels_of(pipeline(corpus, NAME))
    sizes = []

    def with_little_memory(result: torch.Tensor) -> None:
        if not is_of_waves(result):
            return
        sizes.append(len(result))
        if len(result) > 2 or result.shape[1] > LONGEST:
            raise torch.OutOfMemoryError("CUDA out of memory")

    with faulty(with_little_memory):
        found = labels_of(pipeline(corpus, NAME))
    assert max(sizes) > 2
    too_large = [row["error_type"] == "out_of_memory" for row in found]
    assert 0 < sum(too_large) < ROWS - 1
    kept = [(row, other) for row, other, large in zip(found, expected, too_large, strict=True) if not large]
    assert_same(*map(list, zip(*kept, strict=True)))


def test_a_device_that_fails_ends_the_try_out_with_an_error(corpus):
    def lost(result: torch.Tensor) -> None:
        if is_of_waves(result):
            raise RuntimeError("CUDA error: unspecified launch failure")

    message = r"the device failed and cannot be used any more.*launch failure"
    with faulty(lost), pytest.raises(RunError, match=message):
        raysp.run(pipeline(corpus, NAME), rows=ROWS, progress=False)


def test_a_device_that_torch_cannot_use_is_refused(corpus):
    with pytest.raises(PlanError, match=r"steps\.1\.device='xpu': the installed torch can use no such device"):
        raysp.run(pipeline(corpus, "xpu"), rows=3, progress=False)


def test_the_next_piece_is_on_the_device_before_the_host_waits_for_the_last_batch_of_a_piece(
    corpus, tmp_path, monkeypatch
):
    names, synchronize, kernels, waits, late = ["a", "b", "c"], Event.synchronize, [], [], []
    for name in names:
        write_shard(tmp_path / "in" / f"{name}.parquet", table=pq.read_table(corpus))

    def waiting(event: Event) -> None:
        waits.append(len(waits) + 1)
        piece, is_last = divmod(waits[-1], of_piece[0]) if of_piece else (0, 1)
        until = time.monotonic() + 60
        while is_last == 0 and piece < len(names) and len(kernels) <= piece * of_piece[1]:
            if time.monotonic() > until:
                late.append(names[piece - 1])
                break
            time.sleep(0.001)
        synchronize(event)

    of_piece: list[int] = []
    monkeypatch.setattr(Event, "synchronize", waiting)
    with faulty(lambda result: kernels.append(1) if is_of_waves(result) else None):
        labels_of(pipeline(corpus, NAME))
        of_piece[:] = len(waits), len(kernels)
        waits.clear()
        kernels.clear()
        raysp.run(pipeline(tmp_path / "in", NAME, tmp_path / "out"), engine="here", progress=False)
    assert (len(waits), len(kernels), late) == (3 * of_piece[0], 3 * of_piece[1], [])
    expected = labels_of(pipeline(corpus, "cpu"))
    for name in names:
        assert_same(pq.read_table(tmp_path / "out" / f"{name}.parquet").select([*expected[0]]).to_pylist(), expected)


@pytest.mark.parametrize("stop", [KeyboardInterrupt, RuntimeError])
def test_a_run_that_is_stopped_between_pieces_in_hand_continues(corpus, tmp_path, stop):
    for name in "abcd":
        write_shard(tmp_path / "in" / f"{name}.parquet", table=pq.read_table(corpus))
    made = pipeline(tmp_path / "in", NAME, tmp_path / "out")

    def stopping(progress: Any) -> None:
        if progress.staged.rows:
            raise stop

    with pytest.raises(stop):
        raysp.run(made, engine="here", progress=False, on_progress=stopping)
    assert "raysp-reader" not in [thread.name for thread in threading.enumerate()]
    assert raysp.run(made, engine="here", progress=False).shards_committed == 4


def test_an_evaluation_has_the_scores_of_the_cpu(corpus):
    found, expected = (
        raysp.evaluate(steps(device)[1], raysp.Shards(str(corpus), id=None), text="text", rows=ROWS)
        for device in (NAME, "cpu")
    )
    assert found.scores == expected.scores


def test_a_labeller_in_a_program(corpus):
    rows = pq.read_table(corpus)
    with Labeller(steps(NAME), id=None) as found, Labeller(steps("cpu"), id=None) as expected:
        assert_same(found(rows).to_pylist(), expected(rows).to_pylist())
