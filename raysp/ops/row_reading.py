"""Rows of sources that are read without audio: their blocks, and the op in the place of a model."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import cast

import pyarrow as pa
import pyarrow.compute as pc

from raysp.columns import OK, OUTCOME, SECONDS, WAVE
from raysp.corpus.sources import holds_numbers
from raysp.errors import ShardError
from raysp.ops.blocks import BlockOp, Figures
from raysp.ops.late_steps import Carrying, LateSteps
from raysp.ops.rows import ERROR, SKIPPED, RowStatus, chosen, row_statuses, statuses_table, with_columns, with_waves
from raysp.ops.step_ops import RowOp, apply, fail_unreadable

DURATIONS = (SECONDS, "duration")
"""Columns of numbers of which the first one is the duration of a row."""
BLOCK_ROWS = 1_000


@dataclass(eq=False)
class RowReading:
    """Op that makes blocks of rows without recordings, filters them and adds columns.

    Attributes:
        before: ops of steps that filter by columns of the source.
        carrying: columns that later steps read.
        late: steps that add columns, or filter by added ones.
        texts: columns of bytes that are texts.
    """

    before: Sequence[RowOp]
    carrying: Carrying
    late: LateSteps | None
    texts: Sequence[str] = ()

    def __call__(self, rows: pa.Table, first: int) -> Iterator[pa.Table]:
        """Yield the blocks of a piece, at least one.

        Args:
            rows: source columns of the rows.
            first: number of the first row in the shard.

        Raises:
            ShardError: the rows have the columns of `OUTCOME`, and another status than label shards have.
        """
        statuses = _outcomes(rows, first)
        columns = fail_unreadable(rows, statuses, self.texts)
        for op in self.before:
            apply(op, statuses, columns)
        for start in range(0, max(1, len(statuses)), BLOCK_ROWS):
            part = statuses[start : start + BLOCK_ROWS]
            places = range(start, start + len(part))
            block = with_waves(statuses_table(part), [None] * len(part))
            block = self.carrying(block, part, columns, places, [()] * len(part))
            yield self.late(block) if self.late else block


def _outcomes(rows: pa.Table, first: int) -> list[RowStatus]:
    """Return the outcomes that rows have in the source, if it is label shards, with their durations."""
    statuses = [RowStatus(first + index, seconds=seconds) for index, seconds in enumerate(_durations(rows))]
    if {*OUTCOME} <= {*rows.column_names}:
        outcomes = zip(statuses, *(rows.column(name).to_pylist() for name in OUTCOME), strict=True)
        for row_status, status, error_type, message in outcomes:
            if status not in (OK, SKIPPED, ERROR):
                raise ShardError(
                    f"row {row_status.row}: found the status {status!r}, expected {OK!r}, {SKIPPED!r} or {ERROR!r}, as "
                    "in label shards. Rename the column, or one of error_type and error_message"
                )
            if status != OK:
                end = row_status.skip if status == SKIPPED else row_status.fail
                end(str(error_type), str(message))
    return statuses


def _durations(rows: pa.Table) -> Sequence[float | None]:
    for name in DURATIONS:
        if name in rows.column_names and holds_numbers(rows.schema.field(name).type):
            seconds = pc.cast(rows.column(name), pa.float64())
            return cast("list[float | None]", pc.if_else(pc.is_finite(seconds), seconds, None).to_pylist())
    return [None] * rows.num_rows


@dataclass(eq=False)
class WithoutModel(BlockOp):
    """Op that leaves blocks as they are, in place of one with a model."""

    added: pa.Schema
    """Columns that steps add."""

    def prepare(self, block: pa.Table, shard: str = "", *, names: Sequence[object] | None = None) -> pa.Table:
        return block

    def run(self, block: pa.Table) -> Figures:
        return Figures()

    def table(self, block: pa.Table) -> pa.Table:
        statuses = row_statuses(block)
        kept = [place if row_status.status == OK else None for place, row_status in enumerate(statuses)]
        return with_columns(statuses_table(statuses), chosen(block.drop_columns([WAVE]), self.added, kept))
