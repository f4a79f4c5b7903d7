"""A piece in, one ordered staged file and one receipt out; and the commit of a shard whose pieces are staged."""

import time
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from raysp.columns import ERROR, OK, RECORDING_COLUMNS, SKIPPED
from raysp.corpus.shards import Shard
from raysp.devices import DeviceLostError, highest_memory
from raysp.errors import ProgramError, RunError
from raysp.labelling import assembly
from raysp.labelling.engine.job import (
    FatalFailure,
    Job,
    LabelledPiece,
    Message,
    Outcome,
    PieceTodo,
    ReadingError,
    RowError,
    shard_failure,
)
from raysp.labelling.engine.later_passes import KeptBlocks, Rows, merged, rows_of_pass
from raysp.labelling.engine.model import LabelledBlock, Model, in_order
from raysp.labelling.engine.piece_reading import filtering
from raysp.labelling.planning.carried import read_source_columns
from raysp.labelling.planning.run_plan import output_schema
from raysp.ops.late_steps import MOST_EXAMPLES
from raysp.sink import fault_injection, stage
from raysp.sink.commit import RESULT_SCHEMA, LabelShard, Retry
from raysp.sink.layout import StagedName
from raysp.sink.receipts import Counts, PieceReceipt, TextColumns, rules_of_steps
from raysp.sink.recommitting import commit_staged
from raysp.sink.sorting import Sorter
from raysp.specs.pipeline import file_parts
from raysp.specs.pipeline import fingerprint as hash_parts
from raysp.storage.store import Store, UnusableError

Read = Callable[[PieceTodo], Iterator[pa.Table]]
"""Yields the decoded blocks of rows for their pass; raises ReadingError."""

MEMORY_BYTES = 64 * 1024 * 1024
"""Bytes of label rows held in memory; the other ones of a piece are in a scratch file."""


def label_piece(
    job: Job, models: Sequence[Model], todo: PieceTodo, read: Read, store: Store, actor: str
) -> Generator[Message]:
    """Label a piece and stage its rows: yield its counts after every block, last its receipt or why there is none.

    Args:
        job: job of the run.
        models: the models of its passes.
        todo: the piece.
        read: yields the decoded blocks of rows for a pass; first of the piece.
        store: the sink.
        actor: name of the process.

    Raises:
        DeviceLostError: the device of a model failed.
        ReadingError: rows are not read, and the engine decides what follows.
    """
    with ExitStack() as files:
        labels = PieceLabels(job, todo, store, actor, lambda: files.enter_context(store.scratch()))
        try:
            blocks = map(labels.kept.add, read(todo))
            for labelled in in_order(lambda block: models[0](block, todo.name), blocks, models[0].at_once):
                labels.add(labelled)
                yield labels.so_far()
            staged = labels.stage(models, read)
        except (DeviceLostError, ReadingError):
            raise
        except ProgramError as error:
            yield FatalFailure(str(error))
        except Exception as error:
            yield shard_failure(todo.name, error)
        else:
            yield staged


class PieceLabels:
    """Labels of a piece, from its blocks to its staged file.

    Args:
        job: job of the run.
        todo: the piece.
        store: the sink.
        actor: name of the process.
        scratch: returns the path of a new scratch file.
    """

    def __init__(self, job: Job, todo: PieceTodo, store: Store, actor: str, scratch: Callable[[], Path]) -> None:
        self.job = job
        self.todo = todo
        self.store = store
        self.actor = actor
        self._scratch = scratch
        self._sorter = self._new_sorter()
        self.kept = KeptBlocks(job.passes, self._scratch)
        self._outcomes: dict[int, tuple[str, str]] = {}
        """Status and type of the rows that are not ok; of a row of several windows, of the first that is not."""
        self._examples: list[RowError] = []
        self._counts = Counts()
        self._seconds_left = 0.0

    def _new_sorter(self) -> Sorter:
        return Sorter(self._scratch, MEMORY_BYTES, self.job.pipeline.decode.most_channels)

    def add(self, labelled: LabelledBlock, number: int = 0) -> None:
        """Add the windows of a block; rows and their audio count in the first pass."""
        labels, figures = labelled.labels, labelled.figures
        self._sorter.add(labels)
        rate = self.job.passes[number].settings.checkpoint.sample_rate
        most_channels = self.job.pipeline.decode.most_channels
        is_first = labels.column("row").to_numpy() % most_channels == 0
        counted = labels.select(["windows", "seconds"]).filter(pa.array(is_first))
        first = Counts(
            rows=len(counted) - counted.column("windows").null_count,
            audio_seconds=float(np.nansum(counted.column("seconds").to_numpy())),
        )
        self._counts += (first if number == 0 else Counts()) + Counts(
            blocks=1,
            windows=figures.windows,
            real_samples=round(figures.audio_seconds * rate),
            padded_samples=round(figures.padded_seconds * rate),
            busy_seconds=figures.busy_seconds,
            wait_seconds=labelled.waited,
            staged_bytes=labels.nbytes,
        )
        self._seconds_left = labelled.seconds_left if number == 0 else 0.0
        self._judge(labels, most_channels)

    def so_far(self, *, is_staged: bool = False) -> LabelledPiece:
        """Return the counts of the blocks that were added."""
        kinds: dict[str, Counter[str]] = {ERROR: Counter(), SKIPPED: Counter()}
        for status, error_type in self._outcomes.values():
            kinds[status][error_type] += 1
        counts = replace(self._counts, errors=dict(kinds[ERROR]), skipped=dict(kinds[SKIPPED]))
        part = self.todo.part
        receipt = PieceReceipt(self.todo.name, part.first, part.end, counts, self.actor, time.time())
        memory = max((highest_memory(step.settings.device) for step in self.job.passes), default=0)
        return LabelledPiece(receipt, is_staged, len(self.todo.rows), self._seconds_left, tuple(self._examples), memory)

    def stage(self, models: Sequence[Model], read: Read) -> Message:
        """Run later passes, stage the rows in order, and return their receipt, or why no other could be staged either.

        Args:
            models: the models of all passes.
            read: decodes rows for a later pass.
        """
        try:
            rows = self._in_order()
            for number, model in enumerate(models[1:], 1):
                rows = self._through(number, model, read, rows)
            stage.write(self.store, self._judged(rows), self._name)
        except UnusableError as error:  # without space or permission no other shard could be written
            return FatalFailure(str(error))
        return self.so_far(is_staged=True)

    def _name(self) -> StagedName:
        todo = self.todo
        attempt = todo.retry.stage_id if todo.retry else self.job.stage_id
        errors = sum(status == ERROR for status, _ in self._outcomes.values())
        return StagedName(todo.name, todo.part, todo.shard.input_id, attempt, errors)

    def _in_order(self) -> Iterator[pa.Table]:
        """Yield the rows of the first pass in order, with the columns of a label shard except the source's."""
        job, numbers = self.job, self.todo.rows
        names = [*RESULT_SCHEMA.names, *job.output_schema.names]
        place = 0
        for windows in self._sorter.slices():
            rows = job.joins[0](windows)
            labelled = rows.column("row").to_numpy()
            if not np.array_equal(labelled, numbers[place : place + len(labelled)]):
                raise RunError(f"{self.todo}: its blocks hold other rows; this is a bug in raysp: report it")
            place += len(labelled)
            yield rows.select([name for name in (*names, *RECORDING_COLUMNS) if name in rows.column_names])
        if place != len(numbers):
            raise RunError(f"{self.todo}: its blocks hold {place} rows; this is a bug in raysp: report it")

    def _through(self, number: int, model: Model, read: Read, rows: Iterator[pa.Table]) -> Iterator[pa.Table]:
        """Run a later pass over the rows that are ok and not filtered, and return the rows with its columns."""
        filters = assembly.row_filters(self.job.pipeline, self.job.functions, number - 1)
        filtered = filtering(self.job, self.todo.shard, filters)
        before = self._new_sorter()
        for table in rows:
            before.add(filtered(table, self.todo.piece))
        numbers, columns = rows_of_pass(self.job, number, self.todo, before.slices())
        self._sorter = self._new_sorter()
        blocks = self._blocks_of(number, numbers, columns, read)
        for labelled in in_order(lambda block: model(block, self.todo.name), blocks, model.at_once):
            self.add(labelled, number)
        joined = map(self.job.joins[number], self._sorter.slices())
        return merged(before.slices(), joined, output_schema(self.job.passes[number]))

    def _blocks_of(self, number: int, numbers: Rows, columns: pa.Table, read: Read) -> Iterator[pa.Table]:
        """Yield the decoded blocks of rows for a later pass: kept blocks of the first pass, then newly decoded ones."""
        is_other = np.ones(len(numbers), bool)
        for block in self.kept.of(self.job.passes[number], numbers, columns):
            is_other &= ~np.isin(numbers, block.column("row").to_numpy())
            yield block
        if is_other.any():
            rest = columns.filter(pa.array(is_other)) if columns.num_columns else columns
            yield from read(replace(self.todo, only=tuple(numbers[is_other].tolist()), number=number, columns=rest))

    def _judged(self, rows: Iterator[pa.Table]) -> Iterator[pa.Table]:
        """Yield the rows to stage, and count their outcomes."""
        self._outcomes.clear()
        self._examples.clear()
        names = [*RESULT_SCHEMA.names, *self.job.output_schema.names]
        for table in rows:
            self._judge(table)
            yield table.select([*names, *(name for name in RECORDING_COLUMNS if name in table.column_names)])

    def _judge(self, table: pa.Table, most_channels: int = 1) -> None:
        """Add the outcomes of rows, or windows of their channels, that are not ok."""
        columns = (table.column(name).to_pylist() for name in ("row", "status", "error_type", "error_message"))
        for number, status, error_type, message in zip(*columns, strict=True):
            row = number // most_channels
            if status == OK or row in self._outcomes:
                continue
            self._outcomes[row] = status, error_type
            is_first = all(error_type != example.error_type for example in self._examples)
            if status == ERROR and (is_first or len(self._examples) < MOST_EXAMPLES):
                self._examples.append(RowError(self.todo.name, row, error_type, message))


def commit_shard(job: Job, shard: Shard, retry: Retry | None) -> Outcome:
    """Write the label shard of a completely staged shard, or replace retried rows of an existing one.

    Returns a `ShardFailure` or `FatalFailure` if no shard can be committed.
    """
    fault_injection.adopt(job.fault_injection)
    sink = job.pipeline.sink
    try:
        # A function that fails for more rows is to be corrected: no label shard of error rows is committed.
        filters = assembly.row_filters(job.pipeline, job.functions, -1, shard.num_rows)
        label_shard = LabelShard(
            shard,
            job.fingerprint,
            lambda piece: read_source_columns(job.pipeline, shard, piece, job.carried),
            job.output_schema,
            rows=sink.rows,
            compression=sink.compression,
            metadata=job.metadata,
            file_id=hash_parts(file_parts(job.pipeline)),
            texts=TextColumns.of(job.pipeline),
            rules=rules_of_steps(job.pipeline.steps),
            stage_id=retry.stage_id if retry else job.stage_id,
            finish=filtering(job, shard, filters) if filters.filters else None,
        )
        receipt = commit_staged(job.store, label_shard, retry)
        return replace(
            receipt,
            filtered_behind=filters.num_filtered,
            failed_behind=filters.num_failed,
            examples_behind=filters.examples,
        )
    except UnusableError as error:
        return FatalFailure(str(error))
    except BaseException as error:  # steps after the model are code of the user
        return shard_failure(shard.name, error)
