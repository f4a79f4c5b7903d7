"""Simulation of blocks and batches over sampled durations, by the functions of the run."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
import numpy.typing as npt

from raysp.devices import is_accelerator
from raysp.labelling import assembly
from raysp.labelling.estimates.row_sampling import Sample
from raysp.labelling.planning.run_plan import Plan
from raysp.models.summary import OWN
from raysp.ops.blocks import Grouping
from raysp.ops.budget import passes_of_actor

MOST_PIECES = 4
"""Pieces that are simulated, spread evenly over those of the plan."""
MOST_SECONDS = 4 * 3600.0
"""Seconds of audio that are simulated; longer pieces are cut off."""
_NOISE_SECONDS = 30

Rows = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Simulation:
    """Blocks and forward passes of some pieces of a plan."""

    pieces: int
    blocks: int
    windows: int
    passes: int
    real_seconds: float
    """Seconds of audio in all windows of all labelled channels; overlaps count twice."""
    padded_seconds: float
    """Seconds that go through the model, padding included."""
    largest_pass: float
    """Padded seconds of the largest pass."""
    row_seconds: float
    """Seconds of audio of the rows."""

    @property
    def padding_efficiency(self) -> float | None:
        """Share of the computed samples that are not padding."""
        return self.real_seconds / self.padded_seconds if self.padded_seconds else None


def simulate(plan: Plan, sample: Sample, *, seed: int = 0) -> Simulation | None:
    """Simulate the passes over pieces of the plan whose rows have durations of the sample; None: no row is ok."""
    if not sample.is_ok.any():
        return None
    generator = np.random.default_rng(seed)
    pieces = [(todo.shard, piece) for todo in plan.todo for piece in todo.pieces if piece.num_rows]
    starts = [0, *accumulate(piece.num_rows for _, piece in pieces)]
    chosen = np.unique(np.linspace(0, len(pieces) - 1, min(MOST_PIECES, len(pieces))).round().astype(int))
    settings, checkpoint = plan.settings, plan.settings.checkpoint
    rate, is_exact = checkpoint.sample_rate, plan.pipeline.label.exact
    noise = generator.integers(-1000, 1000, _NOISE_SECONDS * rate).astype(np.int16)
    most = round(settings.pass_seconds * rate)
    threads = settings.cpus_per_actor.number if not is_accelerator(settings.device) else None
    at_once = passes_of_actor(threads, settings.batching, exact=is_exact, is_own=checkpoint.backend == OWN)
    spoken = sample.languages(plan.pipeline.label.language_column)
    blocks: list[list[list[int]]] = []
    row_seconds = 0.0
    for index in chosen.tolist():
        shard, piece = pieces[index]
        rows = _drawn(sample, starts[index], piece.num_rows, MOST_SECONDS / len(chosen), generator)
        row_seconds += float(sample.seconds[rows].sum())
        op = assembly.header_reading(plan.pipeline, settings, shard)
        languages = [spoken[row] for row in rows.tolist()] if spoken else None
        found = op.lengths(sample.seconds[rows].tolist(), noise, sample.channels[rows].tolist(), languages)
        blocks += [_by_language(block, languages) for block in found]
    of_one_length = is_exact and not checkpoint.takes_padding
    size = assembly.size_of_packs(settings, plan.pipeline.label)
    most = most if size is None else size * checkpoint.hidden_stride
    grouping = Grouping(settings.batching, checkpoint.hidden_stride, at_once, of_one_length, size)

    def costs(lengths: Sequence[int]) -> list[int]:
        return [max(length, checkpoint.padded_samples) for length in lengths]

    passes = [
        [group[place] for place in one]
        for block in blocks
        for group in block
        for one in grouping.cut(costs(group), most)
    ]
    padded = [grouping.padded(sorted(costs(one), reverse=True)) / rate for one in passes]
    return Simulation(
        pieces=len(chosen),
        blocks=len(blocks),
        windows=sum(map(len, passes)),
        passes=len(passes),
        real_seconds=sum(map(sum, passes)) / rate,
        padded_seconds=sum(padded),
        largest_pass=max(padded),
        row_seconds=row_seconds,
    )


def _by_language(windows: Sequence[tuple[int, int]], languages: Sequence[str] | None) -> list[list[int]]:
    """Return the numbers of samples of the windows of a block that may share a batch: those of one language."""
    groups: dict[str, list[int]] = {}
    for row, samples in windows:
        groups.setdefault(languages[row] if languages else "", []).append(samples)
    return [*groups.values()]


def _drawn(sample: Sample, start: int, num_rows: int, most_seconds: float, generator: np.random.Generator) -> Rows:
    """Return sampled rows of a piece that would be labelled, of at most `most_seconds`, but at least one row.

    `start` is the number of the plan's rows before the piece.
    """
    # If all rows of the plan are in the sample, in order, the result is that of the run, not of draws.
    if sample.num_rows == sample.rows_todo:
        drawn = start + np.flatnonzero(sample.is_ok[start : start + num_rows])
    else:
        rows = generator.choice(sample.num_rows, num_rows, p=sample.weights)
        drawn = rows[sample.is_ok[rows]]
    if not drawn.size:
        drawn = np.flatnonzero(sample.is_ok)[:1]
    return drawn[: max(1, int(np.searchsorted(np.cumsum(sample.seconds[drawn]), most_seconds, "right")))]
