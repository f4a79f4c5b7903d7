import json
from dataclasses import asdict
from pathlib import Path

import pyarrow as pa
import pytest

from raysp import PlanError, status
from raysp.corpus.shards import Piece, Shard
from raysp.sink import plan_record, run_record, stage
from raysp.sink.commit import RESULT_SCHEMA, LabelShard, commit
from raysp.sink.layout import StagedName
from raysp.sink.receipts import ShardFailure, ShardReceipt
from raysp.sink.recommitting import find_error_rows, recommit
from raysp.sink.run_log import RunLog
from raysp.storage.store import LocalStore

FINGERPRINT = "f00d"
OUTPUTS = pa.schema([("pred_text", pa.string())])
SHARDS = [
    Shard(f"{name}.parquet", f"/in/{name}", 1, "1", 3, "ab", (Piece(0, 2), Piece(2, 3)))
    for name in ("a", "b", "c", "d")
]


def stage_piece(store: LocalStore, shard: Shard, piece: Piece) -> None:
    """Label row 0 `ok`, row 1 `corrupt_audio`, row 2 `too_short`."""
    kinds = [("ok", None), ("error", "corrupt_audio"), ("skipped", "too_short")]
    rows = [
        {"row": row, "seconds": 1.5, "status": kinds[row][0], "error_type": kinds[row][1]}
        for row in range(piece.first, piece.end)
    ]
    table = pa.Table.from_pylist(rows, schema=pa.schema([*RESULT_SCHEMA, *OUTPUTS]))
    stage.write(store, [table], lambda: StagedName(shard.name, piece, shard.input_id, FINGERPRINT, errors=1))


def commit_shard(store: LocalStore, shard: Shard) -> ShardReceipt:
    for piece in shard.pieces:
        stage_piece(store, shard, piece)
    return commit(store, label_shard(shard))


def label_shard(shard: Shard) -> LabelShard:
    return LabelShard(
        shard,
        FINGERPRINT,
        lambda piece: pa.table({"id": [str(row) for row in range(piece.first, piece.end)]}),
        OUTPUTS,
    )


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    """A sink of four shards: a and b committed (b without a receipt), c staged in part, d failed."""
    store = LocalStore(tmp_path / "labels")
    run = run_record.RunEntry.now(command=["raysp", "run"])
    run_record.begin(store, run_record.RunRecord(run.started, {}, FINGERPRINT, {}, {}, (run,)))
    plan_record.record(store, SHARDS)
    log = RunLog(store, run.run_id)
    log.add(ShardFailure("a.parquet", "was locked"))
    log.add(commit_shard(store, SHARDS[0]))
    commit_shard(store, SHARDS[1])
    stage_piece(store, SHARDS[2], SHARDS[2].pieces[1])
    log.add(ShardFailure("d.parquet", "cut short"))
    log.flush()
    return store


def test_a_sink_reports_its_progress(store):
    found = status(store.url)
    assert (found.shards, found.shards_committed, found.shards_staged) == (4, 2, 1)
    assert (found.rows, found.rows_committed) == (12, 6)
    assert (found.ok, found.skipped, found.error) == (2, 2, 2)
    assert found.errors_by_type == {"corrupt_audio": 2, "too_short": 2}
    assert found.audio_seconds == 9.0
    assert found.failed == {"d.parquet": "cut short"}
    assert found.last_run.command == "raysp run"
    assert not found.is_complete


def test_it_turns_into_json(store):
    found = json.loads(json.dumps(asdict(status(store))))
    assert found["fingerprint"] == FINGERPRINT
    assert found["last_run"]["versions"]["raysp"]


def test_a_sink_is_complete_when_every_shard_is_committed(store):
    for shard in SHARDS[2:]:
        commit_shard(store, shard)
    found = status(store)
    assert found.is_complete
    assert found.failed == {}
    assert found.rows_committed == found.rows


def test_asking_writes_nothing(store):
    before = list(store.list())
    assert status(store).shards_committed == 2
    assert list(store.list()) == before


def test_label_shards_with_a_receipt_are_not_opened(store, monkeypatch):
    looked_at = []
    monkeypatch.setattr(
        LocalStore, "open", lambda self, path, open=LocalStore.open: looked_at.append(path) or open(self, path)
    )
    status(store)
    assert [path for path in looked_at if path.endswith(".parquet")] == ["b.parquet"]


def test_after_a_killed_retry_the_label_shard_is_used_and_not_its_receipt(store):
    [todo] = find_error_rows(store, SHARDS[:1], FINGERPRINT)
    rows = [{"row": 1, "seconds": 1.5, "status": "ok", "error_type": None}]
    table = pa.Table.from_pylist(rows, schema=pa.schema([*RESULT_SCHEMA, *OUTPUTS]))
    [piece] = todo.pieces
    name = StagedName("a.parquet", piece, SHARDS[0].input_id, todo.retry.stage_id, errors=0)
    stage.write(store, [table], lambda: name)
    recommit(store, label_shard(SHARDS[0]), todo.retry)  # and the process is killed before it writes its receipt
    found = status(store)
    assert (found.ok, found.error) == (3, 1)


def test_another_file_in_the_place_of_a_label_shard_is_reported(store):
    store.create("c.parquet", b"?")
    found = status(store)
    assert "not a label shard of raysp" in found.foreign["c.parquet"]
    assert found.shards_committed == 2


def test_a_committed_label_shard_that_was_overwritten_does_not_hide_the_others(store):
    store.replace("b.parquet", b"?")
    assert status(store).rows_committed == 3


@pytest.mark.parametrize("place", ["", "missing"])
def test_a_folder_that_is_not_a_sink_is_refused(tmp_path, place):
    with pytest.raises(
        PlanError,
        match=r"not a sink of raysp: found neither .raysp/run.json nor .raysp/recipe.json; give the folder",
    ):
        status(str(tmp_path / place))
    assert not (tmp_path / "missing").exists()
