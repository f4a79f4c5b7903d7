"""Small runs are labelled by one process beside the driver, without Ray."""

import asyncio
import os
import signal
import subprocess
import sys
import time
import uuid
from collections import Counter
from contextlib import contextmanager
from pathlib import Path

import psutil
import pyarrow.parquet as pq
import pytest

import raysp
from raysp.cluster import connection
from raysp.labelling.engine import label_process, running
from raysp.labelling.engine.running import run
from raysp.specs import spec
from raysp.specs.work_files import load_pipeline
from tests.corpora import CHECKPOINT, DEMO, a_pipeline, label_here, write_shard
from tests.here import run_without_ray
from tests.labelling.engine.deadly import UnloadableTranscript
from tests.runs import processes, row_hash

SHARDS, ROWS = 3, 6
MANY = 15
"""More shards of a run that is ended while it works."""


@spec
class CrashingOnce(raysp.Transcript):
    """A transcript whose op kills its process over the second shard that any process labels, and only then.

    The rows of each pass stand in a file of `folder`.
    """

    folder: str = ""

    def op(self, loaded):
        op, folder = super().op(loaded), Path(self.folder)
        crashed = folder / "crashed"

        class Op:
            schema, staged, layers, empty = op.schema, op.staged, op.layers, op.empty

            def __call__(self, forward):
                (folder / f"pass-{uuid.uuid4()}").write_text("\n".join(forward.places))
                if len({place.partition("|")[0] for place in _passed(folder)}) == 2 and not crashed.exists():
                    crashed.touch()
                    os.kill(os.getpid(), signal.SIGKILL)
                    time.sleep(10_000)
                return op(forward)

        return Op()


def _passed(folder: Path) -> list[str]:
    """Return the windows that went through a model, as often as they did."""
    return [place for file in folder.glob("pass-*") for place in file.read_text().split("\n")]


@pytest.fixture
def corpus(tmp_path) -> Path:
    rows = pq.read_table(min((DEMO / "audio").glob("*.parquet")))
    for number in range(SHARDS):
        write_shard(tmp_path / "in" / f"{number}.parquet", table=rows.slice(ROWS * number, ROWS), row_group_size=3)
    return tmp_path


@pytest.fixture
def without_a_ray(monkeypatch):
    """No Ray is connected, as far as a run can see; the names of the starts of one."""
    started: list[str] = []
    local_ray = connection.local_ray

    @contextmanager
    def noting(resources):
        started.append("Ray")
        with local_ray(resources):
            yield

    monkeypatch.setattr(running, "is_cluster", lambda _: False)
    monkeypatch.setattr(running, "requires_ray", lambda _: False)
    monkeypatch.setattr(connection, "local_ray", noting)
    return started


@pytest.mark.slow
def test_labels_and_receipts_are_those_of_other_runs_and_no_ray_starts(corpus, without_a_ray):
    result = run(a_pipeline(f"{corpus}/in", corpus / "out"))
    assert (result.exit_code, result.rows, result.shards_committed) == (0, SHARDS * ROWS, SHARDS)
    assert without_a_ray == []
    label_here(a_pipeline(f"{corpus}/in", corpus / "other"))
    assert row_hash(corpus / "out") == row_hash(corpus / "other")
    assert raysp.verify(str(corpus / "out")).differences == ()
    assert raysp.status(str(corpus / "out")).shards_committed == SHARDS


@pytest.mark.drivers
@pytest.mark.slow
def test_a_process_that_started_before_the_run_labels_it(corpus, without_a_ray, monkeypatch):
    with label_process.started_early():
        monkeypatch.setattr(label_process, "MAIN", "no_second_process")
        result = run(a_pipeline(f"{corpus}/in/0.parquet", corpus / "out"))
    assert (result.exit_code, result.rows, without_a_ray) == (0, ROWS, [])


def test_a_process_that_started_before_a_refused_run_ends_with_it(corpus, without_a_ray, monkeypatch):
    monkeypatch.setattr(label_process, "MAIN", "code")  # waits for its input, and imports little
    with label_process.started_early():
        child = psutil.Process(label_process.of_this_run()._process.pid)
        assert child.is_running()
        with pytest.raises(raysp.PlanError, match="no such file"):
            run(a_pipeline(f"{corpus}/nowhere", corpus / "out"))
    assert not child.is_running()
    assert label_process.of_this_run()._process is None


@pytest.mark.drivers
@pytest.mark.slow
def test_two_runs_of_one_session_whose_event_loop_is_running_as_in_a_notebook(corpus, without_a_ray):
    async def cells() -> list[running.RunResult]:
        return [run(a_pipeline(f"{corpus}/in/0.parquet", corpus / name)) for name in ("one", "two")]

    assert [(result.exit_code, result.rows) for result in asyncio.run(cells())] == [(0, ROWS), (0, ROWS)]
    assert row_hash(corpus / "one") == row_hash(corpus / "two")
    assert without_a_ray == []


@pytest.mark.drivers
@pytest.mark.slow
def test_a_damaged_shard_fails_alone(corpus, without_a_ray):
    pipeline = a_pipeline(f"{corpus}/in", corpus / "out", steps=[raysp.Decode(), _keep_or_fail(), *_label()])
    result = run(pipeline)
    assert list(result.shards_failed) == ["1.parquet"]
    assert "the second shard" in result.shards_failed["1.parquet"]
    assert (result.exit_code, result.shards_committed, without_a_ray) == (3, 2, [])


def _label() -> list[raysp.Label]:
    return [raysp.Label(str(CHECKPOINT), outputs=[raysp.Transcript()])]


def _keep_or_fail() -> raysp.Keep:
    return raysp.Keep(where="tests.labelling.engine.test_one_process:fails_over_the_second_shard")


def fails_over_the_second_shard(table) -> list[bool]:
    second = pq.read_table(min((DEMO / "audio").glob("*.parquet"))).column("id")[ROWS].as_py()
    if second in table.column("id").to_pylist():
        raise raysp.ShardError("the second shard")
    return [True] * table.num_rows


@pytest.mark.drivers
@pytest.mark.cluster
def test_when_the_process_crashes_ray_labels_the_rest(corpus, without_a_ray, local_ray, tmp_path, caplog):
    outputs = {"outputs": [CrashingOnce(folder=str(tmp_path))]}
    result = run(a_pipeline(f"{corpus}/in", corpus / "out", label=outputs))
    assert (result.exit_code, result.rows, result.errors) == (0, SHARDS * ROWS, {})
    assert without_a_ray == ["Ray"]
    assert "the labelling process ended with signal SIGKILL; continuing on Ray" in caplog.text
    times = Counter(_passed(tmp_path))
    again = {place.partition("|")[0] for place, number in times.items() if number > 1}
    assert (len(times), len(again), max(times.values())) == (SHARDS * ROWS, 1, 2)  # only of the block that crashed
    label_here(a_pipeline(f"{corpus}/in", corpus / "other"))
    assert row_hash(corpus / "out") == row_hash(corpus / "other")
    assert raysp.verify(str(corpus / "out")).differences == ()


@pytest.mark.slow
def test_a_message_cut_off_by_a_crash_is_not_a_message(corpus, without_a_ray, monkeypatch):
    code = "import os, signal\nprint('{\"kind\": \"blo', end='', flush=True)\nos.kill(os.getpid(), signal.SIGKILL)\n"
    (corpus / "writes_half_a_line.py").write_text(code)
    monkeypatch.setenv("PYTHONPATH", str(corpus), prepend=os.pathsep)
    monkeypatch.setattr(label_process, "MAIN", "writes_half_a_line")

    def instead_of_ray(plan, faults, *_):
        without_a_ray.append("Ray")
        return running._in_this_process(plan, faults)

    monkeypatch.setattr(running, "_on_ray", instead_of_ray)
    result = run(a_pipeline(f"{corpus}/in", corpus / "out"))
    assert (result.exit_code, result.rows, without_a_ray) == (0, SHARDS * ROWS, ["Ray"])


@pytest.mark.drivers
@pytest.mark.slow
def test_threads_of_a_process_that_waits_for_its_job_do_not_spin():
    environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    environment["OMP_DISPLAY_ENV"] = "TRUE"  # printed when torch is imported
    command = [sys.executable, "-m", label_process.MAIN]
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, env=environment, capture_output=True, text=True, timeout=120
    )
    assert "OMP_WAIT_POLICY = 'PASSIVE'" in done.stderr


@pytest.mark.drivers
@pytest.mark.slow
def test_a_model_that_cannot_be_loaded_ends_the_run_with_the_reason(corpus, without_a_ray, tmp_path):
    outputs = {"outputs": [UnloadableTranscript(folder=str(tmp_path), failures=99)]}
    with pytest.raises(raysp.RunError, match=r"OSError: .*No space left on device"):
        run(a_pipeline(f"{corpus}/in", corpus / "out", label=outputs))
    assert without_a_ray == []


@pytest.mark.drivers
@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (signal.SIGINT, 130),
        pytest.param(signal.SIGKILL, -9, marks=pytest.mark.soak),
        pytest.param(signal.SIGTERM, 143, marks=pytest.mark.soak),
    ],
    ids=lambda one: str(one),
)
def test_the_process_ends_with_the_driver_and_the_next_run_continues(corpus, number, expected, monkeypatch):
    file = corpus / "label_many.py"
    for copy in range(MANY):
        (corpus / "in" / f"copy-{copy}.parquet").symlink_to(corpus / "in" / "0.parquet")
    file.write_text(
        f"import raysp\npipeline = raysp.Pipeline(source=raysp.Shards({f'{corpus}/in/*.parquet'!r}), "
        f"steps=[raysp.Decode(), raysp.Label({str(CHECKPOINT)!r}, outputs=[raysp.Transcript()])], "
        f"sink=raysp.Parquet({f'{corpus}/out'!r}))\n"
    )
    command = [sys.executable, "-m", "raysp.cli", "run", str(file)]
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    driver = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while not list((corpus / "out").glob("*.parquet")):
        assert driver.poll() is None, driver.communicate()[1]
        time.sleep(0.01)
    parts = psutil.Process(driver.pid).children(recursive=True)
    assert processes("raysp.labelling.engine.workers.alone", driver.pid)
    driver.send_signal(number)
    _, said = driver.communicate(timeout=120)
    assert driver.returncode == expected, said
    assert psutil.wait_procs(parts, timeout=60)[1] == []
    run_without_ray(monkeypatch)
    again = run(load_pipeline(str(file)))
    assert (again.exit_code, again.shards_committed) == (0, SHARDS + MANY)
    assert 0 < again.shards_before < SHARDS + MANY
    assert raysp.verify(f"{corpus}/out").differences == ()
