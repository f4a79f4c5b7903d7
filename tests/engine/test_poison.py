"""Rows that kill or stop the worker that touches them: found one by one, and nothing else is lost."""

import pyarrow.parquet as pq
import pytest

import raysp
from raysp.engine import salvage
from raysp.engine.attempts import Ledger
from raysp.engine.running import run
from raysp.io.shards import Piece, Shard
from tests.corpora import wav
from tests.engine.conftest import DEMO, audio_shard, read_labels
from tests.engine.deadly import DeadlyTranscript


@pytest.mark.cluster
@pytest.mark.slow
class TestRun:
    def test_rows_that_kill_their_worker_are_found_and_their_shards_are_committed(
        self, local_ray, make_pipeline, tmp_path
    ):
        good = _digits(8)
        corpus = tmp_path / "corpus"
        corpus.mkdir()
        audio_shard(corpus / "good.parquet", good)
        audio_shard(corpus / "crash.parquet", [*good[:2], ("crash", wav(32_000)), *good[2:]])
        audio_shard(corpus / "reading.parquet", [good[0], ("deadly", good[1][1]), good[2]])
        keep = raysp.Keep(where="tests.engine.deadly:spares_nobody")
        result = run(make_pipeline(corpus, outputs=[DeadlyTranscript()], steps=[keep]))
        assert (result.exit_code, result.shards_committed) == (0, 3), result.shards_failed
        assert (result.rows, result.errors) == (8 + 9 + 3, {"worker_crashed": 2})
        _check(tmp_path / "labels", {"crash", "deadly"})

    @pytest.mark.soak
    def test_a_row_over_which_the_model_hangs_is_found_by_time_out(
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
    def _search(num_rows: int, deadly: set[int]) -> salvage._Search:
        search = salvage._Search([tuple(range(num_rows))])
        labelled = []
        while search.pending:
            rows = search.pending.pop()
            if deadly & set(rows):
                salvage._narrow(search, rows)
            else:
                labelled += rows
                search.alone = 0
        assert sorted(labelled) == sorted(set(range(num_rows)) - deadly)
        return search

    def test_each_row_at_fault_is_found_and_no_other(self):
        for deadly in (set(), {0}, {99}, {3, 4}, {0, 50, 99}, set(range(10))):
            assert sorted(self._search(100, deadly).crashed) == sorted(deadly)

    def test_the_search_for_one_row_takes_as_many_deaths_as_halvings(self):
        assert self._search(1024, {700}).deaths == 10 + salvage.ALONE

    def test_a_row_that_dies_alone_only_once_is_innocent(self):
        search = salvage._Search([(7,)])
        salvage._narrow(search, search.pending.pop())
        assert (search.pending, search.crashed) == ([(7,)], [])

    def test_a_piece_that_is_given_up_says_where_and_how_much(self):
        one = salvage.Poisoned(Shard("a.parquet", "a", 1, "", 10, "0", (Piece(0, 10),)), Piece(0, 10))
        search = salvage._Search([(3, 4)], crashed=[2], deaths=200)
        words = salvage._given_up(one, search)
        assert "rows 0 to 10: 200 workers died, for example over row 2, and 2 rows are still to do" in words


class TestLedger:
    def test_what_was_begun_and_never_ended_is_counted(self):
        ledger = Ledger()
        assert [ledger.begin("a") for _ in range(3)] == [0, 1, 2]
        ledger.end("a")
        assert ledger.begin("a") == 0

    def test_the_most_that_was_ever_out_is_remembered_until_the_task_ends(self):
        ledger = Ledger()
        for places in (1, 2, 3, 1):
            ledger.reach("task", "piece", places)
        assert (ledger.reached("task", "piece"), ledger.reached("task", "other")) == (3, 0)
        ledger.end("task")
        assert ledger.reached("task", "piece") == 0
