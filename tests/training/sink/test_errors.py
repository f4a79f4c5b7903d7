"""Error rows of a training in its sink."""

import logging

import pytest

from raysp import StoreError
from raysp.sink.layout import ERRORS
from raysp.storage.store import LocalStore
from raysp.training.sink import row_errors
from raysp.training.sink.row_errors import ErrorRow, ErrorsLog

FIRST, SECOND, THIRD = (ErrorRow("a/b.parquet", row, "corrupt_audio", f"frame {row}") for row in range(3))


@pytest.fixture
def store(tmp_path):
    return LocalStore(tmp_path)


def test_rows_of_all_runs_are_read_back_once_and_in_order(store):
    for run, written in (("1", [[THIRD], [FIRST]]), ("2", [[SECOND, FIRST], []])):
        log = ErrorsLog(store, run)
        for rows in written:
            log.add(rows)
            log.write()
    assert row_errors.load(store) == [FIRST, SECOND, THIRD]
    assert len([*store.list(ERRORS)]) == 3


def test_rows_that_cannot_be_written_are_written_later(store, monkeypatch, caplog):
    log = ErrorsLog(store, "1")
    with monkeypatch.context() as patch, caplog.at_level(logging.WARNING):
        patch.setattr(LocalStore, "create", lambda *_: (_ for _ in ()).throw(StoreError("no space left")))
        log.add([FIRST])
        log.write()
    assert "1 error rows are not written yet: no space left" in caplog.text
    log.add([SECOND])
    log.write()
    assert row_errors.load(store) == [FIRST, SECOND]


def test_a_file_that_cannot_be_parsed_is_named(store):
    store.create(f"{ERRORS}1-000000.jsonl", b'{"shard": "a"}\n')
    with pytest.raises(StoreError, match=r"1-000000.jsonl: not a list of error rows .*; remove this file"):
        row_errors.load(store)
