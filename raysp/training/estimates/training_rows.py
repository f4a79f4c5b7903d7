"""Facts of the rows of a training for its estimate: rest of the course, balance, largest micro-batches and windows.

Rows that are too many for a plan to read are not indexed before the training. The budget of a micro-batch, and the
durations that the source declares, stand for them.
"""

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from raysp.errors import RayspError
from raysp.labelling import assembly
from raysp.specs.values import JsonValue
from raysp.storage.store import Store
from raysp.training.data.indexing import read_batches
from raysp.training.data.mixed_epochs import seconds_an_epoch
from raysp.training.estimates.activation_memory import Batch
from raysp.training.loop.worker import course_of
from raysp.training.planning.ordering import imbalance, longest_seconds
from raysp.training.planning.training_plan import TrainingPlan
from raysp.training.preparing import Prepared
from raysp.training.sink import committed_steps as steps
from raysp.training.sink.extending import has_other_length
from raysp.training.sink.training_record import TrainingRecord
from raysp.training.specs.objectives import Objective, Speakers
from raysp.training.specs.recipe import training_parts
from raysp.words import count

if TYPE_CHECKING:
    from raysp.ops.decoding import Decoder

UNKNOWN_SECONDS = 30.0
"""Duration of the longest row where durations are unknown, unless the steps leave out shorter rows."""
LABELS_A_SECOND = 10.0
"""Labels of a row for each second where they are unknown."""
WIDEST = 4
"""Bytes of a sample in float32."""


@dataclass(frozen=True)
class Left:
    """Steps and audio that a training has left."""

    steps: int | None
    """Steps that are left; None: unknown before the rows are indexed."""
    audio_seconds: float
    share: float
    """Share of the training; below 1 if steps are committed."""


@dataclass(frozen=True)
class RowFacts:
    """Facts of the rows of a training for its estimate."""

    left: Left | None
    """Rest of the training; None: unknown before the rows are indexed."""
    has_begun: bool
    """Whether the sink has this training."""
    parts: Mapping[str, JsonValue]
    """Parts as `training_parts` returns them; without the vocabulary if the rows are not indexed."""
    batches: Sequence[Batch]
    """Micro-batches that may need the most memory."""
    window_bytes: float
    """Bytes of the samples of the largest window."""
    window_pieces: float
    """Pieces of the first window."""
    imbalance_of: Callable[[int], float]
    """Returns the load of the slowest worker over the mean, for a number of workers."""
    note: str = ""

    @classmethod
    def of(cls, prepared: Prepared, store: Store, decoder: "Decoder | None" = None) -> "RowFacts":
        """Return the facts from the index and the sink of a training.

        Args:
            prepared: the training, of whose first row the type of samples is taken, unless rows are augmented.
            store: the sink.
            decoder: decoding functions; None: of this process.
        """
        record = TrainingRecord.load(store)
        has_begun = record is not None and (
            record.fingerprint == prepared.fingerprint or has_other_length(record, prepared.parts)
        )
        return cls(
            left=_left(prepared, store if has_begun else None),
            has_begun=has_begun,
            parts=prepared.parts,
            batches=largest_batches(prepared),
            window_bytes=_window_seconds(prepared) * _bytes_a_second(prepared, decoder),
            window_pieces=len(prepared.first_window.pieces),
            imbalance_of=prepared.imbalance_of,
        )

    @classmethod
    def assumed(cls, plan: TrainingPlan) -> "RowFacts":
        """Return the facts of rows that are not indexed."""
        batch = assumed_batch(plan)
        parts = training_parts(
            plan.recipe,
            checkpoint_digest=plan.checkpoint_digest,
            vocabulary_digest="",
            dtype=plan.dtype,
            code=plan.code,
        )
        return cls(
            left=_declared(plan),
            has_begun=False,
            parts=parts,
            batches=[batch],
            window_bytes=plan.sizes.window_seconds * plan.checkpoint.sample_rate * WIDEST,
            window_pieces=float("inf"),
            imbalance_of=partial(imbalance, np.ones((1, plan.sizes.micro_batches))),
            note=f"{count(plan.num_rows, 'row')} are not indexed yet: the training counts rows, tokens and steps. "
            f"Memory is estimated for rows of up to {batch.seconds:g} s",
        )


def _left(prepared: Prepared, store: Store | None) -> Left:
    """Return the rest of a training; `store` is its sink if it has begun."""
    schedule, epoch_steps = prepared.plan.recipe.schedule, prepared.first_epoch.num_steps
    committed = steps.latest(store) if store else None
    done = course_of(schedule).progress(committed.position, epoch_steps) if committed else 0.0
    num_steps = schedule.steps if schedule.steps is not None else (schedule.epochs or 0) * epoch_steps
    share = max(0.0, 1 - done)
    audio = num_steps * float(prepared.first_index.seconds.sum()) / epoch_steps
    return Left(round(share * num_steps), share * audio, share)


def _declared(plan: TrainingPlan) -> Left | None:
    """Return the rest by the durations that the source declares, or by the budget of the steps."""
    schedule, sizes, mix, seconds = plan.recipe.schedule, plan.sizes, plan.recipe.mix, plan.corpus.seconds
    if schedule.steps is not None:
        return Left(schedule.steps, schedule.steps * sizes.micro_seconds * sizes.micro_batches, 1.0)
    if seconds is None:
        return None
    if mix is not None:
        seconds = seconds_an_epoch(mix, {shard.name: shard.seconds or 0.0 for shard in plan.corpus.shards})
    return Left(None, (schedule.epochs or 0) * seconds, 1.0)


def largest_batches(prepared: Prepared) -> list[Batch]:
    """Return the micro-batches of the first window with the most frames, attention scores, and labels."""
    window, index = prepared.first_window, prepared.index
    rows, seconds = np.diff(window.edges), longest_seconds(window, index)
    labels = np.append(prepared.corpus.num_labels[window.rows].astype(np.int64), 0)
    most = np.maximum.reduceat(labels, window.edges[:-1])  # of an empty micro-batch some other, which rows of 0 undo
    seconds = np.minimum(seconds, _longest(prepared.plan.recipe.objective))
    places = {int(np.argmax(size)) for size in (rows * seconds, rows * seconds**2, rows * most * (1 + seconds))}
    return [Batch(int(rows[place]), float(seconds[place]), int(most[place])) for place in sorted(places)]


def assumed_batch(plan: TrainingPlan) -> Batch:
    """Return a micro-batch of the longest rows, if durations are unknown."""
    limits = [getattr(step, "max_seconds", None) for step in plan.recipe.steps]
    seconds = min([UNKNOWN_SECONDS, _longest(plan.recipe.objective), *(limit for limit in limits if limit)])
    cost = float(plan.sizes.cost(np.array([seconds]))[0])
    return Batch(max(1, int(plan.sizes.micro_seconds / cost)), seconds, round(LABELS_A_SECOND * seconds))


def _longest(objective: Objective) -> float:
    """Return the duration to which an objective cuts rows."""
    crop = objective.crop_seconds if isinstance(objective, Speakers) else None
    return float("inf") if crop is None else crop


def _window_seconds(prepared: Prepared) -> float:
    """Return the seconds of the largest window, at most."""
    seconds = prepared.index.seconds
    first = float(seconds[prepared.first_window.rows].sum())
    return min(float(seconds.sum()), max(first, prepared.plan.sizes.window_seconds))


def _bytes_a_second(prepared: Prepared, decoder: "Decoder | None") -> float:
    """Return the bytes of a second of decoded audio: two a sample where that loses nothing, else four."""
    plan, width = prepared.plan, WIDEST
    if not plan.recipe.augment:
        with contextlib.suppress(RayspError):  # the training reports it
            width = _first_width(prepared, decoder)
    return float(plan.checkpoint.sample_rate * width)


def _first_width(prepared: Prepared, decoder: "Decoder | None") -> int:
    """Return the bytes of a sample of the first row of the first window."""
    plan, corpus = prepared.plan, prepared.corpus
    row = int(prepared.first_window.rows.min())
    number = int(np.searchsorted(corpus.piece_rows, row, side="right")) - 1
    shard, piece = corpus.piece(number)
    op = assembly.training_decoding(plan.recipe, plan.checkpoint, shard, decoder=decoder)
    place = row - int(corpus.piece_rows[number])
    for table in read_batches(plan.recipe, shard, piece):
        if place < table.num_rows:
            return op.sample_bytes(table, place)
        place -= table.num_rows
    return WIDEST
