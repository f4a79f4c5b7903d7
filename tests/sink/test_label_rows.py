"""Label shards are read by the bytes that their rows hold."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raysp.corpus.parquet import seal
from raysp.corpus.shards import Piece, Shard
from raysp.sink import label_rows
from raysp.sink.label_rows import Cursor, read_labels, stretches
from raysp.storage.store import LocalStore

ROWS, FRAMES, WIDTH = 1500, 100, 64


@pytest.fixture(params=["drawn", "equal"])
def frames(request, tmp_path) -> tuple[LocalStore, Shard]:
    """A label shard of frame embeddings, 38 MB of them; equal ones take a few kilobytes in the file."""
    count = ROWS * FRAMES * WIDTH
    drawn = np.random.default_rng(0).random(count, np.float32) if request.param == "drawn" else np.ones(count, "f4")
    embeddings = pa.FixedSizeListArray.from_arrays(pa.array(drawn), WIDTH)
    offsets = pa.array(np.arange(ROWS + 1, dtype=np.int32) * FRAMES)
    column = pa.ListArray.from_arrays(offsets, embeddings)
    texts = {name: [text] * ROWS for name, text in (("id", "a"), ("status", "ok"))}
    nulls = {name: pa.nulls(ROWS, pa.string()) for name in ("error_type", "error_message")}
    table = pa.table({**texts, "row": np.arange(ROWS), "seconds": np.ones(ROWS), **nulls, "frames": column})
    table = table.replace_schema_metadata({"raysp.input_id": "0" * 16})
    pq.write_table(table, tmp_path / "a.parquet", write_page_checksum=True)
    seal(tmp_path / "a.parquet")
    return LocalStore(tmp_path), Shard("a.parquet", "a", 1, "", ROWS, "0" * 16, (Piece(0, ROWS),))


@pytest.mark.slow
def test_a_merge_holds_some_rows_at_a_time_and_those_beside_them(frames, monkeypatch):
    monkeypatch.setattr(label_rows, "BYTES_A_BATCH", 1 << 20)
    labels = (table.filter(pa.array(table.column("row").to_numpy() % 7 != 0)) for table in read_labels(*frames))
    rest = (table.filter(pa.array(table.column("row").to_numpy() % 7 == 0)) for table in read_labels(*frames))
    cursors = Cursor(labels), Cursor(rest)
    found = [*stretches(*cursors, 0, 1000), *stretches(*cursors, 1000, ROWS)]
    assert max(table.nbytes for table, _ in found) <= 1 << 21
    assert [row for table, _ in found for row in table.column("row").to_pylist()] == list(range(ROWS))
    assert all(table.column("row")[-1].as_py() < end for table, end in found if table.num_rows)
    assert [end for _, end in found if end in (1000, ROWS)] == [1000, ROWS]
