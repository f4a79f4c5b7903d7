"""The driver counts every piece once, also while it is labelled, and when it is labelled again."""

import pytest

from raysp.corpus.shards import Piece, Shard
from raysp.labelling.engine.job import RowError
from raysp.labelling.engine.open_shards import OpenShards
from raysp.labelling.engine.run_progress import Progress
from raysp.sink.commit import Todo
from tests.labelling.engine.pieces import labelled

PIECES = (Piece(0, 4), Piece(4, 6))
SHARD = Shard("a.parquet", "in/a.parquet", 100, "v", 6, "0" * 16, PIECES)
EXAMPLES = (RowError(0, "corrupt_audio", "cut short"),)


@pytest.fixture
def shards() -> OpenShards:
    return OpenShards([Todo(SHARD, PIECES)], Progress(rows_total=6, shards_total=1))


def add(shards: OpenShards, piece: Piece, rows: int, **more: object) -> Shard | None:
    return shards.add(labelled(SHARD.name, piece, rows, **more))


def test_counts_of_a_piece_replace_its_earlier_counts(shards):
    for rows in (1, 2, 2):
        add(shards, PIECES[0], rows, is_staged=False, blocks=rows, errors={"corrupt_audio": 1})
    assert (shards.progress.rows, shards.progress.errors, shards.progress.counts.blocks) == (2, {"corrupt_audio": 1}, 2)
    assert shards.progress.staged.rows == 0
    add(shards, PIECES[0], 4, blocks=3, errors={"corrupt_audio": 1, "model_output": 1}, examples=EXAMPLES)
    assert shards.progress.rows == shards.progress.staged.rows == 4
    assert shards.progress.errors == {"corrupt_audio": 1, "model_output": 1}
    assert [(one.shard, one.row) for one in shards.progress.examples] == [("a.parquet", 0)]


def test_results_that_are_made_again_do_not_count(shards):
    add(shards, PIECES[0], 3, is_staged=False, seconds_left=9.0, errors={"corrupt_audio": 2}, skipped={"filtered": 1})
    assert shards.progress.skipped == {"filtered": 1}
    assert (shards.progress.begun_rows, shards.progress.total_seconds) == (4, 15.0 * 6 / 4)
    del shards.progress.in_flight[SHARD.name, PIECES[0]]
    assert (shards.progress.rows, shards.progress.errors, shards.progress.audio_seconds) == (0, {}, 0.0)
    assert (shards.progress.begun_rows, shards.progress.total_seconds) == (0, None)
    assert shards.progress.skipped == {}
    add(shards, PIECES[0], 4, errors={"corrupt_audio": 1})
    assert (shards.progress.rows, shards.progress.errors) == (4, {"corrupt_audio": 1})
