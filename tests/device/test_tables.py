"""Tables that programs label on the stand-in device: several blocks are in hand, of one call and of the next one."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import raysp
from raysp.cluster.resources import ActorCpus
from raysp.labelling.engine.datasets.applying import TableActor
from raysp.labelling.engine.datasets.table_job import TableColumns, TableJob, table_job
from raysp.ops.labelling import Labelling
from tests.corpora import CHECKPOINT, DEMO
from tests.device.conftest import assert_same
from tests.device.stand_in import NAME

ROWS, SECONDS = 24, 60


@pytest.fixture(scope="module")
def rows() -> pa.Table:
    return pq.ParquetFile(min((DEMO / "audio").glob("*.parquet"))).read_row_group(0).slice(0, ROWS)


def job_of(device: str, block_seconds: float = 3.0) -> TableJob:
    outputs = [raysp.Transcript(words=True), raysp.Embedding()]
    label = raysp.Label(str(CHECKPOINT), outputs=outputs, device=device, dtype="float32", batch_seconds=1.5)
    job = table_job([raysp.Decode(), label], TableColumns(keep=["text"]))
    [one] = job.passes
    settings = replace(one.settings, block_seconds=block_seconds, cpus_per_actor=ActorCpus(1))
    return replace(job, passes=(one._replace(settings=settings),))


@pytest.fixture
def running(monkeypatch) -> Iterator[SimpleNamespace]:
    """Counts of the blocks that the model has in hand; the first ones wait for `together` at once."""
    seen, lock, run = SimpleNamespace(now=0, most=0, blocks=0, together=2), threading.Lock(), Labelling.run
    both = threading.Barrier(2)

    def counted(op: Labelling, given: object) -> object:
        with lock:
            seen.now += 1
            seen.blocks += 1
            seen.most, number = max(seen.most, seen.now), seen.blocks
        if number <= seen.together:
            both.wait(SECONDS)  # breaks if blocks are drained
        found = run(op, given)
        with lock:
            seen.now -= 1
        return found

    monkeypatch.setattr(Labelling, "run", counted)
    yield seen
    assert not both.broken


def test_the_next_block_of_a_table_is_in_hand_before_one_ends(rows, running):
    found = TableActor(job_of(NAME))(rows)
    assert running.most == 2
    assert running.blocks > 3
    running.together = 0
    assert_same(found.to_pylist(), TableActor(job_of("cpu"))(rows).to_pylist())


def test_the_first_block_of_the_next_table_is_in_hand_before_the_last_one_of_a_table_ends(rows, running):
    labelling = TableActor(job_of(NAME, 1000.0))
    tables = [rows.slice(0, ROWS // 2), rows.slice(ROWS // 2)]
    with ThreadPoolExecutor(2) as calls:
        found = [*calls.map(labelling, tables)]
    assert (running.most, running.blocks) == (2, 2)
    running.together = 0
    expected = TableActor(job_of("cpu"))
    for one, table in zip(found, tables, strict=True):
        assert_same(one.to_pylist(), expected(table).to_pylist())


def test_blocks_of_a_table_on_cpus_are_labelled_one_after_another(rows, running):
    running.together = 0
    TableActor(job_of("cpu"))(rows)
    assert running.most == 1
    assert running.blocks > 3
