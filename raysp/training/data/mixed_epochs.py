"""Rows of the epochs of a mixture: a pure function of the index, the seed and the epoch, as the order of rows is."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

import numpy as np
import numpy.typing as npt

from raysp.errors import PlanError
from raysp.training.planning.ordering import Index
from raysp.training.sink.corpus_index import CorpusIndex
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

    def index(self, index: Index, epoch: int) -> Index:
        """Return an index with only the rows of an epoch; other rows have no duration, as if they were left out."""
        chosen = np.zeros(len(index.seconds), np.bool_)
        for part in self.parts.values():
            chosen[part.of(epoch)] = True
        return Index(np.where(chosen, index.seconds, np.float32(0)), index.piece_rows)

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
    rows = _rows_of_parts(mix, corpus)
    seconds = {part: float(corpus.seconds[members].sum(dtype=np.float64)) for part, members in rows.items()}
    shares = _shares(mix, seconds)
    parts = {}
    for number, (part, members) in enumerate(rows.items()):
        order = np.random.Generator(np.random.Philox(np.random.SeedSequence([SEED_OF_PARTS, seed, number])))
        parts[part] = Part(order.permutation(members), len(members) * shares[part], seconds[part])
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
    for part, of_part in seconds.items():
        if not of_part:
            raise _empty(part, [*declared])
    shares = _shares(mix, seconds)
    return sum(of_part * shares[part] for part, of_part in seconds.items())


def _shares(mix: Mix, seconds: Mapping[str, float]) -> dict[str, float]:
    """Return the share of rows that an epoch takes of each part; 1 for a part that it takes whole."""
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


def _empty(part: str, shards: Sequence[str]) -> PlanError:
    names = ", ".join(shards[:SHOWN_SHARDS])
    return PlanError(f"mix.parts: {part!r} has no row to train on; the corpus has the shards {names}")


def _rows_of_parts(mix: Mix, corpus: CorpusIndex) -> dict[str, npt.NDArray[np.int64]]:
    """Return the rows of each part that are trained on."""
    # Sorted, since the fingerprint does not know the order of weights.
    spans: dict[str, list[npt.NDArray[np.int64]]] = {part: [] for part in sorted(mix.parts)}
    for place, shard in enumerate(corpus.shards):
        first, end = corpus.first_rows[place : place + 2].tolist()
        spans[_part_of(mix, shard.name)].append(first + np.flatnonzero(corpus.seconds[first:end]))
    for part, of_part in spans.items():
        if not sum(map(len, of_part)):
            raise _empty(part, [shard.name for shard in corpus.shards])
    return {part: np.concatenate(of_part) for part, of_part in spans.items()}
