"""Messages about pieces, as workers send them."""

from raysp.corpus.shards import Piece
from raysp.labelling.engine.job import LabelledPiece
from raysp.sink.receipts import Counts, PieceReceipt


def labelled(
    shard: str, piece: Piece, rows: int, *, is_staged: bool = True, seconds_left: float = 0.0, **counts: object
) -> LabelledPiece:
    """Return the message about a piece of which so many rows are labelled, with two seconds of audio each."""
    found = Counts(rows, **{"blocks": 1, "audio_seconds": 2.0 * rows, **counts})
    receipt = PieceReceipt(shard, piece.first, piece.end, found, "x")
    return LabelledPiece(receipt, is_staged, num_rows=piece.num_rows, seconds_left=seconds_left)
