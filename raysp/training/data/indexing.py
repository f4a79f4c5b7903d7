"""Indexes of shards, made by this process, or by several where there are many rows; and the rows of a piece.

The results do not depend on the processes.
"""

import hashlib
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial

import pyarrow as pa

from raysp.audio import isolation
from raysp.cluster.spreading import Spread
from raysp.columns import SECONDS
from raysp.corpus import sources
from raysp.corpus.shards import Piece, Shard
from raysp.errors import ProgramError, RayspError, ShardError
from raysp.labelling import assembly
from raysp.models.labelled_passes import CheckpointSummary
from raysp.ops.decoding import Decoder
from raysp.ops.rows import OK, RowStatus
from raysp.sink.recording_versions import current_hashes
from raysp.specs.code import UserCode
from raysp.specs.pipeline import ReadsCorpus, Shards
from raysp.text.targets import Targets
from raysp.training.sink.source_index import TRAINED, Indexed, ShardIndex
from raysp.training.specs.recipe import Evaluation, Finetune
from raysp.words import count

TOO_SHORT = "too_short"
"""Reason: the recording is shorter than the shortest input of the model."""
MOST_PROCESSES = 16
"""With 200 requests a second each, they stay below what an object store serves for one prefix."""
WORTH_ROWS = 100_000
"""Number of rows from which several processes are faster. A core reads about 4,000 headers per second, and each process
spends seconds importing torch."""


@dataclass(frozen=True)
class Indexer:
    """Everything besides the shard that affects its index.

    Attributes:
        recipe: the recipe.
        checkpoint: description of the checkpoint to begin with.
        targets: makes the targets of the rows of a shard.
        min_samples: samples of the shortest row.
        code: code from outside raysp.
    """

    recipe: Finetune
    checkpoint: CheckpointSummary
    targets: Callable[[], Targets]
    min_samples: int
    code: UserCode

    def index(
        self, shards: Sequence[Shard], decoder: Decoder | None, *, processes: int, on_cluster: bool = False
    ) -> Generator[tuple[Shard, Indexed]]:
        """Yield shards with their indexes, or why they cannot be read, as they are finished.

        Args:
            shards: the shards.
            decoder: decoding functions; None: of this process.
            processes: processes that may be used. They start if there are enough rows.
            on_cluster: whether tasks of the connected cluster are used in place of processes.
        """
        spread = Spread(partial(self, decoder=decoder), self.elsewhere, self.code, "indexes rows")
        steps = self.recipe.steps
        modules = [name.partition(":")[0] for step in steps for name in step.functions]
        # Another process cannot import code of the main program.
        can_leave = "__main__" not in {*modules, *(type(step).__module__ for step in steps)}
        if not can_leave or sum(shard.num_rows for shard in shards) < WORTH_ROWS:
            return spread.in_processes(shards, 1)
        return spread.by_tasks(shards) if on_cluster else spread.in_processes(shards, min(processes, MOST_PROCESSES))

    def elsewhere(self, shard: Shard) -> Indexed:
        """Return the index of a shard in another process."""
        return self(shard, _decoder())

    def __call__(self, shard: Shard, decoder: Decoder | None) -> Indexed:
        """Return the index of a shard, or why it cannot be read."""
        targets, trained_on = self.targets(), hashlib.sha256()  # these targets count values of this shard alone
        rows: list[tuple[float, int, str]] = []
        try:
            hashes = current_hashes(self.recipe.source, shard)  # before its rows: no later version counts as read
            for table, statuses in self._measured(shard, decoder):
                for row_status, value in zip(statuses, values_of(self.recipe, table), strict=True):
                    labels, reason = self._judge(row_status, value, targets)
                    rows.append((row_status.seconds or 0.0, labels, reason))
                    if reason == TRAINED:
                        trained_on.update(f"{value!r}\0".encode(errors="surrogatepass"))
        except ProgramError:
            raise
        except RayspError as error:
            return str(error)
        return ShardIndex.of(shard, rows, hashes, targets.counts, trained_on.hexdigest()[:16])

    def _measured(self, shard: Shard, decoder: Decoder | None) -> Iterator[tuple[pa.Table, list[RowStatus]]]:
        """Yield the rows of a shard with their outcomes; durations are from its label shard or audio headers."""
        recipe = self.recipe
        op = assembly.measuring(recipe, self.checkpoint, shard, decoder)
        has_durations = recipe.source.labels is not None and not recipe.flow.late
        first = 0
        for piece in shard.pieces:
            for table in read_batches(recipe, shard, piece, with_audio=not has_durations):
                seconds = table.column(SECONDS).to_pylist() if has_durations else None
                yield table, op.measure(table, first) if seconds is None else op.judge(table, first, seconds)
                first += table.num_rows

    def _judge(self, row_status: RowStatus, value: object, targets: Targets) -> tuple[int, str]:
        """Return the number of labels of a row, and the reason for which it is left out."""
        if row_status.status != OK:
            return 0, row_status.error_type or row_status.status
        num_samples = round((row_status.seconds or 0.0) * self.checkpoint.sample_rate)
        if num_samples < self.min_samples:
            return 0, TOO_SHORT
        target = targets(value)
        reason = target.reason or targets.misfit(target, self.checkpoint.num_frames(num_samples))
        return len(target.ids), reason or TRAINED


@cache
def _decoder() -> Decoder:
    """Return the decoder of a process that indexes shards for another one."""
    return isolation.Decoder()


def index_sounds(source: Shards, shards: Sequence[Shard]) -> Generator[tuple[Shard, Indexed]]:
    """Yield shards of sounds with the versions of their recordings as indexes without other facts.

    Raises:
        ShardError: a shard cannot be read.
        StoreError: its store fails.
    """
    for shard in shards:
        yield shard, ShardIndex.of(shard, [(0.0, 0, TRAINED)] * shard.num_rows, current_hashes(source, shard))


def read_batches(work: ReadsCorpus, shard: Shard, piece: Piece, *, with_audio: bool = True) -> Iterator[pa.Table]:
    """Yield the columns of a piece that a recipe or an evaluation reads, some megabytes of rows at a time, in order.

    Args:
        work: the recipe or evaluation.
        shard: the shard.
        piece: the piece.
        with_audio: whether recordings are read; if not, the seconds of the label shard are.

    Raises:
        ShardError: the shard cannot be read, or changed since it was planned.
        StoreError: its store fails.
    """
    source = work.source
    columns = {*assembly.decoded_columns(work, shard), *work.kept}
    if not with_audio:
        columns = columns - {source.audio, *sources.kind_named(shard.kind).excerpt_columns} | {SECONDS}
    num_rows = 0
    batches = sources.read_batches(
        shard, piece, sorted(columns), source.storage_options, (source.audio,), audio_root=source.audio_root
    )
    for batch in batches:
        num_rows += batch.num_rows
        yield batch
    if num_rows != piece.num_rows:
        actual = count(num_rows, "row")
        raise ShardError(f"{shard.url}: read {actual} from {piece.first} to {piece.end}, expected {piece.num_rows}")


def values_of(work: Finetune | Evaluation, table: pa.Table) -> Iterator[object]:
    """Yield the values from which targets are made, bytes as UTF-8 text; None if rows have no targets."""
    values = [None] * table.num_rows if work.target is None else table.column(work.target).to_pylist()
    for value in values:
        yield value.decode(errors="replace") if isinstance(value, bytes) else value
