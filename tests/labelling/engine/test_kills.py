"""Drivers that are killed with SIGKILL: what they leave, the next run continues."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pyarrow.parquet as pq
import pytest

import raysp
from tests.runs import DEMO, end_processes_without_work, row_hash

pytestmark = [pytest.mark.cluster, pytest.mark.drivers, pytest.mark.slow]

PIPELINE = """
import raysp
pipeline = raysp.Pipeline(
    source=raysp.Shards({corpus!r}, text="text"),
    steps=[raysp.Decode(), raysp.Label({checkpoint!r}, outputs=[raysp.Transcript()])],
    sink=raysp.Parquet({sink!r}),
)
"""


MOMENTS = ["run.json", "plan", "stage", 1, 2, 4, 6, 8, 10, 12]


@pytest.mark.parametrize(
    ("address", "moments"),
    [
        pytest.param("", [3], id="a moment of one process"),
        pytest.param("local", [3], id="a moment on Ray", marks=pytest.mark.soak),
        pytest.param("local", MOMENTS, id="ten moments on Ray", marks=pytest.mark.soak),
    ],
)
def test_a_killed_driver_neither_loses_nor_duplicates_rows(make_pipeline, tmp_path, monkeypatch, address, moments):
    monkeypatch.setenv("RAY_ADDRESS", address)
    corpus = _shards(tmp_path / "corpus", 12)
    raysp.run(make_pipeline(corpus, sink="undisturbed", source={"text": "text"}), engine="here", progress=False)
    sink = tmp_path / "labels"
    file = tmp_path / "kill_me.py"
    checkpoint = str(DEMO / "unispeech-digits-ctc")
    file.write_text(PIPELINE.format(corpus=str(corpus), checkpoint=checkpoint, sink=str(sink)))
    for moment in moments:
        _kill_when(lambda moment=moment: _reached(sink, moment), file)
        assert [path for path in sink.rglob("*.parquet") if ".raysp" in path.parts] == []
        for label_shard in sink.glob("*.parquet"):
            assert pq.read_metadata(label_shard).num_rows == 10  # whole as soon as it can be seen
    committed = {path.name: path.stat().st_mtime_ns for path in sink.glob("*.parquet")}
    found = _raysp("run", str(file), "--json")
    assert found["shards_before"] == len(committed)
    assert found["shards_committed"] == found["shards"] == 12
    assert {name: (sink / name).stat().st_mtime_ns for name in committed} == committed
    assert row_hash(sink) == row_hash(tmp_path / "undisturbed")


@pytest.mark.parametrize(
    "seconds_later",
    [0.0, *(pytest.param(number / 10, marks=pytest.mark.soak) for number in range(1, 25))],
)
@pytest.mark.usefixtures("with_ray")
def test_sigterm_exits_with_143_and_prints_how_to_resume(tmp_path, seconds_later):
    corpus = _shards(tmp_path / "corpus", 6)
    sink = tmp_path / "labels"
    file = tmp_path / "stop_me.py"
    checkpoint = str(DEMO / "unispeech-digits-ctc")
    file.write_text(PIPELINE.format(corpus=str(corpus), checkpoint=checkpoint, sink=str(sink)))
    driver = subprocess.Popen(
        [sys.executable, "-m", "raysp.cli", "run", str(file)], stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    _wait(lambda: (sink / ".raysp" / "run.json").exists(), driver)
    time.sleep(seconds_later)  # amid the start of Ray, of the model, or while blocks come in
    driver.send_signal(signal.SIGTERM)
    _, said = driver.communicate(timeout=60)
    assert driver.returncode == 143, said
    assert f"To resume: raysp run {file}" in said
    assert "Traceback" not in said


def _shards(folder: Path, count: int) -> Path:
    rows = pq.read_table(min((DEMO / "audio").glob("*.parquet")))
    folder.mkdir()
    for number in range(count):
        pq.write_table(rows.slice(10 * number, 10), folder / f"part-{number:02}.parquet")
    return folder


def _reached(sink: Path, moment: str | int) -> bool:
    if isinstance(moment, int):
        return len(list(sink.glob("*.parquet"))) >= moment
    if moment == "stage":
        return any(path.is_file() for path in (sink / ".raysp" / "stage").rglob("*"))
    return (sink / ".raysp" / moment).exists()


def _kill_when(reached, file: Path) -> None:
    driver = subprocess.Popen(
        [sys.executable, "-m", "raysp.cli", "run", str(file)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    _wait(reached, driver)
    children = psutil.Process(driver.pid).children(recursive=True) if driver.poll() is None else []
    if driver.poll() is None:
        os.kill(driver.pid, signal.SIGKILL)
    driver.wait()
    end_processes_without_work(children)


def _wait(reached, driver: subprocess.Popen) -> None:
    deadline = time.monotonic() + 120
    while not reached() and driver.poll() is None:
        assert time.monotonic() < deadline, "the moment never came"
        time.sleep(0.005)


def _raysp(*arguments: str) -> dict:
    done = subprocess.run([sys.executable, "-m", "raysp.cli", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
