"""Runs that stop because too many rows fail: what they leave, and what the same command does next."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import raysp
from raysp import RunError
from raysp.corpus.shards import Piece, Shard
from raysp.labelling.engine.begins import Begins
from raysp.labelling.engine.error_rate import ErrorRate
from raysp.labelling.engine.execution import Execution
from raysp.labelling.engine.here import CommitsHere, Here
from raysp.labelling.engine.run_events import RunEvents
from raysp.labelling.engine.run_progress import Progress
from raysp.labelling.engine.running import _job
from raysp.labelling.engine.workers.attempts import Attempts
from raysp.labelling.engine.workers.job import PieceTodo
from raysp.labelling.engine.workers.label_actor import LabelActor
from raysp.labelling.engine.workers.reader import Reader
from raysp.labelling.planning.opening import make_plan
from raysp.labelling.planning.run_plan import Opened, Plan
from raysp.sink import layout, lease, stopped_runs
from raysp.sink.event_log import EventLog
from raysp.sink.receipts import ReceiptLog
from raysp.sink.run_record import RunEntry
from raysp.sink.sinks import Sink
from raysp.sink.todo import Todo
from tests.corpora import a_pipeline, begin_run, rows_table, wav, write_shard
from tests.here import run_without_ray

ROWS = 6
label_in_process = Here.label
GOOD, BAD = wav(), b"no audio at all"


class Killed(BaseException):
    """The driver dies."""


@pytest.fixture(autouse=True)
def _small_and_without_ray(monkeypatch):
    run_without_ray(monkeypatch)
    monkeypatch.setattr("raysp.labelling.engine.error_rate.MIN_ROWS", 40)


def run_here(pipeline: raysp.Pipeline) -> Plan:
    """Do what `raysp run` does, in this process; returns the plan."""
    plan = make_plan(Opened.of(pipeline))
    store = plan.sink.store
    entry = RunEntry.now()
    with lease.held(store) as own:
        begin_run(plan, entry)
        progress = Progress(rows_total=plan.rows_todo, shards_total=len(plan.corpus.shards))
        log, job = ReceiptLog(store, entry.run_id), _job(plan, {}, Attempts())
        with EventLog(store, entry.run_id) as events:
            failed = Execution(
                plan, job, own, log, progress, lambda _: None, Here(Begins(store, entry.run_id)), RunEvents(events)
            )()
        assert failed == {}
        if plan.stops:
            stopped_runs.settle(store, plan.stops)
    return plan


def write_recordings(folder: Path, bad: dict[int, int], num_manifests: int = 10) -> None:
    """Write manifests of recordings by path; `bad` of each cannot be decoded."""
    for number in range(num_manifests):
        (folder / f"{number}").mkdir(parents=True, exist_ok=True)
        lines = [{"audio_filepath": f"{number}/{row}.wav", "id": f"{number}-{row}"} for row in range(ROWS)]
        if not (folder / f"m{number}.jsonl").exists():
            (folder / f"m{number}.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
        for row in range(ROWS):
            file = folder / str(number) / f"{row}.wav"
            data = BAD if row < bad.get(number, 0) else GOOD
            if not file.exists() or file.read_bytes() != data:
                file.write_bytes(data)


@pytest.fixture
def corpus(tmp_path) -> Path:
    return tmp_path / "in"


def by_path(corpus: Path, **fields: object) -> raysp.Pipeline:
    return a_pipeline(f"{corpus}/*.jsonl", corpus.parent / "out", **fields)


def statuses(pipeline: raysp.Pipeline) -> dict[str, list[str]]:
    """Read the statuses of the rows of each label shard."""
    files = sorted(Path(pipeline.sink.url).glob("*.parquet"))
    return {file.name: pq.read_table(file).column("status").to_pylist() for file in files}


ALL_OK = {f"m{number}-00000.parquet": ["ok"] * ROWS for number in range(10)}


def check_corrected(pipeline: raysp.Pipeline, expected: dict[str, list[str]] | None = None) -> None:
    run_here(pipeline)
    assert statuses(pipeline) == (expected or ALL_OK)
    assert raysp.verify(pipeline.sink.url).differences == ()
    again = make_plan(Opened.of(pipeline))
    assert (again.todo, len(again.done)) == ((), len(expected or ALL_OK))


@pytest.mark.slow
def test_a_corrected_input_is_labelled_by_the_same_command(corpus):
    write_recordings(corpus, dict.fromkeys(range(10), ROWS))
    with pytest.raises(RunError, match=r"rows failed.*more than max_error_rate=0.5.*Correct the input.*run again"):
        run_here(by_path(corpus))
    assert statuses(by_path(corpus)) == {}
    write_recordings(corpus, {})
    check_corrected(by_path(corpus))


@pytest.mark.slow
def test_error_rows_that_were_committed_before_it_stopped_are_done_again_and_once(corpus):
    """Seven label shards with a tolerable share of error rows, then rows that all fail."""
    write_recordings(corpus, {**dict.fromkeys(range(7), 1), **dict.fromkeys(range(7, 10), ROWS)})
    pipeline = by_path(corpus, max_error_rate=0.2)
    with pytest.raises(RunError, match=r"max_error_rate=0.2"):
        run_here(pipeline)
    committed = statuses(pipeline)
    assert set(committed) == {f"m{number}-00000.parquet" for number in range(7)}
    write_recordings(corpus, {0: 1})  # all others are correct now
    check_corrected(pipeline, {**ALL_OK, "m0-00000.parquet": ["error"] + ["ok"] * (ROWS - 1)})


@pytest.mark.slow
def test_no_row_is_done_again_that_was_labelled(corpus):
    write_recordings(corpus, {**dict.fromkeys(range(7), 1), **dict.fromkeys(range(7, 10), ROWS)})
    pipeline = by_path(corpus, max_error_rate=0.2)
    with pytest.raises(RunError):
        run_here(pipeline)
    write_recordings(corpus, {})
    plan = make_plan(Opened.of(pipeline))
    assert {todo.shard.name: todo.num_rows for todo in plan.todo if todo.retry} == {
        f"m{number}-00000.parquet": 1 for number in range(7)
    }
    assert plan.rows_todo == 7 * 1 + 3 * ROWS


@pytest.mark.slow
def test_a_driver_killed_while_it_stops_leaves_no_error_row(corpus, monkeypatch):
    write_recordings(corpus, dict.fromkeys(range(10), ROWS))

    def die(self, seconds):
        raise Killed

    with monkeypatch.context() as once:
        once.setattr(CommitsHere, "stop", die)
        with pytest.raises(Killed):
            run_here(by_path(corpus))
    write_recordings(corpus, {})
    check_corrected(by_path(corpus))


@pytest.mark.slow
def test_late_results_of_workers_of_the_stopped_run_are_not_used(corpus, monkeypatch):
    write_recordings(corpus, dict.fromkeys(range(10), ROWS))
    late = []

    def with_late_ones(self, plan, job, on_piece):
        reader, actor = Reader(job), LabelActor(job)
        todo = plan.todo[-1]
        for piece in todo.pieces:
            item = PieceTodo(todo.shard, piece).to_json()
            late.extend((actor, packed) for packed in reader(pa.table({"piece": [item]})))
        yield from label_in_process(self, plan, job, on_piece)

    with monkeypatch.context() as once:
        once.setattr(Here, "label", with_late_ones)
        with pytest.raises(RunError):
            run_here(by_path(corpus))
    write_recordings(corpus, {})

    def after_them(self, plan, job, on_piece):
        for actor, packed in late:
            actor(packed)
        yield from label_in_process(self, plan, job, on_piece)

    monkeypatch.setattr(Here, "label", after_them)
    check_corrected(by_path(corpus))
    assert raysp.gc(str(corpus.parent / "out")).orphans != ()
    check_corrected(by_path(corpus))


@pytest.mark.slow
def test_stopping_twice_and_a_higher_limit_is_another_way_out(corpus):
    write_recordings(corpus, dict.fromkeys(range(10), ROWS))
    for _ in range(2):
        with pytest.raises(RunError):
            run_here(by_path(corpus))
    run_here(by_path(corpus, max_error_rate=1.0))
    assert statuses(by_path(corpus)) == {name: ["error"] * ROWS for name in ALL_OK}


@pytest.mark.slow
def test_a_retry_in_which_everything_fails_again_stops_and_leaves_no_record(corpus):
    write_recordings(corpus, dict.fromkeys(range(10), ROWS))
    run_here(by_path(corpus, max_error_rate=1.0))
    with pytest.raises(RunError, match=r"24 of 24 rows failed .*For unsupported_format: convert.*Correct the input"):
        raysp.retry(str(corpus.parent / "out"), pipeline=by_path(corpus))
    assert not (corpus.parent / "out" / layout.STOPPED).exists()
    write_recordings(corpus, {})
    assert raysp.retry(str(corpus.parent / "out"), pipeline=by_path(corpus)).exit_code == 0
    assert statuses(by_path(corpus)) == ALL_OK


@pytest.mark.slow
def test_a_retry_continues_if_its_shards_are_mostly_labelled_although_most_retried_rows_fail_again(corpus):
    write_recordings(corpus, dict.fromkeys(range(10), 2))
    run_here(by_path(corpus))
    write_recordings(corpus, {**dict.fromkeys(range(10), 2), 9: 0})
    result = raysp.retry(str(corpus.parent / "out"), pipeline=by_path(corpus))
    assert (result.exit_code, result.rows, result.errors) == (0, 20, {"unsupported_format": 18})
    assert statuses(by_path(corpus))["m9-00000.parquet"] == ["ok"] * ROWS


@pytest.mark.slow
def test_shards_that_were_replaced_need_no_relabelling_while_they_are_not_committed(tmp_path):
    pipeline = a_pipeline(f"{tmp_path}/in", tmp_path / "out")
    for number in range(8):
        write_shard(tmp_path / "in" / f"{number}.parquet", table=rows_table(ROWS, audio=BAD))
    with pytest.raises(RunError):
        run_here(pipeline)
    for number in range(8):
        write_shard(tmp_path / "in" / f"{number}.parquet", table=rows_table(ROWS + 1, audio=GOOD))
    check_corrected(pipeline, {f"{number}.parquet": ["ok"] * (ROWS + 1) for number in range(8)})


@pytest.mark.slow
def test_gc_and_status_handle_staged_results_of_a_stop(corpus, monkeypatch):
    write_recordings(corpus, dict.fromkeys(range(10), ROWS))
    with pytest.raises(RunError):
        run_here(by_path(corpus))
    url = str(corpus.parent / "out")
    assert raysp.status(url).shards_staged == 0
    write_recordings(corpus, {})

    def killed_after_one(self, plan, job, on_piece):
        yield from [next(label_in_process(self, plan, job, on_piece))]
        raise Killed

    with monkeypatch.context() as once:
        once.setattr(Here, "label", killed_after_one)
        once.setattr(CommitsHere, "start", lambda *_: None)
        with pytest.raises(Killed):
            run_here(by_path(corpus))
    assert raysp.status(url).shards_staged == 1
    raysp.gc(url)
    assert raysp.status(url).shards_staged == 1
    check_corrected(by_path(corpus))


@pytest.mark.slow
def test_a_damaged_record_of_a_stop_is_named(corpus):
    write_recordings(corpus, {}, 1)
    store = Sink.of(by_path(corpus).sink).store
    run_here(by_path(corpus))
    store.create(layout.stopped_path(1), b"{")
    with pytest.raises(raysp.StoreError, match=r"stopped/00001\.json: not a record of a stopped run"):
        raysp.plan(by_path(corpus))


class TestErrorRate:
    def todo(self, name: str, rows: int = 100, staged: int = 0) -> Todo:
        pieces = (Piece(0, rows // 2), Piece(rows // 2, rows))
        return Todo(Shard(name, name, 1, "1", rows, "a", pieces), pieces[staged:])

    def test_clean_shards_wait_for_nothing_and_flawed_ones_for_enough_rows(self):
        rate = ErrorRate(0.5)
        rate.add("a", 20, 0)
        rate.add("b", 19, 1)
        assert [shard.name for shard in rate.release(self.todo("a"))] == ["a"]
        assert rate.release(self.todo("b")) == rate.released() == []
        rate.add("c", 1, 0)
        assert [shard.name for shard in rate.released()] == ["b"]

    def test_a_shard_that_fails_by_itself_waits_for_the_end(self):
        rate = ErrorRate(0.5)
        rate.add("a", 900, 0)
        rate.add("b", 100, 80)
        assert rate.release(self.todo("b")) == rate.released() == []
        assert not rate.is_exceeded
        assert [shard.name for shard in rate.released(at_end=True)] == ["b"]
        assert rate.released(at_end=True) == []

    def test_staged_results_of_an_earlier_run_may_hold_error_rows(self):
        rate = ErrorRate(0.5)
        rate.add("a", 30, 0)
        assert rate.release(self.todo("a", staged=1)) == []
        assert [shard.name for shard in rate.released(at_end=True)] == ["a"]

    @pytest.mark.parametrize(
        ("rows", "errors", "is_exceeded"),
        [
            (19, 19, False),
            (20, 16, False),
            (20, 17, True),
            (39, 27, False),
            (39, 30, True),
            (40, 20, False),
            (40, 21, True),
        ],
    )
    def test_few_rows_stop_a_run_only_beyond_doubt(self, rows, errors, is_exceeded):
        rate = ErrorRate(0.5)  # here 40 rows are enough
        rate.add("a", rows, errors)
        assert rate.is_exceeded == is_exceeded

    def test_without_a_limit_nothing_stops_and_without_tolerance_one_row_does(self):
        for most, is_exceeded in ((1.0, False), (0.0, True)):
            rate = ErrorRate(most)
            rate.add("a", 20, 20 if most else 1)
            assert rate.is_exceeded == is_exceeded

    def test_rows_that_are_taken_back_do_not_count(self):
        rate = ErrorRate(0.1)
        rate.add("a", 200, 30)
        assert rate.is_exceeded
        rate.add("a", -50, -30)
        rate.add("a", 50, 0)
        assert (rate.is_known, rate.is_exceeded) == (True, False)
