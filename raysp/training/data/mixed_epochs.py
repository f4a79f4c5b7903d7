"""Rows of the epochs of a mixture: a pure function of the index, the seed and the epoch, as the order of rows is."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

import numpy as np
import numpy.typing as npt

from raysp.errors import PlanError
from raysp.training.planning.corpus_index import CorpusIndex
from raysp.training.planning.ordering import Durations, generator_of
from raysp.training.specs.mix import Mix
from raysp.words import duration

SEED_OF_PARTS = 1
"""First number of the seeds of the orders of parts, followed by the training's."""
SHOWN_SHARDS = 5
"""Shards that a message names."""


@dataclass(frozen=True)
class Part:
    """Rows of one part of a mixture.

    Attributes:
        rows: int64 (num_rows,), in the order in which epochs take them, again and again.
        an_epoch: number of rows that an epoch takes, on average; at most all of them.
        seconds: seconds of audio of all rows.
    """

    rows: npt.NDArray[np.int64] = field(repr=False)
    an_epoch: float
    seconds: float

    def of(self, epoch: int) -> npt.NDArray[np.int64]:
        """Return the rows of an epoch: they follow the rows of the previous epoch."""
        first, end = math.floor(epoch * self.an_epoch), math.floor((epoch + 1) * self.an_epoch)
        rows: npt.NDArray[np.int64] = self.rows[np.arange(first, end) % len(self.rows)]
        return rows

    @property
    def seconds_an_epoch(self) -> float:
        """Seconds of audio of an epoch, on average."""
        return self.seconds * self.an_epoch / len(self.rows)


@dataclass(frozen=True)
class Mixture:
    """Parts of a corpus by their patterns."""

    parts: Mapping[str, Part]

    def of_epoch(self, durations: Durations, epoch: int) -> Durations:
        """Return the durations of the rows of an epoch; other rows have none, as if they were left out."""
        chosen = np.zeros(len(durations.seconds), np.bool_)
        for part in self.parts.values():
            chosen[part.of(epoch)] = True
        return Durations(np.where(chosen, durations.seconds, np.float32(0)), durations.piece_rows)

    @property
    def fact(self) -> str:
        """Rows and shares of the parts in an epoch as text."""
        total = sum(part.seconds_an_epoch for part in self.parts.values())
        shown = [
            f"{name}: {part.an_epoch:,.4g} of {len(part.rows):,} rows an epoch, {part.seconds_an_epoch / total:.1%} of "
            f"{duration(total)} of audio"
            for name, part in self.parts.items()
        ]
        return "; ".join(shown)


def mixture_of(mix: Mix, corpus: CorpusIndex, seed: int) -> Mixture:
    """Return the mixture of a corpus.

    Args:
        mix: the mixture of the recipe.
        corpus: index of the corpus.
        seed: seed of the training.

    Raises:
        PlanError: a shard is in no part or in several, or a part has no row to train on.
    """
    # Sorted, since the fingerprint does not know the order of weights.
    spans = {part: [np.zeros(0, np.int64)] for part in sorted(mix.parts)}
    for shard, first, end in zip(corpus.shards, corpus.first_rows, corpus.first_rows[1:], strict=False):
        spans[_part_of(mix, shard.name)].append(first + np.flatnonzero(corpus.durations.seconds[first:end]))
    rows = {part: np.concatenate(of_part) for part, of_part in spans.items()}
    seconds = {part: float(corpus.durations.seconds[members].sum(dtype=np.float64)) for part, members in rows.items()}
    shares = _shares(mix, seconds, [shard.name for shard in corpus.shards])
    parts = {}
    for number, (part, members) in enumerate(rows.items()):
        order = generator_of(SEED_OF_PARTS, seed, number).permutation(members)
        parts[part] = Part(order, len(members) * shares[part], seconds[part])
    return Mixture(parts)


def seconds_an_epoch(mix: Mix, declared: Mapping[str, float]) -> float:
    """Return the mean seconds of audio of an epoch, from the seconds that the shards of a corpus declare.

    Args:
        mix: the mixture of the recipe.
        declared: seconds of audio by the names of shards.

    Raises:
        PlanError: a shard is in no part or in several, or a part has no audio.
    """
    seconds = dict.fromkeys(sorted(mix.parts), 0.0)
    for name, of_shard in declared.items():
        seconds[_part_of(mix, name)] += of_shard
    shares = _shares(mix, seconds, [*declared])
    return sum(of_part * shares[part] for part, of_part in seconds.items())


def _shares(mix: Mix, seconds: Mapping[str, float], shards: Sequence[str]) -> dict[str, float]:
    """Return the share of rows that an epoch takes of each part; 1 for a part that it takes whole."""
    for part, of_part in seconds.items():
        if not of_part:
            names = ", ".join(shards[:SHOWN_SHARDS])
            raise PlanError(f"mix.parts: {part!r} has no row to train on; the corpus has the shards {names}")
    weights = mix.weights(seconds)
    most = max(weights[part] / seconds[part] for part in seconds)
    return {part: weights[part] / seconds[part] / most for part in seconds}


def _part_of(mix: Mix, name: str) -> str:
    """Return the part that a shard is in."""
    matching = [part for part in mix.parts if fnmatchcase(name, part)]
    if len(matching) != 1:
        parts = " and ".join(map(repr, matching)) or f"none of {', '.join(map(repr, mix.parts))}"
        raise PlanError(f"mix.parts: the shard {name!r} is in {parts}; expected each shard in one part")
    return matching[0]
