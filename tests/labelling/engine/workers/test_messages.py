"""What workers and the driver send each other arrives as it was."""

from dataclasses import replace

import pyarrow as pa
import pytest

from raysp.corpus.shards import Piece, Shard
from raysp.labelling.engine.workers.job import PieceTodo
from raysp.labelling.engine.workers.messages import (
    FatalFailure,
    LabelledBlock,
    PoisonedPiece,
    RowError,
    message_row,
    pack,
    pack_message,
    read_messages,
    unpack,
)
from raysp.ops.passes.measured_budget import MeasuredBudget, MeasuredPass
from raysp.sink.layout import BlockName
from raysp.sink.receipts import BlockReceipt, ShardFailure
from raysp.sink.todo import Retry

NAME = "not UTF-8: \udce9.parquet"
RECEIPT = BlockReceipt(NAME, 0, 4, 1, 2, 3, 3, 2.5, 10, 12, 0.25, 1.5, "host:1", finished=9.5, staged_bytes=7)
LABELLED = LabelledBlock(
    RECEIPT,
    claimed_seconds=3.5,
    errors={"corrupt_audio": 2},
    long_errors={1: "model_output"},
    skipped={"filtered": 1},
    examples=(RowError(0, "corrupt_audio", "it is cut short\nafter 1 s"),),
)
MEASURED = MeasuredBudget("a card", 300.0, 15_000, True, (MeasuredPass(300.0, 9600.5, 7, 5),))
MESSAGES = [
    LABELLED,
    replace(LABELLED, measured=MEASURED),
    ShardFailure(NAME, "it is gone"),
    PoisonedPiece(NAME, Piece(0, 4), 3),
    FatalFailure("disk full"),
]


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
def test_a_message_is_the_same_after_the_way_to_the_driver(message):
    assert [*read_messages(message_row(message))] == [message]
    assert unpack(pack_message(message)) == message


def test_a_block_and_a_message_of_a_reader_have_one_schema_and_are_distinguished():
    block, name = pa.table({"row": [4, 5]}), BlockName(NAME, Piece(4, 6), "a", "f", 0, 1)
    rows = pack(name, block), pack_message(FatalFailure("disk full"))
    assert rows[0].schema == rows[1].schema
    assert unpack(rows[0]) == (name, block)


@pytest.mark.parametrize("retry", [None, Retry("f.r1", (1, 5, 9))])
def test_a_piece_arrives_with_its_rows_alone(retry):
    pieces = Piece(0, 4), Piece(4, 8)
    todo = PieceTodo(Shard(NAME, "in/a", 1, "v", 8, "0" * 16, pieces), pieces[1], retry)
    found = PieceTodo.from_json(todo.to_json())
    assert (found.shard.name, found.shard.pieces, found.piece) == (NAME, pieces[1:], pieces[1])
    assert (found.rows, found.stage_id) == ((5,), "f.r1") if retry else ((4, 5, 6, 7), None)
