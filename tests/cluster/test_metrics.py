"""Counters of a run never decrease, and count each row once."""

import logging
from functools import partial

import pytest

from raysp.corpus.shards import Piece, Shard
from raysp.labelling.engine.open_shards import OpenShards
from raysp.labelling.engine.ray_metrics import METRICS, TRY_OUT, Exporter, exported
from raysp.labelling.engine.run_progress import Progress
from raysp.sink.commit import Todo
from tests.labelling.engine.pieces import labelled

PIECES = (Piece(0, 4), Piece(4, 6))
SHARD = Shard("a.parquet", "in/a.parquet", 100, "v", 6, "0" * 16, PIECES)


class Written:
    """Keeps what an exporter writes, by name and tags."""

    def __init__(self) -> None:
        self.values: dict[tuple[str, frozenset], float] = {}

    def writers(self):
        """Return the callable of each metric."""
        return {one.name: partial(self.add if one.is_counter else self.set, one.name) for one in METRICS}

    def add(self, name, value, tags):
        assert value > 0
        key = (name, frozenset(tags.items()))
        self.values[key] = self.values.get(key, 0) + value

    def set(self, name, value, tags):
        self.values[name, frozenset(tags.items())] = value

    def of(self, name: str, **tags: str) -> float | None:
        return self.values.get((name, frozenset({"sink": "s3://b/labels", **tags}.items())))


@pytest.fixture
def written() -> Written:
    return Written()


@pytest.fixture
def exporter(written) -> Exporter:
    return Exporter("s3://b/labels", written.writers())


@pytest.fixture
def shards() -> OpenShards:
    shards = OpenShards([Todo(SHARD, PIECES)], Progress(rows_total=6, shards_total=1))
    for piece in PIECES:
        shards.submit(SHARD.name, piece)
    return shards


def add(shards, piece: Piece, rows: int, **more: object) -> None:
    shards.add(labelled(SHARD.name, piece, rows, **more))


def test_rows_count_once_when_their_piece_is_staged(shards, exporter, written):
    add(shards, PIECES[0], 3, is_staged=False, errors={"corrupt_audio": 1})
    exporter.write(shards.progress)
    assert written.of("raysp_rows_total", status="ok") is None
    assert written.of("raysp_blocks_labelled_total") == 1
    assert written.of("raysp_pieces_in_flight") == 2
    errors, skipped = {"corrupt_audio": 1, "model_output": 1}, {"filtered": 1}
    add(shards, PIECES[0], 4, blocks=2, errors=errors, skipped=skipped)
    exporter.write(shards.progress)
    exporter.write(shards.progress)
    assert [written.of("raysp_rows_total", status=one) for one in ("ok", "skipped", "error")] == [1, 1, 2]
    assert written.of("raysp_errors_total", error_type="corrupt_audio") == 1
    assert written.of("raysp_errors_total", error_type="model_output") == 1
    assert written.of("raysp_audio_seconds_total") == 8.0
    assert written.of("raysp_blocks_labelled_total") == 2
    assert written.of("raysp_pieces_in_flight") == 1


def test_results_that_are_discarded_never_count(shards, exporter, written):
    add(shards, PIECES[0], 3, is_staged=False, errors={"corrupt_audio": 3})
    exporter.write(shards.progress)
    del shards.progress.in_flight[SHARD.name, PIECES[0]]  # workers crashed on this piece, whose rows are labelled again
    exporter.write(shards.progress)
    assert written.of("raysp_pieces_in_flight") == 1
    assert written.of("raysp_blocks_labelled_total") == 1
    add(shards, PIECES[0], 4, errors={"worker_crashed": 1})
    exporter.write(shards.progress)
    assert written.of("raysp_errors_total", error_type="corrupt_audio") is None
    assert written.of("raysp_errors_total", error_type="worker_crashed") == 1
    assert written.of("raysp_rows_total", status="ok") == 3


def test_a_failure_to_write_is_logged_once_and_ends_no_run(shards, caplog):
    exporter = Exporter("out", {})
    add(shards, PIECES[0], 4)
    with caplog.at_level(logging.WARNING):
        exporter.write(shards.progress)
        exporter.write(shards.progress)
    assert caplog.text.count("metrics are not written any more") == 1


def test_all_try_outs_share_one_value_of_the_label(shards, written):
    for number in (1, 2):
        Exporter(f"s3://b/labels/.raysp/trial/{number}", written.writers()).write(shards.progress)
    assert {dict(tags)["sink"] for _, tags in written.values} == {TRY_OUT}


def test_nothing_is_written_without_ray(shards, monkeypatch):
    import sys

    monkeypatch.delitem(sys.modules, "ray", raising=False)
    with exported("out", shards.progress) as write:
        write(shards.progress)
    assert "ray" not in sys.modules
