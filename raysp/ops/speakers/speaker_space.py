"""Space of the vectors of a checkpoint in which speakers are separated, with its file `speakers.json`.

The vectors of a speaker are normally distributed around the speaker's own mean, and these means around the mean of all
speakers (PLDA of two covariances; Ioffe 2006; Brümmer and de Villiers 2010). In the space both covariances are
diagonal: 1 within a speaker, `between_D` between speakers. The file is JSON with `mean`, `directions`, a list for each
direction, and `between`.

Legend: N vectors, E their width, D directions, S speakers.
"""

import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt

from raysp.checkpoints.hub import SPEAKER_FILES
from raysp.errors import CheckpointError
from raysp.models.base.configuration import json_text, read_json

Floats = npt.NDArray[np.float64]

[SPEAKERS_FILE] = SPEAKER_FILES
FIELDS = ("mean", "directions", "between")
LEAST_SPEAKERS = 3
"""Least number of speakers for a space."""
SHRINKAGE = 0.1
"""Share of the covariance within speakers that is equal in all directions, since few vectors estimate it badly."""
LEAST_BETWEEN = 0.2
"""Least ratio of the variance between speakers to the variance within, for a direction to be kept."""


@dataclass(frozen=True)
class SpeakerSpace:
    """Callable that returns the places of vectors (N, E) in the space (N, D).

    Attributes:
        mean_E: mean of the speakers' means.
        directions_DE: direction of each dimension, by decreasing variance between speakers.
        between_D: variance between speakers in each dimension; the variance within a speaker is 1.
    """

    mean_E: Floats
    directions_DE: Floats
    between_D: Floats

    @classmethod
    def of(cls, vectors_NE: npt.NDArray[np.float32] | Floats, speakers_N: npt.NDArray[np.int64]) -> Self | None:
        """Return the space of vectors of labelled speakers; None for too few speakers, or equal vectors.

        Speakers with one vector do not count, nor do vectors that are not finite.
        """
        is_finite_N = np.isfinite(vectors_NE).all(1)
        vectors_NE, speakers_N = vectors_NE[is_finite_N], speakers_N[is_finite_N]
        numbers, counts = np.unique(speakers_N, return_counts=True)
        numbers = numbers[counts > 1]
        if len(numbers) < LEAST_SPEAKERS:
            return None
        groups = [np.asarray(vectors_NE[speakers_N == number], np.float64) for number in numbers]
        means_SE = np.stack([group.mean(0) for group in groups])
        within_EE = _within(groups, means_SE)
        # The error of a speaker's mean is the covariance within, divided by the number of its vectors.
        spread_EE = np.cov(means_SE.T) - within_EE * np.mean([1 / len(group) for group in groups])
        whitening_EE = _whitening(within_EE)
        if whitening_EE is None:
            return None
        values_E, rotation_EE = np.linalg.eigh(whitening_EE @ spread_EE @ whitening_EE)
        kept = [index for index in np.argsort(-values_E).tolist() if values_E[index] > LEAST_BETWEEN]
        if not kept:
            return None
        return cls(means_SE.mean(0), (whitening_EE @ rotation_EE[:, kept]).T, values_E[kept])

    def __call__(self, vectors_NE: npt.NDArray[np.float32] | Floats) -> Floats:
        """Return the places of vectors."""
        return np.asarray((np.asarray(vectors_NE, np.float64) - self.mean_E) @ self.directions_DE.T)

    def nearest(self, places_ND: Floats, labels_N: npt.NDArray[np.int64], weight: float) -> float:
        """Return the highest log-likelihood ratio, one speaker against two, over pairs of at least two clusters.

        Args:
            places_ND: places of windows.
            labels_N: their clusters, numbered from 0.
            weight: weight of a window, below 1 since neighbouring windows share samples.
        """
        counts_K = np.asarray(weight * np.bincount(labels_N), np.float64)
        means_KD = np.stack([places_ND[labels_N == label].mean(0) for label in range(len(counts_K))])
        pairs = itertools.combinations(range(len(counts_K)), 2)
        return max(self._ratio(means_KD[[*pair]], counts_K[[*pair]]) for pair in pairs)

    def _ratio(self, means_2D: Floats, counts_2: Floats) -> float:
        """Return the log-likelihood ratio of two means of `counts_2` vectors (two-covariance PLDA)."""
        between_D = self.between_D
        own_2D = between_D + 1 / counts_2[:, None]
        determinant_D = own_2D.prod(0) - between_D**2
        first_D, second_D = means_2D
        joint_D = own_2D[1] * first_D**2 - 2 * between_D * first_D * second_D + own_2D[0] * second_D**2
        apart_D = (means_2D**2 / own_2D + np.log(own_2D)).sum(0)
        return float((apart_D - joint_D / determinant_D - np.log(determinant_D)).sum() / 2)

    @property
    def text(self) -> str:
        """Content of the file."""
        arrays = zip(FIELDS, (self.mean_E, self.directions_DE, self.between_D), strict=True)
        return json_text({field: array.astype(np.float32).tolist() for field, array in arrays})

    @classmethod
    def load(cls, folder: Path, width: int) -> Self | None:
        """Return the space of the checkpoint in a folder; None without the file.

        Args:
            folder: the checkpoint.
            width: width of its vectors.

        Raises:
            CheckpointError: the file cannot be read, or belongs to other vectors.
        """
        file = folder / SPEAKERS_FILE
        if not file.is_file():
            return None
        value = read_json(file)
        try:
            mean, directions, between = (np.asarray(value[field], np.float64) for field in FIELDS)
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError(f"{file}: found no numbers for {error}; {_EXPECTED}") from error
        shapes = [array.shape for array in (mean, directions, between)]
        if shapes != [(width,), (*between.shape, width), between.shape] or between.ndim != 1 or not between.size:
            raise CheckpointError(f"{file}: found shapes {shapes}, expected vectors of {width} numbers; {_EXPECTED}")
        if not all(np.isfinite(array).all() for array in (mean, directions, between)) or (between <= 0).any():
            raise CheckpointError(f"{file}: found values that are not finite, or variances of 0 or less; {_EXPECTED}")
        return cls(mean, directions, between)


_EXPECTED = "restore the file that `raysp finetune` wrote, or remove it"


def _within(groups: list[Floats], means_SE: Floats) -> Floats:
    """Return the covariance within speakers (E, E), shrunk to a multiple of the identity."""
    apart_NE = np.concatenate([group - mean for group, mean in zip(groups, means_SE, strict=True)])
    within_EE = apart_NE.T @ apart_NE / max(1, len(apart_NE) - len(groups))
    even_EE = np.trace(within_EE) / len(within_EE) * np.eye(len(within_EE))
    return np.asarray((1 - SHRINKAGE) * within_EE + SHRINKAGE * even_EE)


def _whitening(within_EE: Floats) -> Floats | None:
    """Return the inverse root of a covariance; None if it has none."""
    values_E, rotation_EE = np.linalg.eigh(within_EE)
    if not values_E[0] > 0:
        return None
    return np.asarray((rotation_EE / np.sqrt(values_E)) @ rotation_EE.T)
