"""The commit protocol with real processes: killed at every phase, paused, interrupted, concurrent.

What kills on disk in one process leave is also shown by `tests/by_promise/test_kit.py`.
"""

import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pyarrow.parquet as pq
import pytest

import raysp
from tests.clouds.cloud import CLOUDS
from tests.corpora import a_pipeline, write_shard
from tests.kit import DEMO, PHASES, pipeline_file
from tests.places import Bucket, Folder, Place
from tests.runs import end_processes_without_work, row_hash

pytestmark = [pytest.mark.cluster, pytest.mark.drivers, pytest.mark.slow]

SHARDS, ROWS, COPIES = 3, 6, 40
HOLD = """
import time
from pathlib import Path


def hold(rows):
    while rows.num_rows and Path({file!r}).exists():  # a plan asks about no row
        time.sleep(0.02)
    return [True] * rows.num_rows
"""
"""A filter of a user that waits while a file exists, and keeps every row."""
EVERY_KILL = [f"{when}_{phase}:{n}" for phase in PHASES for when in ("before", "after") for n in (1, 2)]
ONCE = ("plan_written", "run_finished")  # phases that a run passes once
WORKERS = {"ray": "local", "one process": ""}
"""Values of RAY_ADDRESS."""
IN_SHORT = {
    ("disk", "ray", "after_piece_staged:2"),
    ("s3", "one process", "before_stage_removed:1"),
    ("gs", "one process", "before_shard_committed:1"),
}
"""`tests/storage/test_clouds.py` has what a protocol asks of Google Cloud Storage and of Azure alike."""


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    """Small shards of two pieces' worth of rows, and the labels of an undisturbed run beside them."""
    folder = tmp_path_factory.mktemp("protocol")
    rows = pq.read_table(min((DEMO / "audio").glob("*.parquet")))
    for number in range(SHARDS):
        write_shard(folder / "in" / f"{number}.parquet", table=rows.slice(ROWS * number, ROWS), row_group_size=3)
    raysp.run(a_pipeline(f"{folder}/in/*.parquet", folder / "undisturbed"), engine="here", progress=False)
    return folder


def write_recipe(folder: Path, corpus: str, sink: str, options: dict[str, object] | None = None) -> Path:
    more = {"storage_options": options or {}}
    pipeline = a_pipeline(raysp.Shards(corpus, **more), raysp.Parquet(sink, **more))
    return pipeline_file(folder / "recipe_of_the_protocol.py", pipeline)


@pytest.fixture
def place(request, tmp_path) -> Place:
    """Where shards are read from and labels go: a folder, or a bucket for both."""
    if request.param == "disk":
        return Folder(tmp_path)
    server = request.getfixturevalue(CLOUDS.get(request.param, "s3"))
    return Bucket(server, server.bucket(), tmp_path)


def start(*arguments: object, **environment: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "raysp", *map(str, arguments)],
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=180)
    return process.returncode, out, err


def kills() -> list:
    every = [at for at in EVERY_KILL if at[-1] == "1" or at.split("_", 1)[1].split(":")[0] not in ONCE]
    return [
        pytest.param(*one, id="-".join(one), marks=() if one in IN_SHORT else pytest.mark.soak)
        for one in itertools.product(("disk", "s3", *CLOUDS), WORKERS, every)
    ]


@pytest.mark.parametrize(("place", "workers", "at"), kills(), indirect=["place"])
def test_a_run_killed_in_any_phase_gives_the_same_rows_when_run_again(corpus, place, tmp_path, workers, at):
    place.put(corpus / "in", "in")
    shards, sink = f"{place.url('in')}/*.parquet", place.url("labels")
    recipe = write_recipe(tmp_path, shards, sink, place.options)
    folder = tmp_path / "kills"
    folder.mkdir()
    faults = {"RAYSP_FAIL_AT": at, "RAYSP_FAIL_FOLDER": str(folder)}
    killed = start("run", recipe, **faults, RAY_ADDRESS=WORKERS[workers])
    children = Children(killed)
    ended, _, said = finish(killed)
    assert ended == -signal.SIGKILL, said
    end_processes_without_work(children.seen)
    committed = place.writes("labels")
    left = place.copy("labels")
    assert label_shards(left) <= {f"{number}.parquet" for number in range(SHARDS)}
    for name in committed:
        assert pq.read_metadata(left / name).num_rows == ROWS  # whole as soon as it can be seen
    # The next run, on the very same parts but without a Ray of its own: that is what a start of Ray would cost.
    source = raysp.Shards(shards, storage_options=place.options)
    raysp.run(a_pipeline(source, raysp.Parquet(sink, storage_options=place.options)), engine="here", progress=False)
    after = place.writes("labels")
    assert {name: after[name] for name in committed} == committed
    labels = place.copy("labels")
    assert label_shards(labels) == {f"{number}.parquet" for number in range(SHARDS)}
    assert row_hash(labels) == row_hash(corpus / "undisturbed")
    raysp.gc(sink, place.options)
    verified = raysp.verify(sink, place.options, trust=True)
    assert (verified.differences, verified.orphans) == ((), ())


def label_shards(folder: Path) -> set[str]:
    """Name what could be taken for a label shard, by the strictest and the laxest of readers."""
    by_name = {str(path.relative_to(folder)) for path in folder.rglob("*.parquet")}
    files = {path.relative_to(folder) for path in folder.rglob("*") if path.is_file()}
    return by_name | {str(path) for path in files if path.parts[0] != ".raysp"}


class Children:
    """The processes that a run started."""

    def __init__(self, driver: subprocess.Popen) -> None:
        self.seen: set[psutil.Process] = set()
        while driver.poll() is None:
            with suppress(psutil.NoSuchProcess):
                self.seen |= set(psutil.Process(driver.pid).children(recursive=True))
            time.sleep(0.2)


@pytest.fixture
def holding(corpus, tmp_path, monkeypatch) -> Path:
    """A pipeline file whose run waits while the file `held` is there."""
    (tmp_path / "holding.py").write_text(HOLD.format(file=str(tmp_path / "held")))
    (tmp_path / "held").touch()
    monkeypatch.syspath_prepend(tmp_path)
    pipeline = a_pipeline(f"{corpus}/in/*.parquet", tmp_path / "labels", keep=[raysp.Keep(where="holding:hold")])
    return pipeline_file(tmp_path / "held_recipe.py", pipeline)


BEATS = {"RAYSP_BEAT_SECONDS": "0.5", "RAYSP_ENGINE": "here"}


def test_a_second_driver_is_refused_while_the_first_runs_and_takes_over_while_it_is_paused(corpus, holding, tmp_path):
    sink = tmp_path / "labels"
    first = start("run", holding, **BEATS)
    wait_for(lambda: [*sink.glob(".raysp/run.json")], first)
    code, _, said = finish(start("run", holding, **BEATS))
    assert code == 2, said
    assert f"(pid {first.pid}" in said
    assert "is running on this sink (its heartbeat was seen " in said
    assert "Traceback" not in said
    first.send_signal(signal.SIGSTOP)
    (tmp_path / "held").unlink()
    second = start("run", holding, **BEATS)
    try:
        code, _, said = finish(second)
        assert code == 0, said
        assert f"(pid {first.pid}" in said  # it was watched before it was held to be dead
        written = {path.name: path.stat().st_mtime_ns for path in sink.glob("*.parquet")}
    finally:
        first.send_signal(signal.SIGCONT)
    code, _, said = finish(first)
    assert code == 1, said
    assert f"(pid {second.pid}" in said
    assert "holds the lease (epoch 2, this run held 1)" in said
    assert "Traceback" not in said
    assert {path.name: path.stat().st_mtime_ns for path in sink.glob("*.parquet")} == written
    assert row_hash(sink) == row_hash(corpus / "undisturbed")
    check_whole(sink)


@pytest.mark.parametrize(
    ("number", "expected"), [(signal.SIGINT, 130), pytest.param(signal.SIGTERM, 143, marks=pytest.mark.soak)]
)
def test_a_signal_during_labelling_shuts_the_run_down_cleanly(corpus, tmp_path, caplog, with_ray, number, expected):
    """The next run is stopped by a second signal while Ray does not answer, and the one after it resumes."""
    for copy in range(COPIES):
        shutil.copy(corpus / "in" / "0.parquet", tmp_path / f"copy-{copy:02}.parquet")
    sink, pipeline = tmp_path / "labels", a_pipeline(f"{tmp_path}/copy-*.parquet", tmp_path / "labels")
    recipe = pipeline_file(tmp_path / "recipe_of_signals.py", pipeline)
    run = start("run", recipe, "--set", "steps.1.pool.actors=1")
    wait_for(lambda: [*sink.glob("*.parquet")], run)
    run.send_signal(number)
    code, _, said = finish(run)
    assert code == expected, said
    assert f"To resume: raysp run {recipe} --set" in said
    assert "Traceback" not in said
    assert is_released(sink)
    done = len([*sink.glob("*.parquet")])
    assert raysp.status(str(sink)).shards_committed == done < COPIES

    run = start("run", recipe)
    wait_for(lambda: len([*sink.glob("*.parquet")]) > done, run)
    parts = psutil.Process(run.pid).children(recursive=True)
    for part in parts:  # Ray does not answer: an end in order would wait for it
        with suppress(psutil.NoSuchProcess):
            part.suspend()
    run.send_signal(signal.SIGINT)
    time.sleep(1.3)  # signals within a second count as one
    assert run.poll() is None
    run.send_signal(signal.SIGINT)
    try:
        run.wait(timeout=60)
    finally:
        for part in parts:
            with suppress(psutil.NoSuchProcess):
                part.kill()
        psutil.wait_procs(parts, timeout=30)
    code, _, said = finish(run)
    assert (code, f"To resume: raysp run {recipe}" in said) == (130, True), said
    assert not is_released(sink)  # nothing was put in order
    caplog.clear()
    raysp.run(pipeline, engine="here", progress=False)
    assert "holds the lease; checking" not in caplog.text  # nobody has to wait: the process is known to be gone
    raysp.run(a_pipeline(pipeline.source, tmp_path / "undisturbed"), engine="here", progress=False)
    assert row_hash(sink) == row_hash(tmp_path / "undisturbed")
    check_whole(sink)


def is_released(sink: Path) -> bool:
    return json.loads(max(sink.glob(".raysp/lease/*")).read_text())["released"]


def check_whole(sink: Path) -> None:
    """Check that a sink holds what its shards need, and nothing else."""
    raysp.gc(str(sink))
    verified = raysp.verify(str(sink), trust=True)
    assert (verified.differences, verified.orphans) == ((), ())


def wait_for(reached, process: subprocess.Popen) -> None:
    deadline = time.monotonic() + 300
    while not reached():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline, "the moment never came"
        time.sleep(0.01)
