"""Rows that kill or stop the worker that touches them: found one by one, and nothing else is lost."""

import contextlib
import socket
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace

import pyarrow.parquet as pq
import pytest
from ray.exceptions import NodeDiedError, OutOfMemoryError, WorkerCrashedError

import raysp
from raysp import run
from raysp.cluster import nodes
from raysp.cluster.resources import Resources
from raysp.corpus.shards import Piece, Shard
from raysp.labelling.engine import running
from raysp.labelling.engine.on_ray import bisection
from raysp.labelling.engine.on_ray.counted_attempts import Ledger
from raysp.labelling.engine.workers.attempts import Attempts
from raysp.labelling.engine.workers.committer import commit_shard
from raysp.labelling.engine.workers.job import PieceTodo
from raysp.labelling.planning.opening import make_plan
from raysp.labelling.planning.run_plan import Opened
from raysp.sink.receipts import ShardFailure
from tests.corpora import wav
from tests.labelling.engine.deadly import DeadlyTranscript
from tests.runs import DEMO, audio_shard, read_labels


@pytest.mark.cluster
@pytest.mark.slow
class TestRun:
    @pytest.mark.drivers
    def test_rows_that_crash_their_worker_become_errors_and_their_shards_are_committed(
        self, local_ray, make_pipeline, tmp_path
    ):
        good = _digits(2)  # each row more is a worker more, which imports torch before it crashes
        corpus = tmp_path / "corpus"
        corpus.mkdir()
        audio_shard(corpus / "good.parquet", good)
        audio_shard(corpus / "crash.parquet", [good[0], ("crash", wav(32_000)), good[1]])
        audio_shard(corpus / "reading.parquet", [good[0], ("deadly", good[1][1])])
        keep = raysp.Keep(where="tests.labelling.engine.deadly:spares_nobody")
        result = run(make_pipeline(corpus, outputs=[DeadlyTranscript()], steps=[keep]))
        assert (result.exit_code, result.shards_committed) == (0, 3), result.shards_failed
        assert (result.rows, result.errors) == (2 + 3 + 2, {"worker_crashed": 2})
        _check(tmp_path / "labels", {"crash", "deadly"})

    @pytest.mark.soak
    def test_a_row_on_which_the_model_hangs_is_found_by_its_timeout(
        self, local_ray, make_pipeline, tmp_path, monkeypatch
    ):
        monkeypatch.setenv("RAYSP_HANG_SECONDS", "20")
        good = _digits(2)
        corpus = tmp_path / "corpus"
        corpus.mkdir()
        audio_shard(corpus / "good.parquet", good)
        audio_shard(corpus / "hang.parquet", [("hang", wav(48_000)), good[0]])
        result = run(make_pipeline(corpus, outputs=[DeadlyTranscript()]))
        assert (result.exit_code, result.errors) == (0, {"worker_crashed": 1})
        _check(tmp_path / "labels", {"hang"})


def _digits(num_rows: int) -> list[tuple[str, bytes]]:
    rows = pq.read_table(min((DEMO / "audio").glob("*.parquet"))).slice(0, num_rows).to_pylist()
    return [(row["id"], row["audio"]["bytes"]) for row in rows]


def _check(sink, deadly: set[str]) -> None:
    """Only the deadly rows are errors, and the others have the texts that they have elsewhere."""
    labels = read_labels(sink).to_pylist()
    texts = {row["id"]: row["pred_text"] for row in labels if row["shard"] == "good.parquet"}
    for row in labels:
        if row["id"] in deadly:
            assert (row["error_type"], row["pred_text"]) == ("worker_crashed", None)
        else:
            assert (row["status"], row["pred_text"]) == ("ok", texts[row["id"]])
    assert raysp.verify(str(sink)).differences == ()


class TestNarrowing:
    """The search for rows at fault, with a made-up worker."""

    @staticmethod
    def _search(num_rows: int, deadly: set[int]) -> bisection._Search:
        search = bisection._Search([tuple(range(num_rows))])
        labelled = []
        while search.pending:
            rows = search.pending.pop()
            if deadly & set(rows):
                bisection._narrow(search, rows)
            else:
                labelled += rows
                search.alone = 0
        assert sorted(labelled) == sorted(set(range(num_rows)) - deadly)
        return search

    def test_bisection_finds_exactly_the_crashing_rows(self):
        for deadly in (set(), {0}, {99}, {3, 4}, {0, 50, 99}, set(range(10))):
            assert sorted(self._search(100, deadly).crashed) == sorted(deadly)

    def test_one_crashing_row_is_found_after_one_crash_per_halving(self):
        assert self._search(1024, {700}).crashes == 10 + bisection.ALONE

    def test_a_row_that_crashes_alone_once_is_tried_again(self):
        search = bisection._Search([(7,)])
        bisection._narrow(search, search.pending.pop())
        assert (search.pending, search.crashed) == ([(7,)], [])

    def test_the_error_of_an_abandoned_piece_names_its_rows_and_counts(self):
        one = PieceTodo(Shard("a.parquet", "a", 1, "", 10, "0", (Piece(0, 10),)), Piece(0, 10))
        search = bisection._Search([(3, 4)], crashed=[2], crashes=200)
        words = bisection._given_up(one, search)
        assert "rows 0 to 10: 200 workers crashed or were lost, for example on row 2; 2 rows still to do" in words


class TestSalvagedRows:
    """Rows of a crashed piece, labelled by one task."""

    def test_the_hang_timeout_applies_to_each_block_of_a_long_row(self, monkeypatch):
        inside: list[str] = []
        watches: list[list[str]] = []

        @contextlib.contextmanager
        def watched(seconds):
            assert seconds == 7
            inside.clear()
            yield
            watches.append([*inside])

        def blocks():
            for number in range(4):
                inside.append(f"read {number}")
                yield number

        def labelling(block, shard):
            inside.append(f"label {block} of {shard}")
            return block, None

        monkeypatch.setattr(bisection, "watched", watched)
        labelled = bisection._label_blocks(SimpleNamespace(hang_seconds=7), labelling, "a", blocks())
        assert [block for block, _ in labelled] == [0, 1, 2, 3]
        assert all(len(one) <= 1 for one in watches)
        assert len([one for one in watches if one]) == 8

    @pytest.mark.slow
    @pytest.mark.parametrize(
        ("fields", "outputs"),
        [({}, [raysp.Transcript(), raysp.Align("text")]), ({"windows": "speech"}, [raysp.Transcript()])],
        ids=["even windows", "windows at pauses"],
    )
    def test_rows_at_fault_have_the_columns_of_the_others(self, make_pipeline, small_shards, tmp_path, fields, outputs):
        if fields:
            pytest.importorskip("silero_vad", reason='needs pip install "raysp[speech]"')
        pipeline = make_pipeline(small_shards, outputs=outputs)
        label = replace(pipeline.label, **fields)
        plan = make_plan(Opened.of(replace(pipeline, steps=[pipeline.decode, label]), Resources(cpus=2)))
        job = running._job(plan, {}, Attempts())
        shard, first = plan.todo[0].shard, plan.todo[0].pieces[0]
        todo = PieceTodo(shard, first)
        rows = tuple(range(first.first, first.end))
        bisection.label_rows(job, todo, rows[1:], (), 0, is_last=False)
        bisection.label_rows(job, todo, (), rows[:1], 1, is_last=True)
        commit_shard(job, shard, None)
        labels = read_labels(tmp_path / "labels").to_pylist()
        assert len(labels) == len(rows)
        assert [row["row"] for row in labels if row["error_type"] == "worker_crashed"] == [0]
        assert all(row["pred_text"] is not None for row in labels if row["status"] == "ok")


BLOCK = "a labelled block"


class Workers:
    """Stand-ins for tasks that salvage rows, and for the ledger of the run."""

    def __init__(self, ends: Callable[[tuple[int, ...], int], Exception | None]) -> None:
        self.ends = ends
        self.tried: Counter[tuple[int, ...]] = Counter()
        self.labelled: list[int] = []
        self.crashed: list[int] = []
        self.living = {"a", "b"}
        self.ledger = Ledger(lambda nodes: self.living & set(nodes))
        self.crashes, self.end = self.ledger.crashes, self.ledger.end

    def __call__(self, rows, crashed, k, *, is_last):
        self.tried[rows] += 1
        node = "a" if self.tried[rows] % 2 else "b"
        work = bisection._work_name(POISONED, rows)
        error = self.ends(rows, self.tried[rows])
        if not isinstance(error, NotBegunError):
            self.ledger.begin(work, node)
        if error:
            self.living = {"a", "b"} - ({node} if isinstance(error, NodeTakenError) else set())
            raise error
        self.ledger.end(work)
        self.labelled += rows
        self.crashed += crashed
        return BLOCK

    def bisect(self) -> list:
        return list(bisection._bisect_piece(POISONED, self, self, bisection._Room()))


class NodeTakenError(WorkerCrashedError):
    """Of a worker whose node went: Ray often reports no more than that the worker is gone."""


class NotBegunError(WorkerCrashedError):
    """Of a worker that died while it loaded the model."""


POISONED = PieceTodo(Shard("a.parquet", "a", 1, "", 10, "0", (Piece(0, 10),)), Piece(0, 10))


class TestFaults:
    """Attribution of crashes: to a row, or to a lost node."""

    @pytest.fixture(autouse=True)
    def _hurried(self, monkeypatch):
        monkeypatch.setattr(bisection, "SETTLE_SECONDS", 0)

    @pytest.mark.parametrize("error", [NodeDiedError("gone"), NodeTakenError(), NotBegunError()])
    def test_node_losses_are_never_attributed_to_a_row(self, error):
        workers = Workers(lambda rows, tried: error if 5 in rows and tried <= 20 else None)
        assert workers.bisect() == [BLOCK] * 2
        assert (sorted(workers.labelled), workers.crashed) == (list(range(10)), [])
        assert set(workers.tried) == {tuple(range(10)), ()}  # nothing was halved

    def test_a_node_lost_while_the_last_block_is_staged_costs_no_row(self):
        workers = Workers(lambda rows, tried: NodeDiedError("gone") if not rows and tried <= 3 else None)
        assert workers.bisect() == [BLOCK] * 2

    def test_endless_node_losses_leave_the_shard_to_a_later_run(self):
        (failure,) = Workers(lambda rows, tried: NodeDiedError("gone")).bisect()
        assert isinstance(failure, ShardFailure)
        assert "100 workers crashed or were lost; 10 rows still to do" in failure.reason

    def test_a_row_that_crashes_workers_on_live_nodes_is_at_fault(self):
        workers = Workers(lambda rows, tried: WorkerCrashedError() if 5 in rows else None)
        workers.bisect()
        assert (sorted(workers.labelled), workers.crashed) == ([0, 1, 2, 3, 4, 6, 7, 8, 9], [5])
        assert workers.tried[5,] == bisection.ALONE

    def test_out_of_memory_is_attributed_to_a_row_only_if_nothing_runs_beside_it(self):
        room, beside = bisection._Room(), []

        def ends(rows, tried):
            beside.append((rows, room.num_taken))
            return OutOfMemoryError("killed") if 5 in rows else None

        workers = Workers(ends)
        list(bisection._bisect_piece(POISONED, workers, workers, room))
        assert workers.crashed == [5]
        assert [taken for rows, taken in beside if rows == (5,)] == [1, bisection.AT_ONCE, bisection.AT_ONCE]
        assert {taken for rows, taken in beside if rows != (5,)} == {1}

    def test_a_row_that_ran_out_of_memory_only_beside_others_is_labelled(self):
        workers = Workers(lambda rows, tried: OutOfMemoryError("killed") if rows == (5,) and tried == 1 else None)
        workers.ends = lambda rows, tried, once=workers.ends: (
            OutOfMemoryError("killed") if len(rows) > 1 and 5 in rows else once(rows, tried)
        )
        workers.bisect()
        assert (sorted(workers.labelled), workers.crashed) == (list(range(10)), [])


class TestLedger:
    def test_work_begun_but_not_ended_counts_as_crashed(self):
        ledger = Ledger(set)
        assert [ledger.begin("a", "node") for _ in range(3)] == [0, 1, 2]
        assert ledger.crashes("a") == 3
        ledger.end("a")
        assert (ledger.begin("a", "node"), ledger.crashes("b")) == (0, 0)

    def test_work_begun_on_a_lost_node_is_not_counted(self):
        living = {"n0", "n1"}
        ledger = Ledger(lambda nodes: living & set(nodes))
        for number in range(50):  # each node goes while the work is done on it
            living.add(f"n{number}")
            assert ledger.begin("load", f"n{number}") == 0
            living.discard(f"n{number}")
        living |= {"stays"}
        assert [ledger.begin("load", "stays") for _ in range(3)] == [0, 1, 2]
        living.discard("stays")
        assert ledger.crashes("load") == 0

    def test_ray_is_queried_for_nodes_only_for_unfinished_work(self):
        asked = []
        ledger = Ledger(lambda nodes: asked.append(nodes) or set(nodes))
        for work in ("a", "b"):
            ledger.begin(work, "node")
            ledger.end(work)
        assert asked == []

    def test_the_highest_number_of_yielded_blocks_is_kept_until_the_task_ends(self):
        ledger = Ledger(set)
        for places in (1, 2, 3, 1):
            ledger.reach("task", "piece", places)
        assert (ledger.reached("task", "piece"), ledger.reached("task", "other")) == (3, 0)
        ledger.end("task")
        assert ledger.reached("task", "piece") == 0


class TestNodes:
    def test_a_node_is_alive_if_ray_lists_it_and_it_accepts_connections(self, monkeypatch):
        with socket.create_server(("127.0.0.1", 0)) as server, socket.socket() as closed:
            closed.bind(("127.0.0.1", 0))  # a port at which nobody listens
            known = {"lives": server, "gone": closed, "dead": server}
            table = [
                {"NodeID": name, "Alive": name != "dead", "NodeManagerAddress": "127.0.0.1"}
                | {"NodeManagerPort": one.getsockname()[1]}
                for name, one in known.items()
            ]
            monkeypatch.setattr("ray.nodes", lambda: table)
            assert nodes.alive([*known, "unknown"]) == {"lives"}

    def test_all_nodes_count_as_alive_while_ray_does_not_answer(self, monkeypatch):
        monkeypatch.setattr("ray.nodes", lambda: 1 / 0)
        assert nodes.alive(["a", "b"]) == {"a", "b"}
