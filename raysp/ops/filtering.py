"""Ops of steps that filter rows, their application to rows, and rows that fail by their values."""

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

import pyarrow as pa

from raysp import tracebacks
from raysp.columns import STATUS
from raysp.corpus.shards import FAULT
from raysp.errors import RayspError, RunError
from raysp.ops.rows import OK, RowStatus
from raysp.text.normalisation import readable
from raysp.words import count

UNREADABLE_TEXT = "unreadable_text"
"""Error of rows with a text that cannot be read, such as one that is no UTF-8."""


class RowOp(Protocol):
    """Op of a step that filters rows; a row with a reason becomes `skipped: filtered`."""

    def __call__(self, rows: pa.Table) -> Sequence[str | None]:
        """Return for each row None, or the reason to skip it.

        Args:
            rows: rows of a piece in order, with at least the source columns that the step reads, without the audio.
                They include rows that have failed, for which the returned value has no effect. If the step reads
                added columns: the rows of a block that are ok, with the columns that it reads; a block may have none.
        """
        ...

    def judge(self, seconds: float) -> str | None:
        """Return None, or the reason to skip a row of this decoded duration; called if the step is after `Decode`."""
        return None


class Labelled(RowOp):
    """Op that skips rows that the label shard beside their shard did not label; it reads `status` from there."""

    def __call__(self, rows: pa.Table) -> Sequence[str | None]:
        """Return the reasons, as a `RowOp`."""
        found = rows.column(STATUS).to_pylist()
        return [None if one == OK else f"not labelled in source.labels: its status there is {one}" for one in found]


def reasons(op: RowOp, rows: pa.Table) -> Sequence[str | None]:
    """Return the reasons of an op for rows.

    Raises:
        RunError: the op raised an error, and the message has the line in the user's file; or it returned another number
            of values.
    """
    with calling(op):
        found = list(op(rows))
    if len(found) != rows.num_rows:
        raise RunError(
            f"{_name(op)} returned {count(len(found), 'value')} for {count(rows.num_rows, 'row')}; expected None or "
            "the reason to skip it for each"
        )
    return found


def by_seconds(op: RowOp, seconds: float) -> str | None:
    """Return the reason of an op to skip a row of this decoded duration; errors as in `reasons`."""
    with calling(op):
        return op.judge(seconds)


@contextmanager
def calling(op: RowOp) -> Iterator[None]:
    """Call an op within the `with` block.

    Raises:
        RunError: in place of an error of the op, which may be of any type.
    """
    try:
        yield
    except RayspError:
        raise
    except (Exception, SystemExit) as error:
        tracebacks.raise_if_stopped(error)
        owner: str = getattr(op, "owner", type(op).__module__)
        raise RunError(f"{_name(op)} failed: {tracebacks.described(error, owner)}") from error


def _name(op: RowOp) -> str:
    """Return the name of an op for messages."""
    return getattr(op, "name", f"{type(op).__module__}:{type(op).__qualname__}")


def apply(op: RowOp, statuses: Sequence[RowStatus], rows: pa.Table) -> None:
    """Mark rows with status ok that an op does not let pass."""
    for row_status, reason in zip(statuses, reasons(op, rows), strict=True):
        judge(op, row_status, reason)


def judge(op: RowOp, row_status: RowStatus, reason: str | None) -> None:
    """Mark a row with status ok that an op does not let pass: by its columns (`reason`), else by its seconds."""
    if row_status.status != OK:
        return
    if reason is None and row_status.seconds is not None:
        reason = by_seconds(op, row_status.seconds)
    if reason is not None:
        row_status.skip("filtered", reason)


def fail_unreadable(rows: pa.Table, statuses: Sequence[RowStatus], texts: Collection[str]) -> pa.Table:
    """Fail the rows that have a value that cannot be read, and return the rows with null in its place.

    Args:
        rows: source columns of rows, without the audio; with `FAULT` if their kind of source has faults.
        statuses: outcomes of the rows.
        texts: columns of bytes that are texts.
    """
    if FAULT in rows.column_names:
        _fail(statuses, rows.column(FAULT).to_pylist())
        rows = rows.drop_columns([FAULT])
    for place, name in enumerate(rows.column_names):
        column, faults = readable(rows.column(name), name, is_text=name in texts)
        if faults:
            _fail(statuses, faults)
            rows = rows.set_column(place, name, column)
    return rows


def _fail(statuses: Sequence[RowStatus], faults: Sequence[str | None]) -> None:
    for row_status, fault in zip(statuses, faults, strict=True):
        if fault is not None:
            row_status.fail(UNREADABLE_TEXT, fault)
