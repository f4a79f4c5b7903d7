"""Workers that read and decode pieces, and yield packed blocks. They load no torch."""

import atexit
import functools
import itertools
from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa

from raysp.audio.isolation import Decoder
from raysp.corpus import sources
from raysp.corpus.shards import Piece, Shard
from raysp.errors import ProgramError, ShardError
from raysp.labelling import assembly
from raysp.labelling.engine.workers import watchdog
from raysp.labelling.engine.workers.attempts import MAX_CRASHES
from raysp.labelling.engine.workers.job import Job, PieceTodo
from raysp.labelling.engine.workers.messages import FatalFailure, PoisonedPiece, pack, pack_message, shard_failure
from raysp.labelling.engine.workers.watchdog import watched
from raysp.sink.layout import BlockName
from raysp.words import count

SPARE_PLACES = 4
"""Markers yielded beyond the number of recorded blocks: the last report before a crash may be lost."""


class Reader:
    """Reader and decoder of pieces, which yields packed blocks.

    Args:
        decoder: None: that of this process.
    """

    def __init__(self, job: Job, decoder: Decoder | None = None) -> None:
        self.job = job
        self.attempts = job.attempts
        self._decoder = decoder

    def __call__(self, items: pa.Table) -> Iterator[pa.Table]:
        """Yield packed blocks of the pieces in column `piece`, which one task reads."""
        pieces = [PieceTodo.from_json(text) for text in items.column("piece")[0].as_py().split("\n")]
        task = f"read {pieces[0].shard.name} {pieces[0].piece.first}"
        crashes = self.attempts.begin(task)
        for todo in pieces:
            try:
                yield from self._carefully(task, todo) if crashes else self._packed(task, todo)
            except ProgramError as error:
                yield pack_message(FatalFailure(str(error)))
            except Exception as error:
                yield pack_message(shard_failure(todo.shard.name, error))
        self.attempts.end(task)

    def _carefully(self, task: str, todo: PieceTodo) -> Iterator[pa.Table]:
        """Yield blocks, or poison markers after MAX_CRASHES crashes. Used when workers have crashed on this task.

        Ray identifies the yields of a retried task by position alone. The markers therefore cover the positions of all
        blocks that may have been yielded before.
        """
        if (crashes := self.attempts.begin(str(todo))) >= MAX_CRASHES:
            places = self.attempts.reached(task, str(todo)) + SPARE_PLACES
            yield from (pack_message(PoisonedPiece(todo.shard.name, todo.piece, crashes)) for _ in range(places))
        else:
            yield from self._packed(task, todo)
        self.attempts.end(str(todo))

    def _packed(self, task: str, todo: PieceTodo) -> Iterator[pa.Table]:
        shard, piece, stage_id = todo.shard, todo.piece, todo.stage_id or self.job.stage_id
        blocks = self.blocks(shard, piece, None if todo.is_whole else todo.rows)
        for k in itertools.count():
            with watched(self.job.hang_seconds):
                block, is_last = next(blocks, (None, True))
            if block is None:
                return
            packed = [pack(BlockName(shard.name, piece, shard.input_id, stage_id, k, k + 1 if is_last else 0), block)]
            del block  # so that it is not held while the next one is made
            self.attempts.reach(task, str(todo), k + 1)
            yield packed.pop()

    def blocks(self, shard: Shard, piece: Piece, rows: Sequence[int] | None) -> Iterator[tuple[pa.Table, bool]]:
        """Yield decoded blocks of a piece, or of some of its rows, each with whether it is the last."""
        job = self.job
        decoder = self._decoder or process_decoder()
        op = assembly.decoding(job.pipeline, job.settings, shard, decoder=decoder, functions=job.functions)
        columns = assembly.decoded_columns(job.pipeline, shard)
        source = job.pipeline.source
        table = sources.read_table(
            shard, piece, columns, source.storage_options, (source.audio,), audio_root=source.audio_root
        )
        if table.num_rows != piece.num_rows:
            found = count(table.num_rows, "row")
            raise ShardError(f"{shard.url}: read {found} from {piece.first} to {piece.end}, expected {piece.num_rows}")
        pa.default_memory_pool().release_unused()  # reading one large row temporarily takes three times its bytes
        if rows is not None:
            table = table.take([row - piece.first for row in rows])
        for block, is_last in op(table, piece.first):
            yield (block if rows is None else _renumbered(block, rows, piece.first)), is_last


@functools.cache
def process_decoder() -> Decoder:
    """Return the decoding process of this worker process, shared by all its tasks."""
    decoder = Decoder(on_wait=watchdog.touch)  # its own limits are shorter
    atexit.register(decoder.close)
    return decoder


def _renumbered(block: pa.Table, rows: Sequence[int], first: int) -> pa.Table:
    """Return a block whose row numbers, positions in `rows` plus `first`, are replaced by numbers in the shard."""
    numbers = np.asarray(rows, np.int64)[block.column("row").to_numpy() - first]
    place = block.schema.get_field_index("row")
    return block.set_column(place, block.schema.field(place), pa.array(numbers, pa.int64()))
