"""The progress that a run reports."""

import time

from raysp.corpus.shards import Piece, Shard
from raysp.labelling.engine.display import progress_line
from raysp.labelling.engine.open_shards import OpenShards
from raysp.labelling.engine.run_progress import Progress
from raysp.sink.commit import Todo
from tests.labelling.engine.pieces import labelled


def test_long_rows_move_the_share_by_their_audio(monkeypatch):
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    pieces = (Piece(0, 1), Piece(1, 2))
    shard = Shard("a.parquet", "in/a.parquet", 100, "v", 2, "0" * 16, pieces)
    progress = Progress(rows_total=2, shards_total=1)
    shards = OpenShards([Todo(shard, pieces)], progress)

    def add(piece: Piece, rows: int, seconds: float, *, is_staged: bool = False) -> None:
        left = 0.0 if is_staged else 3600.0 - seconds
        more = {"is_staged": is_staged, "seconds_left": left, "audio_seconds": seconds}
        shards.add(labelled("a.parquet", piece, rows, **more))

    assert progress_line(progress).startswith("0% · 0/2 rows · 0:00 of audio")
    add(pieces[0], 0, 900)
    now += 10
    add(pieces[0], 0, 1800)
    assert progress.rows == 0
    assert progress.share == 0.25  # half an hour of two: the other row is taken to be as long
    assert progress.eta_seconds == 60
    assert progress_line(progress).startswith("25% · ETA 1:00 · 0/2 rows · 30:00 of about 2:00:00 of audio")
    add(pieces[0], 0, 2700)
    add(pieces[0], 1, 3600, is_staged=True)
    add(pieces[1], 1, 900, is_staged=True)  # it was damaged: its quarter of an hour is all there is
    assert (progress.share, progress.rows, progress.audio_seconds) == (1.0, 2, 4500.0)
    assert "2/2 rows · 1:15:00 of audio · " in progress_line(progress)  # as decoded, not as headers claim


def test_results_that_are_made_again_count_once():
    pieces = (Piece(0, 4), Piece(4, 6))
    shard = Shard("a.parquet", "in/a.parquet", 100, "v", 6, "0" * 16, pieces)
    progress = Progress(rows_total=6, shards_total=1)
    shards = OpenShards([Todo(shard, pieces)], progress)
    shards.add(labelled(shard.name, pieces[0], 3, is_staged=False, errors={"corrupt_audio": 2}))
    assert (progress.rows, progress.errors) == (3, {"corrupt_audio": 2})
    shards.add(labelled(shard.name, pieces[0], 4, errors={"corrupt_audio": 1}))
    assert (progress.rows, progress.staged.rows, progress.errors) == (4, 4, {"corrupt_audio": 1})
    assert shards.unfinished() == {"a.parquet": "no result for 2 rows; run again"}
    shards.fail("a.parquet", "no such file")
    assert shards.add(labelled(shard.name, pieces[1], 2)) is None
    assert shards.unfinished() == {"a.parquet": "no such file"}
