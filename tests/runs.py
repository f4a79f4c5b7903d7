"""Fixtures of runs: one Ray for all tests of a process, and small corpora of real recordings."""

import contextlib
import json
from collections.abc import Collection
from pathlib import Path

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import raysp
from raysp.cluster.connection import local_ray as own_ray
from raysp.cluster.resources import Resources
from tests import forked
from tests.here import run_without_ray
from tests.kit import AUDIO, CHECKPOINT, DEMO


class SharedRay:
    """A Ray for all tests of a group. It ends before a test of another group, which would be connected to it."""

    def __init__(self) -> None:
        self._hub_cache: Path | None = None
        self._running: contextlib.ExitStack | None = None

    def start(self, hub_cache: Path) -> None:
        """Start it with workers that have a cache of the Hugging Face hub and no network."""
        self._hub_cache = hub_cache
        self.go_on()

    def go_on(self) -> None:
        """Start it again if it has ended."""
        if self._hub_cache is None or self._running is not None:
            return
        with contextlib.ExitStack() as stack:
            patched = stack.enter_context(pytest.MonkeyPatch.context())
            patched.setenv("HF_HUB_CACHE", str(self._hub_cache))
            patched.setenv("HF_HUB_OFFLINE", "1")
            stack.enter_context(forked.workers())
            stack.enter_context(own_ray(Resources(cpus=3)))
            self._running = stack.pop_all()

    def end(self) -> None:
        """End it, if it has started."""
        running, self._running = self._running, None
        if running is not None:
            running.close()


shared_ray = SharedRay()


@pytest.fixture(scope="session")
def workers_hub_cache(tmp_path_factory):
    """The cache of the Hugging Face hub that workers of the shared Ray have."""
    return tmp_path_factory.mktemp("hub")


@pytest.fixture(scope="session")
def local_ray(workers_hub_cache):
    shared_ray.start(workers_hub_cache)
    yield
    shared_ray.end()


@pytest.fixture
def without_ray(monkeypatch):
    """Runs label in this process: for what does not depend on the workers of a run."""
    run_without_ray(monkeypatch)


@pytest.fixture
def with_ray(monkeypatch):
    """Small runs too start a Ray of their own."""
    monkeypatch.setenv("RAY_ADDRESS", "local")


@pytest.fixture
def make_pipeline(tmp_path):
    """Make a pipeline over some shards; keywords go to Label, `source` and `sink` to theirs."""

    def make(shards, *, sink="labels", source=None, sink_options=None, steps=(), checkpoint=CHECKPOINT, **label):
        label.setdefault("outputs", [raysp.Transcript()])
        return raysp.Pipeline(
            source=raysp.Shards(str(shards), **(source or {})),
            steps=[raysp.Decode(), *steps, raysp.Label(str(checkpoint), **label)],
            sink=raysp.Parquet(str(tmp_path / sink), **(sink_options or {})),
        )

    return make


@pytest.fixture
def small_shards(tmp_path):
    """Six shards of twenty digits each."""
    rows = pa.concat_tables([pq.read_table(file) for file in sorted((DEMO / "audio").glob("*.parquet"))])
    folder = tmp_path / "corpus"
    folder.mkdir()
    for number in range(6):
        pq.write_table(rows.slice(20 * number, 20), folder / f"part-{number}.parquet", row_group_size=10)
    return folder


def read_labels(folder) -> pa.Table:
    """Read all that a reader of the sink sees, by place."""
    files = sorted(Path(folder).rglob("*.parquet"))
    tables = []
    for file in files:
        table = pq.read_table(file)
        tables.append(table.append_column("shard", pa.array([file.name] * table.num_rows)))
    return pa.concat_tables(tables)


def row_hash(folder) -> str:
    """Put every label row into one line each, scores to three digits."""
    rows = read_labels(folder).to_pylist()
    for row in rows:
        for name, value in row.items():
            if isinstance(value, float):
                row[name] = round(value, 3)
    return "\n".join(sorted(json.dumps(row, sort_keys=True, default=str) for row in rows))


def audio_shard(path: Path, recordings: list[tuple[str, bytes | None]]) -> None:
    """Write recordings as a shard in the HF-audio layout."""
    audio = [{"bytes": data, "path": None} for _, data in recordings]
    table = pa.table({"id": [name for name, _ in recordings], "audio": pa.array(audio, AUDIO)})
    pq.write_table(table, path, row_group_size=16)


@pytest.fixture
def write_shards(tmp_path):
    """Write small shards of real recordings into a folder, and return the folder."""

    def write(num_shards: int, rows_a_shard: int) -> Path:
        rows = pq.read_table(min((DEMO / "audio").glob("*.parquet")))
        (tmp_path / "in").mkdir()
        for number in range(num_shards):
            part = rows.slice(rows_a_shard * number, rows_a_shard)
            pq.write_table(part, tmp_path / "in" / f"{number}.parquet")
        return tmp_path / "in"

    return write


def end_processes_without_work(children: Collection[psutil.Process]) -> None:
    """Check that the processes of a killed driver end, and end the rest of Ray's.

    All that works must go. Two agents of Ray and workers that had not started yet look for a control store that is no
    longer there, for up to a minute: they are helped along.
    """
    idle = [child for child in children if _is_without_work(child)]
    _, alive = psutil.wait_procs([child for child in children if child not in idle], timeout=60)
    assert alive == []
    for child in idle:
        with contextlib.suppress(psutil.NoSuchProcess):
            child.kill()
    psutil.wait_procs(idle, timeout=30)


def processes(title: str, of: int | None = None) -> list[psutil.Process]:
    """Return the processes that a process, or this one, has started, by a part of their title, such as `ModelActor`."""
    found = []
    with contextlib.suppress(psutil.NoSuchProcess):
        for child in psutil.Process(of).children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):  # it has just ended
                if title in " ".join(child.cmdline()):
                    found.append(child)
    return found


def _is_without_work(process: psutil.Process) -> bool:
    try:
        return "Agent" in process.name() or any("default_worker.py" in part for part in process.cmdline())
    except psutil.NoSuchProcess:
        return False
