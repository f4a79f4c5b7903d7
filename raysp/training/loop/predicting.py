"""Labels of rows by the model of a training, equal to the labels of `raysp evaluate` with its checkpoint."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple, cast

import numpy as np
import pyarrow as pa
import torch

from raysp.audio.waveforms import Samples, concatenate
from raysp.columns import OK, STATUS
from raysp.labelling import assembly
from raysp.labelling.finished.label_columns import references_of
from raysp.models.loading import LoadedCheckpoint
from raysp.ops.decoding import Decoder
from raysp.ops.labelling import Labelling
from raysp.ops.late_steps import Joining
from raysp.ops.rows import row_statuses, waves_of
from raysp.sink.sorting import in_order
from raysp.training.data.indexing import read_batches
from raysp.training.data.row_windows import wanted_rows
from raysp.training.objectives.passes import evaluation_mode
from raysp.training.objectives.task import Criterion
from raysp.training.planning.training_plan import TrainingPlan
from raysp.training.preparing import Prepared


class PredictedRows(NamedTuple):
    """Rows that were labelled, in the order of their numbers."""

    labels: pa.Table
    """`ROW_SCHEMA` and the columns of the outputs, one row for each."""
    waves: Mapping[int, Samples]
    """Samples of the rows that were decoded, by their numbers."""

    @property
    def are_ok(self) -> list[bool]:
        """Whether each row has labels."""
        return [status == OK for status in self.labels.column(STATUS).to_pylist()]


class Predictor:
    """Labelling by the model of a training with the settings of `Label`, in the arithmetic of the plan.

    The model stays where it is, and is in evaluation mode for each block alone.

    Args:
        plan: the plan.
        criterion: the model, and the task, which gives the outputs.
    """

    def __init__(self, plan: TrainingPlan, criterion: Criterion) -> None:
        self.model, task, folder = criterion.model, criterion.task, plan.checkpoint.path
        loaded = LoadedCheckpoint.of_model(
            self.model,
            criterion.passes.feature_extractor,
            task.tokenizer,
            path=folder,
            products=getattr(torch, plan.dtype),
        )
        self._op = Labelling(
            loaded,
            lambda model: task.label_ops(cast("LoadedCheckpoint", model)),
            batch_seconds=plan.sizes.micro_seconds,
            dtype=plan.dtype,
            device=plan.workers.device,
        )
        self.windowing = self._op.windowing
        """Division of longer rows into windows, by which rows are decoded."""
        self._join = Joining(self._op.outputs, loaded.sample_rate)
        self.columns = [name for output in self._op.outputs for name in output.schema.names]
        """Columns of the outputs."""

    def __call__(self, blocks: Iterable[pa.Table], names: Sequence[str]) -> Iterator[PredictedRows | None]:
        """Label decoded blocks, and yield None for each; at last their rows.

        Args:
            blocks: blocks with all windows of some rows.
            names: names of the rows by their numbers, which seed random sampling.
        """
        windows: list[pa.Table] = []
        parts: dict[int, list[Samples]] = {}
        for block in blocks:
            with evaluation_mode(self.model):
                windows.append(self._op(block, names=names)[0])
            for row_status, wave in zip(row_statuses(block), waves_of(block), strict=True):
                if wave is not None:
                    is_last = row_status.windows is not None
                    added = wave if is_last else wave[: self.windowing.added_samples(len(wave))]
                    parts.setdefault(row_status.row, []).append(added)
            yield None
        waves = {row: of_row[0] if len(of_row) == 1 else concatenate(of_row) for row, of_row in parts.items()}
        yield PredictedRows(assembly.join_windows(in_order(windows), self._join), waves)


def predicted_texts(prepared: Prepared, criterion: Criterion, decoder: Decoder, most: int) -> list[tuple[str, str]]:
    """Return references and texts, or classes, of the first rows of a training that can be decoded.

    Args:
        prepared: the training.
        criterion: the model and the task.
        decoder: decoding functions.
        most: number of rows.
    """
    recipe, predictor = prepared.plan.recipe, Predictor(prepared.plan, criterion)
    texts: list[tuple[str, str]] = []
    for number, rows in wanted_rows(prepared.first_window, prepared.corpus, 0, 1).items():
        shard, piece = prepared.corpus.piece(number)
        places = np.asarray(rows[: most - len(texts)]) - int(prepared.corpus.durations.piece_rows[number])
        table = pa.concat_tables(read_batches(recipe, shard, piece)).take(places)
        op = assembly.training_decoding(recipe, predictor.windowing, shard, decoder=decoder)
        [*_, labelled] = predictor(op(table, 0), [f"{shard.name}|{piece.first + place}" for place in places])
        assert labelled is not None
        assert recipe.target is not None
        references = references_of(table.column(recipe.target), criterion.task.COMPARED)
        hypotheses = labelled.labels.column(predictor.columns[0]).to_pylist()
        of_rows = zip(references, hypotheses, labelled.are_ok, strict=True)
        texts += [(reference or "", text or "") for reference, text, is_ok in of_rows if is_ok and (reference or text)]
        if len(texts) >= most:
            break
    return texts
