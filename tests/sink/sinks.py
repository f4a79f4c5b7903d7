"""Shared by the tests of a sink: shards whose labels follow from row numbers."""

from itertools import pairwise

import pyarrow as pa
import pyarrow.parquet as pq

from raysp.corpus.shards import Piece, Shard
from raysp.sink import stage
from raysp.sink.commit import RESULT_SCHEMA, LabelShard
from raysp.sink.layout import StagedName
from raysp.sink.receipts import ShardReceipt
from raysp.sink.recommitting import commit_staged
from raysp.sink.run_log import RunLog
from raysp.storage.store import Store

FINGERPRINT = "f00dfeed00000001"
INPUT_ID = "abcdef0123456789"
OUTPUTS = pa.schema(
    [
        ("pred_text", pa.string()),
        ("pred_score", pa.float32()),
        ("pred_words", pa.list_(pa.struct([("word", pa.string()), ("start", pa.float64())]))),
        ("embedding", pa.list_(pa.float32(), 3)),
    ]
)


def make_shard(name: str = "a/part 1.parquet", cuts: tuple[int, ...] = (0, 4, 9, 23)) -> Shard:
    pieces = tuple(Piece(first, end) for first, end in pairwise(cuts))
    return Shard(name, f"/corpus/{name}", 1234, "1", cuts[-1], INPUT_ID, pieces)


def status_of(row: int) -> str:
    return "error" if row % 7 == 3 else "skipped" if row % 11 == 5 else "ok"


def results(rows: list[int], shard: str = "") -> pa.Table:
    """Make the staged results of these rows."""
    records = []
    for row in rows:
        ok = status_of(row) == "ok"
        records.append(
            {
                "row": row,
                "seconds": 0.5 + row if status_of(row) != "error" else None,
                "status": status_of(row),
                "error_type": {"ok": None, "error": "corrupt_audio", "skipped": "too_short"}[status_of(row)],
                "error_message": None if ok else f"row {row}",
                "pred_text": f"{shard} text {row}" if ok else None,
                "pred_score": -row / 8 if ok else None,
                "pred_words": [{"word": str(row), "start": row / 2}] * (row % 3) if ok else None,
                "embedding": [row, row + 1, row + 2] if ok else None,
            }
        )
    return pa.Table.from_pylist(records, schema=pa.schema([*RESULT_SCHEMA, *OUTPUTS]))


def source_columns(piece: Piece) -> pa.Table:
    rows = range(piece.first, piece.end)
    ids = pa.array([f"utterance {row // 2}" for row in rows], pa.string()).dictionary_encode()
    return pa.table(
        {"id": ids, "speaker": pa.array([f"s{row % 3}" for row in rows], pa.large_string())},
        schema=pa.schema([pa.field("id", ids.type, metadata={"a": "b"}), pa.field("speaker", pa.large_string())]),
    ).replace_schema_metadata({"huggingface": "{}"})


def staged_name(shard: Shard, rows: Piece, fingerprint: str = FINGERPRINT, errors: int = 0) -> StagedName:
    return StagedName(shard.name, rows, shard.input_id, fingerprint, errors)


def stage_piece(
    store, shard: Shard, rows: Piece, fingerprint: str = FINGERPRINT, table: pa.Table | None = None
) -> StagedName:
    """Stage the results of a piece or of a part of one, or a table in their place."""
    table = results(list(range(rows.first, rows.end)), shard.name) if table is None else table
    name = staged_name(shard, rows, fingerprint, table.column("status").to_pylist().count("error"))
    stage.write(store, [table], lambda: name)
    return name


def staged(store: Store, shard: Shard, fingerprint: str = FINGERPRINT) -> dict[Piece, stage.Staged]:
    """Return the staged results of a shard by their rows."""
    return {one.rows: one for one in stage.listed(store, [shard], fingerprint).get(shard.name, ())}


def run(
    store, *shards: Shard, rows: str = "all", fingerprint: str = FINGERPRINT, **fields: object
) -> list[ShardReceipt]:
    """Stage missing rows and commit, as an engine does."""
    receipts = []
    for shard in shards:
        for part in stage.unstaged(shard.pieces, staged(store, shard, fingerprint).values()):
            stage_piece(store, shard, part, fingerprint)
        receipts.append(commit_sample(store, shard, rows=rows, fingerprint=fingerprint, **fields))
    return receipts


def log(store: Store, *receipts: ShardReceipt) -> None:
    """Write receipts, as a driver does."""
    written = RunLog(store, "run")
    for receipt in receipts:
        written.add(receipt)
    written.flush()


def commit_sample(
    store, shard: Shard, rows: str = "all", fingerprint: str = FINGERPRINT, **fields: object
) -> ShardReceipt:
    metadata = {"checkpoint_digest": "c0ffee"}
    return commit_staged(
        store, LabelShard(shard, fingerprint, source_columns, OUTPUTS, rows=rows, metadata=metadata, **fields)
    )


def rows_of_streams(data: bytes) -> list[dict]:
    """Return the rows of the Arrow streams at the beginning of a file."""
    file, rows = pa.BufferReader(data), []
    while data.startswith(b"\xff\xff\xff\xff", file.tell()):
        rows += pa.ipc.open_stream(file).read_all().to_pylist()
    return rows


def parquet(store: Store, name: str) -> pq.ParquetFile:
    return pq.ParquetFile(store.open(name))
