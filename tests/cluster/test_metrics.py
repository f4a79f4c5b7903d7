"""Counters of a run never decrease, and count each row once. `submitting/test_real_head.py` scrapes them."""

import logging
from functools import partial

import pytest

from raysp.corpus.shards import Piece, Shard
from raysp.labelling.engine.open_shards import OpenShards
from raysp.labelling.engine.ray_metrics import METRICS, TRY_OUT, Exporter
from raysp.labelling.engine.run_progress import Progress
from raysp.sink.commit import Todo
from tests.labelling.engine.pieces import labelled

PIECES = (Piece(0, 4), Piece(4, 6))
SHARD = Shard("a.parquet", "in/a.parquet", 100, "v", 6, "0" * 16, PIECES)


class Written:
    """Keeps what an exporter writes, by name and tags."""

    def __init__(self) -> None:
        self.values: dict[tuple[str, frozenset], float] = {}
        self.writers = {one.name: partial(self.add if one.is_counter else self.set, one.name) for one in METRICS}

    def add(self, name, value, tags):
        assert value > 0
        key = (name, frozenset(tags.items()))
        self.values[key] = self.values.get(key, 0) + value

    def set(self, name, value, tags):
        self.values[name, frozenset(tags.items())] = value

    def of(self, name: str, **tags: str) -> float | None:
        return self.values.get((name, frozenset({"sink": "s3://b/labels", **tags}.items())))


@pytest.fixture
def shards() -> OpenShards:
    shards = OpenShards([Todo(SHARD, PIECES)], Progress(rows_total=6, shards_total=1))
    for piece in PIECES:
        shards.submit(SHARD.name, piece)
    return shards


def test_rows_count_once_when_their_piece_is_staged_and_never_if_it_is_discarded(shards):
    # Which piece is discarded, and when, is the engine's own: no run shows this moment.
    written = Written()
    exporter = Exporter("s3://b/labels", written.writers)
    shards.add(labelled(SHARD.name, PIECES[0], 3, is_staged=False, errors={"corrupt_audio": 3}))
    exporter.write(shards.progress)
    assert written.of("raysp_rows_total", status="ok") is None
    del shards.progress.in_flight[SHARD.name, PIECES[0]]  # workers crashed on this piece, whose rows are labelled again
    exporter.write(shards.progress)
    assert (written.of("raysp_pieces_in_flight"), written.of("raysp_blocks_labelled_total")) == (1, 1)
    errors, skipped = {"model_output": 1}, {"filtered": 1}
    shards.add(labelled(SHARD.name, PIECES[0], 4, blocks=2, errors=errors, skipped=skipped))
    for _ in range(2):
        exporter.write(shards.progress)
    assert [written.of("raysp_rows_total", status=one) for one in ("ok", "skipped", "error")] == [2, 1, 1]
    assert written.of("raysp_errors_total", error_type="corrupt_audio") is None
    assert written.of("raysp_errors_total", error_type="model_output") == 1


def test_a_failure_to_write_is_logged_once_and_try_outs_share_one_value_of_the_label(shards, caplog):
    exporter = Exporter("out", {})
    shards.add(labelled(SHARD.name, PIECES[0], 4))
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            exporter.write(shards.progress)
    assert caplog.text.count("metrics are not written any more") == 1
    written = Written()
    for number in (1, 2):
        Exporter(f"s3://b/labels/.raysp/trial/{number}", written.writers).write(shards.progress)
    assert {dict(tags)["sink"] for _, tags in written.values} == {TRY_OUT}
