"""Messages about pieces, as workers send them."""

from raysp.corpus.shards import Piece
from raysp.labelling.engine.job import LabelledPiece, RowError
from raysp.sink.receipts import Counts, PieceReceipt


def labelled(
    shard: str,
    piece: Piece,
    rows: int,
    *,
    is_staged: bool = True,
    num_rows: int | None = None,
    seconds_left: float = 0.0,
    examples: tuple[RowError, ...] = (),
    memory_bytes: int = 0,
    **counts: object,
) -> LabelledPiece:
    """Return the message about a piece of which so many rows are labelled, with two seconds of audio each."""
    values = {"blocks": 1, "windows": rows, "audio_seconds": 2.0 * rows, "real_samples": 9, "padded_samples": 12}
    times = {"busy_seconds": 3.0, "wait_seconds": 1.0}
    receipt = PieceReceipt(shard, piece.first, piece.end, Counts(rows, **{**values, **times, **counts}), "x")
    return LabelledPiece(
        receipt,
        is_staged,
        num_rows=num_rows or piece.num_rows,
        seconds_left=seconds_left,
        examples=examples,
        memory_bytes=memory_bytes,
    )
