"""Op of an output whose language is that of each row: a batch has one language, and each language an op of its own."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

import pyarrow as pa

from raysp.checkpoints.contents import OF_VOCABULARY, misnamed

if TYPE_CHECKING:
    from raysp.ops.forward import Forward

MOST_OPS = 128
"""Languages whose ops stay in memory: a tokenizer each, and tables of a beam search."""


class LanguageOp(Protocol):
    """Op of an output in one language, for windows and for rows of several windows."""

    def __call__(self, forward: "Forward") -> list[Sequence[object]]:
        """Return the columns of `schema`, then those of `staged`, one value per window."""
        ...

    def join(self, windows: pa.Table) -> tuple[object, ...]:
        """Return the columns of `schema` of one row, from the `staged` columns of its windows in order."""
        ...


class ByLanguage:
    """Op of an output in the language of each row.

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
