"""Evaluation during a training: the workers label the rows of a corpus as `raysp evaluate` does, and compare them."""

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import torch

from raysp.audio.waveforms import Samples
from raysp.columns import ERROR
from raysp.corpus.shards import Piece
from raysp.corpus.tables import bytes_of
from raysp.evaluation.comparing import LabelledRows, compare_labels
from raysp.evaluation.intervals import Bootstrap
from raysp.evaluation.scores import SECONDS, Columns, Comparison, Key
from raysp.evaluation.verification import Vector
from raysp.labelling import assembly
from raysp.labelling.finished.label_columns import keys_of, references_of, vectors_of
from raysp.models.loading import labels_of
from raysp.ops.decoding import Decoder
from raysp.storage.opened import digest_of
from raysp.training.data.indexing import read_batches, values_of
from raysp.training.data.micro_batches import MicroBatch
from raysp.training.loop.best_evaluation import ROWS, rule_of
from raysp.training.loop.predicting import PredictedRows, Predictor
from raysp.training.loop.training_steps import WorkerGroup
from raysp.training.objectives.passes import evaluation_mode
from raysp.training.objectives.task import Criterion
from raysp.training.planning.training_plan import TrainingPlan
from raysp.training.sink.step_evaluation import StepEvaluation

logger = logging.getLogger(__name__)

MEETING_SECONDS = 20.0
"""Seconds between synchronisations of the workers: far below the time after which the process group of a waiting worker
times out."""
MANY_PIECES = 4
"""Pieces per worker from which on each piece is read by one worker. With fewer, all workers read every piece and share
its slices."""
SLICE_ROWS = 64
"""Rows that are decoded together, and that one worker labels."""
WORST_ROWS = 20
"""Wrong rows that an evaluation keeps."""


class Compared(NamedTuple):
    """Reference and labels of a row, in the order of the columns of `LabelledRows`."""

    reference: str
    hypothesis: str | None
    """A text, a class, or a speaker of the training."""
    score: float | None
    vector: Vector | None
    """Embedding of a speaker."""


class EvaluatedRow(NamedTuple):
    """A row with its reference and its labels."""

    place: tuple[int, int]
    """Number of the shard, and of the row in it."""
    compared: Compared
    seconds: float
    groups: tuple[Key, ...]
    digest: bytes
    """Digest of the recording and the reference."""
    loss: float | None
    """None: the row has no target."""


class _Slice(NamedTuple):
    """Rows of a piece with a reference."""

    shard: int
    numbers: Sequence[int]
    """Numbers of the rows in the shard."""
    table: pa.Table
    references: Sequence[str]


@dataclass(eq=False, repr=False)
class Evaluator:
    """Evaluation of the weights of an objective, by all workers together: each labels some of the pieces.

    Attributes:
        plan: the plan, with an evaluation.
        criterion: the model and its loss.
        workers: the workers that train together; all evaluate at the same step.
        decoder: decoding functions; None: of this process.
        corpus: name of the corpus in the plan; by default of the one by which weights are compared.
    """

    plan: TrainingPlan
    criterion: Criterion
    workers: WorkerGroup
    decoder: Decoder | None = None
    corpus: str = "evaluation.source"

    def __post_init__(self) -> None:
        """Make the evaluators of the further corpora."""
        self.evaluation = self.plan.recipe.evaluations[self.corpus]
        assert self.evaluation.every is not None
        self.every = self.evaluation.every
        self.task = self.criterion.task
        self.targets = self.task.targets()
        self.shards = self.plan.corpora[self.corpus].shards
        self.others = {name: replace(self, corpus=f"evaluation.others.{name}") for name in self.evaluation.others}

    def __call__(self) -> StepEvaluation:
        """Label all rows, and return their metrics, which are the same on all workers but for the intervals."""
        own = self._own()
        gathered = [row for rows in self.workers.gather(own) for row in rows]
        # In the order of the corpus, so that sums and the digest do not depend on the number of workers.
        rows = sorted((row for row in gathered if row is not None), key=lambda row: row.place)
        compared = self._compared(rows)
        losses = [row.loss for row in rows if row.loss is not None]
        worst = []
        for mismatch in compared.worst:
            number, row = rows[mismatch.index].place
            name = self.shards[number].name
            worst.append(mismatch.at(f"{name}:{row}", name, row, None))
        return StepEvaluation(
            metric=self.evaluation.best,
            scores=compared.scores,
            by=compared.by,
            worst=tuple(worst),
            classes=compared.classes,
            loss=float(np.mean(losses)) if losses else None,
            normalisation=self.evaluation.normalise if self.task.COMPARED == "recognition" else None,
            measure=f"{rule_of(self.evaluation)}{ROWS}{sha256(b''.join(row.digest for row in rows)).hexdigest()[:16]}",
            failed=len(gathered) - len(rows),
            others={name: evaluator() for name, evaluator in self.others.items()},
        )

    def _compared(self, rows: Sequence[EvaluatedRow]) -> Comparison:
        names = [name for name in self.evaluation.by if name != SECONDS]
        by = {name: [row.groups[place] for row in rows] for place, name in enumerate(names)}
        seconds = [row.seconds for row in rows] if SECONDS in self.evaluation.by else None
        columns = zip(*(row.compared for row in rows), strict=True) if rows else [()] * len(Compared._fields)
        return compare_labels(
            self.task.COMPARED,
            LabelledRows(*columns),
            Columns(seconds, by),
            classes=() if self.task.COMPARED == "recognition" else labels_of(self.criterion.model.config),
            normalise=self.evaluation.normalise,
            # Only the first worker's evaluation is recorded.
            bootstrap=None if self.workers.number == 0 else Bootstrap(draws=0),
            worst=WORST_ROWS,
        )

    def _own(self) -> list[EvaluatedRow | None]:
        """Label this worker's rows; None for failed ones.

        Workers synchronise every `MEETING_SECONDS`, so that the process group does not time out.
        """
        own: list[EvaluatedRow | None] = []
        met = time.monotonic()
        for rows in self._batches():
            own += rows
            if time.monotonic() - met >= MEETING_SECONDS:
                self.workers.gather(False)
                met = time.monotonic()
        # All call `gather` until all are done: a worker that left earlier would leave the others waiting.
        while not all(self.workers.gather(True)):
            pass
        return own

    def _batches(self) -> Iterator[Sequence[EvaluatedRow | None]]:
        """Yield this worker's rows after each pass; passes do not depend on the number of workers."""
        # A new predictor for each evaluation: on a GPU it first waits for the last update, which ran on another stream.
        predictor = Predictor(self.plan, self.criterion)
        number, count = self.workers.number, self.workers.count
        pieces = [(number, piece) for number, shard in enumerate(self.shards) for piece in shard.pieces]
        is_shared = len(pieces) < MANY_PIECES * count
        for place, (shard, piece) in enumerate(pieces):
            if is_shared or place % count == number:
                for slice_number, rows in enumerate(self._slices(shard, piece)):
                    if not is_shared or (place + slice_number) % count == number:
                        yield from self._labelled(predictor, rows)

    def _slices(self, number: int, piece: Piece) -> Iterator[_Slice]:
        """Yield slices of the rows of a piece that have a reference."""
        table = pa.concat_tables(read_batches(self.evaluation, self.shards[number], piece))
        assert self.evaluation.target is not None
        references = references_of(table.column(self.evaluation.target), self.task.COMPARED)
        kept = [index for index, reference in enumerate(references) if reference is not None]
        for first in range(0, len(kept), SLICE_ROWS):
            rows = kept[first : first + SLICE_ROWS]
            yield _Slice(
                number, [piece.first + row for row in rows], table.take(rows), [str(references[row]) for row in rows]
            )

    def _labelled(self, predictor: Predictor, rows: _Slice) -> Iterator[Sequence[EvaluatedRow | None]]:
        """Yield the rows of a slice, after passes that label them, and passes of their losses."""
        shard = self.shards[rows.shard]
        op = assembly.training_decoding(self.evaluation, predictor.windowing, shard, decoder=self.decoder)
        op = replace(op, block_seconds=self.plan.sizes.micro_seconds)  # a pass, so that workers meet in time
        names = [f"{shard.name}|{number}" for number in rows.numbers]
        for predicted in predictor(op(rows.table, 0), names):
            if predicted is None:
                yield ()
                continue
            losses: dict[int, float] = {}
            yield from self._losses(rows, predicted, losses)
            yield self._rows(rows, predicted, predictor.columns, losses)

    def _losses(self, rows: _Slice, predicted: PredictedRows, losses: dict[int, float]) -> Iterator[tuple[()]]:
        """Add losses of the rows whose targets fit, by their places; yield after each pass over rows of like length."""
        fitting: list[tuple[int, Samples, Sequence[float]]] = []
        values = values_of(self.evaluation, rows.table)
        for place, (value, is_ok) in enumerate(zip(values, predicted.are_ok, strict=True)):
            if is_ok:
                target, wave = self.targets(value), predicted.waves[place]
                if not (target.reason or self.targets.misfit(target, self.plan.checkpoint.num_frames(len(wave)))):
                    fitting.append((place, wave, target.ids))
        budget = self.plan.sizes.micro_seconds * self.plan.checkpoint.sample_rate
        fitting.sort(key=lambda row: -len(row[1]))
        while fitting:
            size = max(1, int(budget / len(fitting[0][1])))
            (places, waves, targets), fitting = zip(*fitting[:size], strict=True), fitting[size:]
            batch = MicroBatch(0, range(len(places)), waves, targets, progress=1.0)
            with evaluation_mode(self.criterion.model), torch.inference_mode():
                losses.update(zip(places, self.criterion(batch).rows_B.tolist(), strict=True))
            yield ()

    def _rows(
        self, rows: _Slice, predicted: PredictedRows, columns: Sequence[str], losses: Mapping[int, float]
    ) -> list[EvaluatedRow | None]:
        """Return the rows that have labels, None for the other ones, and log those on which the model failed."""
        recordings = rows.table.column(self.evaluation.source.audio)
        groups = [keys_of(rows.table.column(name)) for name in self.evaluation.by if name != SECONDS]
        hypothesis, score, *vector = (predicted.labels.column(name) for name in columns)
        vectors = [None] * len(recordings) if not vector else vectors_of(vector[0])
        versions, seconds = (predicted.labels.column(name).to_pylist() for name in ("version", "seconds"))
        evaluated: list[EvaluatedRow | None] = []
        for place, is_ok in enumerate(predicted.are_ok):
            if not is_ok:
                evaluated.append(None)
                kind, message = (predicted.labels.column(name)[place].as_py() for name in ("status", "error_message"))
                if kind == ERROR and place in predicted.waves:
                    row = f"{self.shards[rows.shard].name}:{rows.numbers[place]}"
                    logger.warning("%s is not evaluated: %s", row, message)
                continue
            reference = rows.references[place]
            content = bytes_of(recordings[place]) or (versions[place] or "").encode()
            evaluated.append(
                EvaluatedRow(
                    (rows.shard, rows.numbers[place]),
                    Compared(reference, hypothesis[place].as_py(), score[place].as_py(), vectors[place]),
                    float(seconds[place] or 0.0),
                    tuple(column[place] for column in groups),
                    digest_of(content) + sha256(reference.encode(errors="surrogatepass")).digest(),
                    losses.get(place),
                )
            )
        return evaluated
