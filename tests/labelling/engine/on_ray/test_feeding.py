"""One plan of Ray Data for a whole run: tasks enter it a few at a time."""

import json

import psutil
import pyarrow.parquet as pq
import pytest

import raysp
from raysp import run
from raysp.cluster.resources import Resources
from raysp.labelling.engine.on_ray import stream
from raysp.labelling.engine.on_ray.plan_input import MAX_TASK_BYTES, Feed
from tests.runs import DEMO, processes, row_hash


def actors_of(sink) -> list[str]:
    """List the processes that labelled blocks, in the order of their first one."""
    lines = [line for file in sorted(sink.glob(".raysp/receipts/*")) for line in file.read_text().splitlines()]
    found = [json.loads(line) for line in lines]
    return list(dict.fromkeys(one["actor"] for one in found if one["kind"] == "block"))


def events_of_actors(sink) -> list[str]:
    lines = [line for file in sorted(sink.glob(".raysp/events/*")) for line in file.read_text().splitlines()]
    return [one["event"] for one in map(json.loads, lines) if "actor" in one["event"]]


@pytest.fixture
def one_at_a_time(monkeypatch):
    """Have one piece in Ray Data at a time, as if a run over many were long."""
    monkeypatch.setattr(stream, "TASKS_AHEAD", 1)
    monkeypatch.setattr(stream, "TASKS_AHEAD_A_CPU", 0)
    monkeypatch.setattr(stream, "PIECES_A_TASK", 1)


@pytest.fixture
def shards(write_shards):
    return write_shards(8, 5)


@pytest.mark.drivers
@pytest.mark.cluster
def test_a_model_is_loaded_once_for_all_pieces_and_once_more_after_a_kill(
    local_ray, make_pipeline, shards, tmp_path, one_at_a_time
):
    raysp.run(make_pipeline(shards, sink="undisturbed"), engine="here", progress=False)
    killed = []

    def kill(progress):
        if progress.blocks == 3 and not killed:
            killed.append(progress.blocks)
            max(processes("LabelActor"), key=psutil.Process.create_time).kill()

    result = run(make_pipeline(shards), on_progress=kill)
    assert (result.exit_code, result.rows, killed) == (0, 40, [3])
    assert len(actors_of(tmp_path / "labels")) == 2  # eight times one piece in Ray Data, one kill
    assert events_of_actors(tmp_path / "labels")[:3] == ["actor_started", "actor_lost", "actor_started"]
    assert row_hash(tmp_path / "labels") == row_hash(tmp_path / "undisturbed")


@pytest.mark.cluster
def test_a_large_pool_for_little_work_starts_one_actor_and_comes_back(local_ray, make_pipeline, tmp_path):
    pq.write_table(pq.read_table(min((DEMO / "audio").glob("*.parquet"))).slice(0, 3), tmp_path / "three.parquet")
    found = []
    result = run(make_pipeline(tmp_path / "three.parquet", pool=raysp.Pool(64)), on_plan=found.append)
    assert (result.exit_code, result.rows) == (0, 3)
    assert str(found[0].pool_size).startswith("1 actor (64 requested; 3 rows in 1 piece")


class TestTasks:
    def test_they_are_made_as_they_are_wanted(self):
        taken = []

        def items():
            for number in range(1000):
                taken.append(number)
                yield str(number), 10.0

        tasks = stream.group(items(), Resources(cpus=1), 1000)
        assert next(tasks) == [str(number) for number in range(64)]
        assert len(taken) == 65  # the one that did not fit as well

    def test_they_hold_neighbours_up_to_their_bounds_and_each_piece_once(self):
        items = [(f"{number}".ljust(1000), 1.0) for number in range(500)]
        tasks = list(stream.group(items, Resources(cpus=1), 500))
        assert [item for task in tasks for item in task] == [item for item, _ in items]
        assert max(sum(map(len, task)) for task in tasks) <= MAX_TASK_BYTES
        assert max(map(len, tasks)) == MAX_TASK_BYTES // 1000
        assert [len(task) for task in stream.group([("", stream.PIECE_BYTES)] * 3, Resources(cpus=1), 500)] == [1, 1, 1]
        assert len(next(stream.group(items, Resources(cpus=4), 64))) == 4  # enough for every CPU

    def test_an_error_among_them_ends_the_feed_and_is_kept(self):
        def tasks():
            yield ["one"]
            raise OSError("the plan cannot be read")

        feed = Feed(tasks(), 2)
        assert feed.take().column("piece").to_pylist() == ["one"]
        assert feed.take() is None
        assert str(feed.error) == "the plan cannot be read"
