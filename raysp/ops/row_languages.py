"""Labels in the language of each row: windows are grouped by language, and the model takes one group after another."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import pyarrow as pa

from raysp.checkpoints.contents import misnamed
from raysp.columns import STATUS
from raysp.errors import CheckpointError
from raysp.models.labelled_passes import LabellingModel
from raysp.models.loading import LoadedCheckpoint
from raysp.ops.forward import OutputOp
from raysp.ops.labelling import Block, Labelling
from raysp.ops.late_steps import CARRIED, Joining, carried_values
from raysp.ops.rows import OK

MOST_LANGUAGES = 128
"""Languages whose ops stay in memory: a tokenizer each, and tables of a beam search."""


@dataclass(frozen=True)
class RowLanguages:
    """Languages named by a column of rows."""

    column: str
    """Column of the source with the language of each row."""
    languages: Sequence[str]
    """Languages of the checkpoint."""
    note: str
    """Follows the message on a language that the checkpoint does not have."""
    ops: Callable[[str, Sequence[OutputOp], LabellingModel | None], Sequence[OutputOp]]
    """Returns the output ops in a language, from ops without a language and the model; None without a model."""

    def of(self, windows: pa.Table) -> list[object]:
        """Return the language of each window."""
        return carried_values(windows, self.column)

    def why_not(self, language: object) -> str:
        """Return the reason, with a remedy, why a value of the column is no language of the checkpoint; else ""."""
        why = misnamed(language, self.languages, self.note)
        return why and f"column {self.column!r}: {why}"


class LabellingByLanguage(Labelling):
    """Op that labels blocks with one checkpoint, each row in its language.

    Args:
        checkpoint: a model folder.
        outputs: returns the output ops without a language.
        languages: languages of the rows.
        settings: further arguments of `Labelling`.
    """

    def __init__(
        self,
        checkpoint: str,
        outputs: Callable[[LabellingModel], Sequence[OutputOp]],
        *,
        languages: RowLanguages,
        **settings: Any,  # noqa: ANN401 - of `Labelling`
    ) -> None:
        super().__init__(checkpoint, outputs, **settings)
        self.blocks_in_flight = 1  # weights are exchanged for a language
        self.languages = languages
        self.ops = lru_cache(MOST_LANGUAGES)(lambda language: languages.ops(language, self.outputs, self.loaded))

    def prepare(self, block: pa.Table, shard: str = "", *, names: Sequence[object] | None = None) -> Block:
        """Read a block, as `Labelling` does; rows without a language of the checkpoint fail."""
        prepared = super().prepare(block, shard, names=names)
        languages = self.languages.of(block)
        why_not = {language: self.languages.why_not(language) for language in dict.fromkeys(languages)}
        for place, status in enumerate(block.column(STATUS).to_pylist()):
            if status == OK and (why := why_not[languages[place]]):
                prepared.statuses[place].fail("unknown_language", why)
                prepared.labels[place] = None
        return replace(prepared, pending=[place for place in prepared.pending if not why_not[languages[place]]])

    def _run(self, block: Block) -> tuple[int, int]:
        """Run the model over the windows of one language after another, and return their samples.

        Rows whose language has no file in the checkpoint, or a file that does not fit, fail.

        Raises:
            StoreError: the file of a language cannot be fetched.
        """
        languages, groups = self.languages.of(block.table), dict[str, list[int]]()
        samples = padded = 0
        for place in block.pending:
            groups.setdefault(str(languages[place]), []).append(place)
        for language, pending in groups.items():
            try:
                if isinstance(self.loaded, LoadedCheckpoint):
                    self.loaded.use_language(language)
                outputs = self.ops(language)
            except CheckpointError as error:
                for place in pending:
                    block.statuses[place].fail_ok("unknown_language", str(error))
            else:
                of_language = super()._run(replace(block, pending=pending, outputs=outputs))
                samples, padded = samples + of_language[0], padded + of_language[1]
        return samples, padded

    def table(self, block: Block) -> pa.Table:
        """Build the output table of a processed block, as `Labelling` does, with the language of each window."""
        table, name = super().table(block), f"{CARRIED}{self.languages.column}"
        return table.set_column(table.schema.get_field_index(name), name, block.table.column(name))

    def outputs_of(self, block: Block, index: int) -> Sequence[OutputOp]:
        """Return the ops of the language of a window's row."""
        return self.ops(str(block.source[self.languages.column][index]))


class JoiningByLanguage(Joining):
    """Op that joins windows to rows, each in its language.

    Args:
        outputs: the output ops without a language.
        languages: languages of the rows.
        settings: further arguments of `Joining`.
    """

    def __init__(self, outputs: Sequence[OutputOp], *settings: Any, languages: RowLanguages) -> None:  # noqa: ANN401
        super().__init__(outputs, *settings)
        self.languages = languages
        self.ops = lru_cache(MOST_LANGUAGES)(lambda language: languages.ops(language, outputs, None))

    def outputs_of(self, windows: pa.Table) -> Sequence[OutputOp]:
        """Return the ops of the language of a row."""
        return self.ops(str(self.languages.of(windows)[0]))


@dataclass(frozen=True)
class WithoutLanguage:
    """Placeholder for an output in the language of each row; an op of the language runs and joins instead."""

    schema: pa.Schema
    staged: pa.Schema
    values: tuple[object, ...]
    """Values of a recording shorter than one frame."""
    layers: tuple[int, ...] = ()

    def empty(self) -> tuple[object, ...]:
        return self.values
