"""Decoded rows of a window, read by the worker that trains on them."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from raysp import assembly
from raysp.corpus.shards import Piece, Shard
from raysp.errors import RunError
from raysp.models.summary import CheckpointSummary
from raysp.ops.ordering import Window
from raysp.ops.rows import OK, row_statuses, waves_of
from raysp.sink.training.index_record import CorpusIndex
from raysp.specs.recipe import Finetune
from raysp.text.targets import CharacterTargets
from raysp.training.indexing import read_piece, texts_of
from raysp.training.session import TrainingRow
from raysp.words import count

if TYPE_CHECKING:
    from raysp.ops.decoding import Decoder

LEAST_FAILED = 20
"""Rows that must have failed before their share can end a training."""


class Reading:
    """Reader of the rows of one worker.

    Args:
        recipe: the recipe.
        checkpoint: description of the checkpoint to begin with.
        corpus: index of the rows.
        targets: targets of the texts.
        decoder: decoding functions; None: those of this process.
        number: number of the worker.
        num_workers: number of all workers.
    """

    def __init__(
        self,
        recipe: Finetune,
        checkpoint: CheckpointSummary,
        corpus: CorpusIndex,
        targets: CharacterTargets,
        *,
        decoder: "Decoder | None" = None,
        number: int = 0,
        num_workers: int = 1,
    ) -> None:
        self.recipe = recipe
        self.checkpoint = checkpoint
        self.corpus = corpus
        self.targets = targets
        self.decoder = decoder
        self.number = number
        self.num_workers = num_workers
        self.errors: Counter[str] = Counter()
        """Rows that could not be decoded, by type of error."""
        self.first_errors: dict[str, str] = {}
        """A message of each type, with its row."""
        self.num_read = 0

    def __call__(self, window: Window) -> Mapping[int, TrainingRow]:
        """Return this worker's rows of a window by their numbers, without those that cannot be decoded.

        Raises:
            RunError: too many rows cannot be decoded.
            ShardError: a shard cannot be read, or changed since it was planned.
            StoreError: a store fails.
        """
        wanted = np.sort(window.rows_of(self.number, self.num_workers))
        found: dict[int, TrainingRow] = {}
        for number in window.pieces.tolist():
            first, end = self.corpus.piece_rows[number : number + 2].tolist()
            rows = wanted[np.searchsorted(wanted, first) : np.searchsorted(wanted, end)]
            if len(rows):
                shard, piece = self.corpus.piece(number)
                found |= self._read(shard, piece, first, rows.tolist())
        self._check_errors()
        return found

    def _read(self, shard: Shard, piece: Piece, first: int, rows: Sequence[int]) -> dict[int, TrainingRow]:
        """Return rows of a piece, whose first row has the number `first` in the corpus."""
        table = read_piece(self.recipe, shard, piece).take([row - first for row in rows])
        texts = [*texts_of(self.recipe, table)]
        op = assembly.training_decoding(self.recipe, self.checkpoint, shard, decoder=self.decoder)
        found: dict[int, TrainingRow] = {}
        for block, _ in op(table, 0):
            found |= self._rows(block, rows, texts)
        self.num_read += len(rows)
        return found

    def _rows(self, block: pa.Table, rows: Sequence[int], texts: Sequence[str | None]) -> dict[int, TrainingRow]:
        found: dict[int, TrainingRow] = {}
        for row_status, wave in zip(row_statuses(block), waves_of(block), strict=True):
            row = rows[row_status.row]
            if row_status.status != OK or wave is None:
                self._count(row, row_status.error_type or "", row_status.error_message or "")
            elif len(wave) >= self.checkpoint.min_samples:
                found[row] = TrainingRow(wave, self.targets(texts[row_status.row]).ids)
        return found

    def _count(self, row: int, kind: str, message: str) -> None:
        shard, number = self.corpus.place_of(row)
        self.errors[kind] += 1
        self.first_errors.setdefault(kind, f"{shard}:{number}: {message}")

    def _check_errors(self) -> None:
        failed = self.errors.total()
        if failed >= LEAST_FAILED and failed > self.recipe.max_error_rate * self.num_read:
            kind, number = self.errors.most_common(1)[0]
            raise RunError(
                f"{failed:,} of {count(self.num_read, 'row')} cannot be decoded, more than "
                f"max_error_rate={self.recipe.max_error_rate:g}; {number:,} of them are {kind}, such as "
                f"{self.first_errors[kind]}"
            )
