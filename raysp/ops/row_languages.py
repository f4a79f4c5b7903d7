"""Labels in the language of each row: an op of each language, and batches of one language."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

import pyarrow as pa

from raysp.checkpoints.contents import OF_VOCABULARY, misnamed
from raysp.errors import CheckpointError
from raysp.ops.rows import ERROR, OK, RowStatus

if TYPE_CHECKING:
    from raysp.ops.forward import Forward

MOST_OPS = 128
"""Languages whose ops stay in memory: a tokenizer each, and tables of a beam search."""
UNKNOWN = "unknown_language"
"""Error of a row whose language is null, or one that the checkpoint does not have."""


class LanguageOp(Protocol):
    """Op of an output in one language, for windows and for rows of several windows."""

    def __call__(self, forward: "Forward") -> list[Sequence[object]]:
        """Return the columns of `schema`, then those of `staged`, one value per window."""
        ...

    def join(self, windows: pa.Table) -> tuple[object, ...]:
        """Return the columns of `schema` of one row, from the `staged` columns of its windows in order."""
        ...


class ByLanguage:
    """Op of an output in the language of each row: a batch has one language, and each language an op of its own.

    Args:
        schema: columns of the output.
        staged: staged columns of the op of a language; the language of a window is staged beside them.
        name: prefix of the columns' names.
        column: column of the source with the languages.
        languages: those of the checkpoint.
        make: returns the op of a language.
        empty: values of a recording shorter than one frame.
        switch: makes the model use a language; None: no model runs here, or it takes the language with each batch.
        note: follows the message on a language that the checkpoint does not have.
    """

    layers: tuple[int, ...] = ()

    def __init__(
        self,
        schema: pa.Schema,
        staged: pa.Schema,
        *,
        name: str,
        column: str,
        languages: Sequence[str],
        make: Callable[[str], LanguageOp],
        empty: tuple[object, ...],
        switch: Callable[[str], None] | None = None,
        note: str = OF_VOCABULARY,
    ) -> None:
        self.schema = schema
        self.staged = staged.append(pa.field(f"{name}_language", pa.string()))
        self.column = column
        self.languages = languages
        self._make = make
        self._empty = empty
        self._switch = switch
        self._note = note
        self._ops: OrderedDict[str, LanguageOp] = OrderedDict()
        self._lock = threading.Lock()

    def why_not(self, language: object) -> str:
        """Return the reason why a value of the column names no language, with a remedy; empty if it does."""
        why = misnamed(language, self.languages, self._note)
        return why and f"column {self.column!r}: {why}"

    def use(self, language: str) -> None:
        """Prepare for batches of a language.

        Raises:
            CheckpointError: the checkpoint lacks the file of the language, or its files do not fit.
            StoreError: the file cannot be fetched.
        """
        if self._switch is not None:
            self._switch(language)
        self._of(language)

    def __call__(self, forward: "Forward") -> list[Sequence[object]]:
        """Return the columns of `schema`, then those of `staged`, one value per window."""
        language = str(forward.columns[self.column][0])
        names = [None if part is None else language for part in forward.parts]
        return [*self._of(language)(forward), names]

    def empty(self) -> tuple[object, ...]:
        """Return the values of a recording shorter than one frame."""
        return self._empty

    def join(self, windows: pa.Table) -> tuple[object, ...]:
        """Return the columns of `schema` of one row, from the `staged` columns of its windows in order."""
        language = str(windows.column(self.staged.names[-1])[0].as_py())
        return self._of(language).join(windows)

    def _of(self, language: str) -> LanguageOp:
        with self._lock:
            if language not in self._ops:
                self._ops[language] = self._make(language)
                if len(self._ops) > MOST_OPS:
                    self._ops.popitem(last=False)
            self._ops.move_to_end(language)
            return self._ops[language]


def refuses_language(
    ops: Sequence[ByLanguage], row_status: RowStatus, columns: Mapping[str, Sequence[object]], index: int
) -> bool:
    """Return whether the checkpoint lacks the language of a window, and make its row an error row then."""
    if row_status.status not in (OK, ERROR):
        return False
    why = next((why for op in ops if (why := op.why_not(columns[op.column][index]))), "")
    if why and row_status.status == OK:  # a damaged one keeps its error
        row_status.fail(UNKNOWN, why)
    return bool(why)


def of_one_language(
    ops: Sequence[ByLanguage],
    pending: Sequence[int],
    statuses: Sequence[RowStatus],
    columns: Mapping[str, Sequence[object]],
) -> Iterator[Sequence[int]]:
    """Yield windows of one language each, once the ops are prepared for it; all windows if there are no ops.

    Windows of a language whose files are missing or do not fit are those of error rows, and left out.

    Args:
        ops: ops of outputs in the language of each row.
        pending: windows of a block that go through the model.
        statuses: outcomes of all windows of the block.
        columns: source columns that outputs read.

    Raises:
        StoreError: the file of a language cannot be fetched.
    """
    if not ops:
        yield pending
        return
    groups: dict[str, list[int]] = {}
    for index in pending:
        groups.setdefault(str(columns[ops[0].column][index]), []).append(index)
    for language, group in groups.items():
        try:
            for op in ops:
                op.use(language)
        except CheckpointError as error:
            for row_status in (statuses[index] for index in group if statuses[index].status == OK):
                row_status.fail(UNKNOWN, str(error))
        else:
            yield group
