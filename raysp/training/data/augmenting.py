"""Augmentation of the rows of windows, by the specs of a recipe."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import pyarrow as pa

from raysp.errors import PlanError
from raysp.labelling import assembly
from raysp.ops.decoding import Decoder
from raysp.ops.rows import OK, row_statuses, waves_of
from raysp.training.data.indexing import read_batches
from raysp.training.data.micro_batches import Rows, TrainingRow
from raysp.training.data.row_windows import WaveBuffer
from raysp.training.data.waveform_augmentation import (
    OF_SPEED,
    Augmentation,
    Wave,
    as_float32,
    at_speed,
    augmented,
    gain,
    noise,
    room,
)
from raysp.training.planning.ordering import Durations, Window, generator_of
from raysp.training.planning.training_plan import TrainingPlan
from raysp.training.specs.augmentations import Gain, Noise, OfSounds, Room

MOST_SECONDS = 3600.0
"""Seconds of the sounds of a corpus that are held by each worker."""


class Speeds:
    """Speeds of rows, drawn for each epoch.

    Args:
        factors: factors of speed, of which one is drawn for each row.
        seed: seed of the training.
    """

    def __init__(self, factors: Sequence[float], seed: int) -> None:
        self.factors = np.asarray(factors, np.float32)
        self.seed = seed

    def of(self, epoch: int, num_rows: int) -> np.ndarray:
        """Return the factor of each row of a corpus in an epoch, float32 (num_rows,)."""
        # For all rows at once, since rows are cut into micro-batches by the seconds that they have afterwards.
        places = generator_of(self.seed, epoch, OF_SPEED).integers(len(self.factors), size=num_rows, dtype=np.uint8)
        factors: np.ndarray = self.factors[places]
        return factors

    def durations(self, durations: Durations, epoch: int) -> Durations:
        """Return the durations that rows have in an epoch."""
        return Durations(durations.seconds / self.of(epoch, len(durations.seconds)), durations.piece_rows)


@dataclass(frozen=True)
class AugmentedRows:
    """Rows of windows, augmented as the seed, the epoch and their numbers decide.

    Attributes:
        rows: returns the rows of a window.
        speeds: their speeds; None: they are not changed.
        augmentations: further changes, in order.
        seed: seed of the training.
        num_rows: rows of the corpus.
    """

    rows: Rows
    speeds: Speeds | None
    augmentations: Sequence[Augmentation]
    seed: int
    num_rows: int

    def __call__(self, window: Window) -> Mapping[int, TrainingRow]:
        """Return the rows of a window by their numbers. Each original is freed once its augmented copy exists."""
        factors = self.speeds.of(window.epoch, self.num_rows) if self.speeds else None
        rows, buffer = dict(self.rows(window)), WaveBuffer()
        for row in [*rows]:
            wave = rows[row].wave if factors is None else at_speed(rows[row].wave, float(factors[row]))
            wave = augmented(wave, self.augmentations, seed=self.seed, epoch=window.epoch, row=row)
            rows[row] = rows[row]._replace(wave=buffer.kept(wave))
        return rows


def augmentations_of(plan: TrainingPlan, decoder: Decoder | None = None) -> list[Augmentation]:
    """Return the augmentations of a recipe besides speed; their sounds are read.

    Args:
        plan: the plan.
        decoder: decoding functions; None: of this process.

    Raises:
        PlanError: no recording of a corpus of sounds can be decoded.
    """
    augmentations: list[Augmentation] = []
    for place, step in enumerate(plan.recipe.augment):
        name = f"augment.{place}.source"
        if isinstance(step, Gain):
            augmentations.append(partial(gain, decibels=step.decibels))
        elif isinstance(step, Noise):
            noises = _sounds(plan, name, step, decoder)
            augmentations.append(partial(noise, noises=noises, snr=step.snr, share=step.share))
        elif isinstance(step, Room):
            responses = _sounds(plan, name, step, decoder)
            augmentations.append(partial(room, responses=responses, share=step.share))
    return augmentations


def _sounds(plan: TrainingPlan, name: str, work: OfSounds, decoder: Decoder | None) -> list[Wave]:
    """Return the first sounds of a corpus, float32 at the sample rate of the model."""
    sounds: list[Wave] = []
    seconds = 0.0
    for shard in plan.corpora[name].shards:
        for piece in shard.pieces:
            table = pa.concat_tables(read_batches(work, shard, piece))
            op = assembly.training_decoding(work, assembly.whole_rows(work, plan.checkpoint), shard, decoder=decoder)
            decoded = {
                row_status.row: wave
                for block in op(table, 0)
                for row_status, wave in zip(row_statuses(block), waves_of(block), strict=True)
                if row_status.status == OK and wave is not None and len(wave)
            }
            for row in sorted(decoded):
                if seconds < MOST_SECONDS:
                    sounds.append(as_float32(decoded[row]))
                    seconds += len(decoded[row]) / plan.checkpoint.sample_rate
        if seconds >= MOST_SECONDS:
            break
    if not sounds:
        raise PlanError(f"{name}: {work.source.urls[0]}: no recording can be decoded; name other recordings")
    return sounds
