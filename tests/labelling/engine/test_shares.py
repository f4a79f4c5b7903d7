"""Several runs over shares of one corpus and sink, side by side and one after the other."""

import json
import re
from pathlib import Path

import pyarrow.parquet as pq
import pytest

import raysp
from raysp import PlanError
from raysp.cluster.resources import Resources
from raysp.labelling.engine import running
from raysp.labelling.planning.opening import begin_share, is_outdated, make_plan
from raysp.labelling.planning.run_plan import Opened
from raysp.sink import layout, lease, plan_record
from raysp.sink.lease import Running
from raysp.sink.run_record import RunEntry
from raysp.sink.shares import ALL, Share
from raysp.sink.sinks import Sink
from tests.corpora import a_pipeline, write_shard
from tests.here import run_without_ray
from tests.runs import DEMO, row_hash

SHARDS = 7


@pytest.fixture
def here(monkeypatch):
    """Runs label in this process, without Ray; whether another run is alive is known within a second."""
    run_without_ray(monkeypatch)
    monkeypatch.setenv(lease.BEAT_VARIABLE, "1")


@pytest.fixture(scope="module")
def digits(tmp_path_factory) -> Path:
    """Seven shards of three digits each, and the labels of one run over all of them."""
    folder = tmp_path_factory.mktemp("shares")
    rows = pq.read_table(min((DEMO / "audio").glob("*.parquet")))
    for number in range(SHARDS):
        write_shard(folder / "in" / f"{number}.parquet", table=rows.slice(3 * number, 3))
    raysp.run(a_pipeline(f"{folder}/in", folder / "whole"), engine="here", progress=False)
    return folder


@pytest.fixture
def pipeline(digits, tmp_path) -> raysp.Pipeline:
    return a_pipeline(f"{digits}/in", tmp_path / "labels")


def written(pipeline: raysp.Pipeline) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in Path(pipeline.sink.url).glob("*.parquet")}


def run(pipeline: raysp.Pipeline, shards: tuple[int, int] | None = None, **fields: object) -> running.RunResult:
    return raysp.run(pipeline, shards=shards, progress=False, **fields)


@pytest.mark.slow
@pytest.mark.usefixtures("here")
class TestRuns:
    def test_shares_are_labelled_one_after_the_other_and_status_shows_the_whole(self, digits, pipeline):
        sizes = []
        for number in (3, 1, 2):
            before = written(pipeline)
            result = run(pipeline, (number, 3))
            assert (result.exit_code, result.shards, result.shards_before) == (0, result.shards_committed, 0)
            assert len(written(pipeline)) == len(before) + result.shards
            sizes.append(result.shards)
            status = raysp.status(pipeline.sink.url)
            assert (status.shards, status.shards_committed, status.rows) == (SHARDS, len(written(pipeline)), 3 * SHARDS)
        assert sorted(sizes) == [2, 2, 3]
        assert row_hash(pipeline.sink.url) == row_hash(digits / "whole")
        assert raysp.verify(pipeline.sink.url, pipeline=pipeline).differences == ()
        again = run(pipeline)
        assert (again.rows, again.shards_before) == (0, SHARDS)

    @pytest.mark.drivers
    def test_two_drivers_work_side_by_side_and_overlapping_ones_are_refused(self, digits, pipeline):
        """The second one runs whole while the first one has labelled its first block."""
        seen = []

        def second(_: object) -> None:
            if seen:
                return
            seen.append(raysp.status(pipeline.sink.url))
            for overlapping in (lambda: run(pipeline, (1, 3)), lambda: raysp.gc(pipeline.sink.url)):
                with pytest.raises(PlanError, match=r"shards 1/2\) is running on this sink"):
                    overlapping()
            seen.append(run(pipeline, (2, 2)))
            seen.append(raysp.status(pipeline.sink.url))

        first = run(pipeline, (1, 2), on_progress=second)
        at_first, other, later = seen
        assert (first.shards_committed, other.shards_committed) == (4, 3)
        assert (at_first.running, at_first.shards, later.running) == (Running.YES, SHARDS, Running.YES)
        assert re.findall(r"shards (./.)", later.holder) == ["1/2"]
        assert row_hash(pipeline.sink.url) == row_hash(digits / "whole")
        store = Sink.of(pipeline.sink).store
        [own_entry] = [json.loads(store.read(entry.path)) for entry in store.list(layout.RUNS)]
        assert own_entry["run_id"] == raysp.status(pipeline.sink.url).last_run.run_id
        assert raysp.gc(pipeline.sink.url).orphans == ()

    def test_a_killed_share_is_continued_with_another_number_of_shares(self, digits, pipeline):
        class KilledError(Exception):
            pass

        def kill(progress: object) -> None:
            if progress.shards_committed:
                raise KilledError

        with pytest.raises(KilledError):
            run(pipeline, (1, 2), on_progress=kill)
        before = written(pipeline)
        assert 0 < len(before) < 4
        results = [run(pipeline, (number, 5)) for number in range(1, 6)]
        assert sum(result.shards for result in results) == SHARDS
        assert sum(result.shards_before for result in results) == len(before)
        after = written(pipeline)
        assert {name: after[name] for name in before} == before
        assert row_hash(pipeline.sink.url) == row_hash(digits / "whole")


class TestPlans:
    @pytest.fixture
    def corpus(self, tmp_path) -> Path:
        for name in "bdfh":
            write_shard(tmp_path / "in" / f"{name}.parquet", 2)
        return tmp_path

    def begin(self, plan, share):
        return {todo.shard.name for todo in begin_share(plan, share, RunEntry.now()).todo}

    def test_drivers_that_list_different_files_at_the_same_time_share_what_both_list(self, corpus):
        """A file appears between the listings of two drivers, in the middle of the others."""
        pipeline = a_pipeline(f"{corpus}/in", corpus / "out")
        first = raysp.plan(pipeline)
        write_shard(corpus / "in" / "a.parquet", 2)
        second = raysp.plan(pipeline)
        one, other = self.begin(second, Share(1, 2)), self.begin(first, Share(2, 2))
        assert not one & other
        assert one | other >= {"b.parquet", "d.parquet", "f.parquet", "h.parquet"}
        names = plan_record.names(Sink.of(pipeline.sink).store)
        assert len(names) == len(set(names)) == 5
        assert len(list(Sink.of(pipeline.sink).store.list(layout.PLAN))) == 1  # the second added nothing

    def test_new_files_get_places_after_the_others(self, corpus):
        pipeline = a_pipeline(f"{corpus}/in", corpus / "out")
        before = [self.begin(raysp.plan(pipeline), Share(number, 2)) for number in (1, 2)]
        for name in "aceg":
            write_shard(corpus / "in" / f"{name}.parquet", 2)
        after = [self.begin(raysp.plan(pipeline), Share(number, 2)) for number in (1, 2)]
        assert [len(share) for share in after] == [4, 4]
        assert all(old < new for old, new in zip(before, after, strict=True))

    def test_the_plan_that_is_shown_is_that_of_the_share(self, corpus):
        plan = raysp.plan(a_pipeline(f"{corpus}/in", corpus / "out"))
        share = plan.of(Share(1, 3))
        assert (share.num_rows, share.rows_todo, share.facts["share"]) == (4, 4, "1/3 of the shards of this sink")
        assert "share" not in plan.facts

    def test_blocks_that_another_driver_is_staging_are_not_discarded(self, corpus):
        from raysp.sink import stage
        from tests.sink.sinks import results

        pipeline = a_pipeline(f"{corpus}/in", corpus / "out")
        plan = raysp.plan(pipeline)
        mine = self.begin(plan, Share(1, 2))
        store = Sink.of(pipeline.sink).store
        for shard in plan.corpus.shards:
            block = stage.BlockName(shard.name, shard.pieces[0], shard.input_id, plan.stage_id, 0, 2)
            stage.stage(store, block, results([0]))
        self.begin(raysp.plan(pipeline), Share(2, 2))
        assert stage.staged(store, plan.corpus.shards, plan.stage_id).keys() == mine

    def test_the_second_driver_uses_the_settings_that_the_first_one_resolved(self, corpus):
        def planned(gpus: float):
            pipeline = a_pipeline(f"{corpus}/in", corpus / "out")
            return make_plan(Opened.of(pipeline, Resources(4, gpus=gpus, gpu_memory=80e9, can_grow=True)))

        first, second, without_gpus = planned(1), planned(2), planned(0)
        assert not is_outdated(second)
        self.begin(first, ALL)
        assert not is_outdated(second)
        assert is_outdated(without_gpus)
        assert planned(0).fingerprint == first.fingerprint


@pytest.mark.slow
@pytest.mark.usefixtures("here")
def test_another_pipeline_replaces_no_record_while_a_run_over_another_share_is_active(digits, tmp_path):
    other = a_pipeline(f"{digits}/in", tmp_path / "labels", label={"window_seconds": 20})
    pipeline = a_pipeline(f"{digits}/in", tmp_path / "labels")
    begin_share(raysp.plan(pipeline), ALL, RunEntry.now())
    with (
        lease.held(Sink.of(pipeline.sink).store, Share(1, 2)),
        pytest.raises(PlanError, match=r"shards 1/2\) is running on this sink with another pipeline; wait until"),
    ):
        run(other, (2, 2))
