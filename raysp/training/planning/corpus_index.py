"""Index of the rows of a whole corpus, from the indexes of its shards."""

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from raysp.corpus.shards import Piece, Shard
from raysp.training.planning.ordering import Durations
from raysp.training.sink.source_index import ROWS, TRAINED, Indexed, ShardIndex


@dataclass(frozen=True)
class CorpusIndex:
    """Index of a whole corpus, whose rows are counted over its shards in order.

    Attributes:
        shards: the shards.
        first_rows: int64 (num_shards + 1,), number of the first row of each shard, and the number of rows last.
        durations: durations of the rows, 0 for those that are left out, and the pieces.
        num_labels: uint16 (num_rows,).
        left_out: number of rows that are left out, by reason.
        counts: occurrences of each character or class.
        targets_digest: hash of the targets of all rows that are trained on.
        recordings_digest: hash of the versions of the recordings.
    """

    shards: Sequence[Shard] = field(repr=False)
    first_rows: npt.NDArray[np.int64] = field(repr=False)
    durations: Durations
    num_labels: npt.NDArray[np.uint16] = field(repr=False)
    left_out: Mapping[str, int]
    counts: Mapping[str, int] = field(repr=False)
    targets_digest: str = ""
    recordings_digest: str = ""

    def piece(self, number: int) -> tuple[Shard, Piece]:
        """Return a piece by its number, with its shard."""
        first, end = self.durations.piece_rows[number : number + 2].tolist()
        place = int(np.searchsorted(self.first_rows, first, side="right")) - 1
        start = int(self.first_rows[place])
        return self.shards[place], Piece(first - start, end - start)

    def place_of(self, row: int) -> tuple[str, int]:
        """Return the name of a row's shard, and the row's number in it."""
        place = int(np.searchsorted(self.first_rows, row, side="right")) - 1
        return self.shards[place].name, row - int(self.first_rows[place])


def combine(indexed: Sequence[tuple[Shard, Indexed]]) -> CorpusIndex:
    """Return the index of a corpus from the indexes of its shards, in order, without shards that cannot be read."""
    readable = [(shard, index) for shard, index in indexed if isinstance(index, ShardIndex)]
    first_rows = np.cumsum([0, *(shard.num_rows for shard, _ in readable)], dtype=np.int64)
    piece_rows = [0]
    counts: Counter[str] = Counter()
    targets, recordings = hashlib.sha256(), hashlib.sha256()
    for (shard, index), first in zip(readable, first_rows.tolist(), strict=False):
        targets.update(index.facts.targets.encode())
        recordings.update(hashlib.sha256(index.facts.content.encode() + index.hashes.by_row.tobytes()).digest())
        piece_rows += [first + piece.end for piece in shard.pieces if piece.num_rows]
        counts.update(index.facts.counts)
    rows = pa.concat_tables([ROWS.empty_table(), *(index.rows for _, index in readable)]).unify_dictionaries()
    seconds, reasons = rows.column("seconds").to_numpy(), rows.column("reason")
    left_out = Counter(dict(zip(*(part.to_pylist() for part in reasons.value_counts().flatten()), strict=True)))
    del left_out[TRAINED]
    return CorpusIndex(
        [shard for shard, _ in readable],
        first_rows,
        Durations(
            np.where(np.asarray(pc.equal(reasons, pa.scalar(TRAINED))), seconds, np.float32(0)),
            np.asarray(piece_rows, np.int64),
        ),
        rows.column("num_labels").to_numpy(),
        dict(left_out),
        dict(counts),
        targets.hexdigest()[:16],
        recordings.hexdigest()[:16],
    )
