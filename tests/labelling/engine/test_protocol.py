"""The commit protocol with real processes: killed at every phase, paused, interrupted, concurrent."""

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

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

SHARDS, ROWS = 3, 6
EVERY_KILL = [f"{when}_{phase}:{n}" for phase in PHASES for when in ("before", "after") for n in (1, 2)]
ONCE = ("plan_written", "run_finished")  # phases that a run passes once
WORKERS = {"ray": "local", "one process": ""}
"""Values of RAY_ADDRESS."""
IN_SHORT = {
    ("disk", "ray", "after_piece_staged:2"),
    ("disk", "one process", "before_stage_removed:1"),
    ("s3", "ray", "after_shard_committed:1"),
    ("gs", "one process", "before_shard_committed:1"),
    ("az", "one process", "after_shard_committed:1"),
}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    """Small shards of two pieces' worth of rows, and the labels of an undisturbed run beside them."""
    folder = tmp_path_factory.mktemp("protocol")
    rows = pq.read_table(min((DEMO / "audio").glob("*.parquet")))
    for number in range(SHARDS):
        write_shard(folder / "in" / f"{number}.parquet", table=rows.slice(ROWS * number, ROWS), row_group_size=3)
    raysp.run(a_pipeline(f"{folder}/in/*.parquet", folder / "undisturbed"), engine="here", progress=False)
    return folder


@pytest.fixture
def recipe(corpus, tmp_path) -> Path:
    return write_recipe(tmp_path, f"{corpus}/in/*.parquet", str(tmp_path / "labels"))


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
        [sys.executable, "-m", "raysp.cli", *map(str, arguments)],
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


@pytest.mark.drivers
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


@pytest.mark.drivers
def test_a_second_driver_is_rejected_while_the_first_runs_and_a_stopped_one_prints_how_to_resume(
    corpus, recipe, tmp_path
):
    sink = tmp_path / "labels"
    first = start("run", recipe, **{"RAYSP_BEAT_SECONDS": "0.5"})
    wait_for(lambda: list(sink.glob(".raysp/run.json")), first)  # a run that ends before leaves no lease
    second = start("run", recipe, **{"RAYSP_BEAT_SECONDS": "0.5"})
    code, _, said = finish(second)
    if first.poll() is None:
        assert code == 2, said
        assert f"(pid {first.pid}" in said
        assert "is running on this sink (its heartbeat was seen " in said
        assert "Traceback" not in said
    first.send_signal(signal.SIGTERM)
    code, _, said = finish(first)
    assert code in (0, 143), said
    if code == 143:
        assert f"To resume: raysp run {recipe}" in said
    assert json.loads(max(sink.glob(".raysp/lease/*")).read_text())["released"]


@pytest.mark.drivers
@pytest.mark.usefixtures("with_ray")
@pytest.mark.parametrize(
    ("number", "expected"), [(signal.SIGINT, 130), pytest.param(signal.SIGTERM, 143, marks=pytest.mark.soak)]
)
def test_a_signal_during_labelling_shuts_the_run_down_cleanly(corpus, recipe, tmp_path, number, expected):
    sink = tmp_path / "labels"
    run = start("run", recipe, "--set", f"source.url={many_shards(corpus, tmp_path)}")
    wait_for(lambda: list(sink.glob("*.parquet")), run)
    run.send_signal(number)
    code, _, said = finish(run)
    assert code == expected, said
    assert f"To resume: raysp run {recipe} --set" in said
    assert "Traceback" not in said
    assert json.loads(max(sink.glob(".raysp/lease/*")).read_text())["released"]
    assert list(sink.glob(".raysp/log/*"))
    assert len(list(sink.glob("*.parquet"))) < 20
    status = raysp.status(str(sink))
    assert status.shards_committed == len(list(sink.glob("*.parquet")))


@pytest.mark.drivers
@pytest.mark.usefixtures("with_ray")
def test_a_second_ctrl_c_exits_immediately_and_the_next_run_resumes(corpus, recipe, tmp_path, caplog):
    sink = tmp_path / "labels"
    sources = many_shards(corpus, tmp_path)
    run = start("run", recipe, "--set", f"source.url={sources}")
    wait_for(lambda: list(sink.glob("*.parquet")), run)
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
    assert code == 130, said
    assert f"To resume: raysp run {recipe} --set" in said
    assert not json.loads(max(sink.glob(".raysp/lease/*")).read_text())["released"]  # nothing was put in order
    caplog.clear()
    raysp.run(a_pipeline(sources, sink), engine="here", progress=False)
    assert "holds the lease; checking" not in caplog.text  # nobody has to wait: the process is known to be gone
    assert_labelled(sources, sink)


@pytest.mark.drivers
@pytest.mark.parametrize("workers", ["one process", pytest.param("ray", marks=pytest.mark.soak)])
def test_a_paused_driver_stops_after_another_took_over_its_lease(corpus, recipe, tmp_path, workers):
    sink = tmp_path / "labels"
    sources = many_shards(corpus, tmp_path)
    arguments = ("run", recipe, "--set", f"source.url={sources}")
    environment = {"RAYSP_BEAT_SECONDS": "0.5", "RAY_ADDRESS": WORKERS[workers]}
    first = start(*arguments, **environment)
    wait_for(lambda: list(sink.glob("*.parquet")), first)
    first.send_signal(signal.SIGSTOP)
    second = start(*arguments, **environment)
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
    assert_labelled(sources, sink)


def many_shards(corpus: Path, folder: Path) -> str:
    """Make enough shards that something happens while there is something left; gives a url of all."""
    for copy in range(20):
        shutil.copy(corpus / "in" / "0.parquet", folder / f"copy-{copy:02}.parquet")
    return f"{folder}/copy-*.parquet"


def assert_labelled(sources: str, sink: Path) -> None:
    """Check that a sink is whole, and as an undisturbed run makes it."""
    fresh = sink.with_name("undisturbed")
    raysp.run(a_pipeline(sources, fresh), engine="here", progress=False)
    assert row_hash(sink) == row_hash(fresh)
    raysp.gc(str(sink))
    verified = raysp.verify(str(sink), trust=True)
    assert (verified.differences, verified.orphans) == ((), ())


def wait_for(reached, process: subprocess.Popen) -> None:
    deadline = time.monotonic() + 300
    while not reached():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline, "the moment never came"
        time.sleep(0.01)
