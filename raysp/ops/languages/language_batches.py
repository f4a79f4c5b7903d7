"""Batches of one language: the windows of a block in groups, and the rows whose language a checkpoint does not have."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol, runtime_checkable

from raysp.errors import CheckpointError
from raysp.ops.rows import ERROR, OK, RowStatus

UNKNOWN = "unknown_language"
"""Error of a row whose language is null, or one that the checkpoint does not have."""


@runtime_checkable
class SpeaksByRow(Protocol):
    """Op of an output in the language of each row."""

    column: str
    """Column of the source with the languages."""

    def why_not(self, language: object) -> str:
        """Return the reason why a value of the column names no language, with a remedy; empty if it does."""
        ...

    def use(self, language: str) -> None:
        """Prepare for batches of a language.

        Raises:
            CheckpointError: the checkpoint lacks the file of the language, or its files do not fit.
            StoreError: the file cannot be fetched.
        """
        ...


class Languages:
    """Divides windows by the languages of their rows; all windows are one group if no output has a language by row."""

    def __init__(self, outputs: Sequence[object]) -> None:
        self.ops = [one for one in outputs if isinstance(one, SpeaksByRow)]

    def refuses(self, row_status: RowStatus, columns: Mapping[str, Sequence[object]], index: int) -> bool:
        """Return whether the checkpoint lacks the language of a window, and make its row an error row then."""
        if row_status.status not in (OK, ERROR):
            return False
        why = next((why for op in self.ops if (why := op.why_not(columns[op.column][index]))), "")
        if why and row_status.status == OK:  # a damaged one keeps its error
            row_status.fail(UNKNOWN, why)
        return bool(why)

    def groups(
        self, pending: Sequence[int], statuses: Sequence[RowStatus], columns: Mapping[str, Sequence[object]]
    ) -> Iterator[Sequence[int]]:
        """Yield windows of one language each, once the ops are prepared for it.

        Windows of a language whose files are missing or do not fit are those of error rows, and left out.

        Args:
            pending: windows of a block that go through the model.
            statuses: outcomes of all windows of the block.
            columns: source columns that outputs read.

        Raises:
            StoreError: the file of a language cannot be fetched.
        """
        if not self.ops:
            yield pending
            return
        found: dict[str, list[int]] = {}
        for index in pending:
            found.setdefault(str(columns[self.ops[0].column][index]), []).append(index)
        for language, group in found.items():
            if why := self._prepare(language):
                for row_status in (statuses[index] for index in group if statuses[index].status == OK):
                    row_status.fail(UNKNOWN, why)
            else:
                yield group

    def _prepare(self, language: str) -> str:
        """Prepare the ops for a language; return why they cannot be."""
        try:
            for op in self.ops:
                op.use(language)
        except CheckpointError as error:
            return str(error)
        return ""
