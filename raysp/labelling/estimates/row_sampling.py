"""Sample of the rows of a plan: a bounded number of rows, read at a bounded number of places."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import accumulate
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from raysp.audio.isolation import Decoder
from raysp.corpus import sources
from raysp.corpus.shards import Piece, Shard
from raysp.errors import ShardError, StoreError
from raysp.labelling import assembly
from raysp.labelling.planning.carried import read_columns
from raysp.labelling.planning.costs import Amount
from raysp.labelling.planning.run_plan import Pass, Plan
from raysp.ops.rows import OK, RowStatus

SAMPLE_ROWS = 256
"""Rows of a sample by default."""
MOST_PLACES = 32
"""Places at which a sample is read: each takes a footer and a few ranged requests."""
PLACE_BYTES = 2 * 1024 * 1024
"""Encoded bytes read for each of them, unless a single row is larger."""
AT_ONCE = 8
"""Places that are read at once."""
QUANTILE = 1.96
"""Quantile of the normal distribution for an interval of 95 %."""

T = TypeVar("T")
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Place:
    """Neighbouring rows of a shard that can be read without the rows before them."""

    shard: Shard
    first: int
    end: int
    weight: int
    """Number of draws that fell on it."""


@dataclass(frozen=True)
class SampledRows:
    """Rows that were read at one place, with their outcome as far as headers show it."""

    place: Place
    piece: Piece
    """The rows from which they were chosen."""
    numbers: Sequence[int]
    """Their numbers in the shard."""
    statuses: Sequence[RowStatus]
    channels: Sequence[int]
    """Number of labelled channels of each row."""
    num_bytes: int
    """Arrow memory of the rows."""


@dataclass(frozen=True)
class Sample:
    """Rows of a plan."""

    parts: tuple[SampledRows, ...]
    rows_todo: int
    """Rows that the plan labels, which the sample stands for."""
    unread: tuple[str, ...] = ()
    """Reasons why places could not be read."""

    @cached_property
    def statuses(self) -> list[RowStatus]:
        """Outcomes of all rows."""
        return [status for part in self.parts for status in part.statuses]

    @cached_property
    def weights(self) -> Floats:
        """Share of the plan's rows that each row stands for; together 1 (num_rows,)."""
        if (number := len(self.statuses)) == self.rows_todo:
            return np.full(number, 1 / max(1, number))
        weights = [part.place.weight / len(part.statuses) for part in self.parts for _ in part.statuses]
        return np.array(weights) / max(1, sum(part.place.weight for part in self.parts))

    @cached_property
    def seconds(self) -> Floats:
        """Seconds of each row that would be labelled; 0 for the others (num_rows,)."""
        return np.array([row.seconds or 0.0 if row.status == OK else 0.0 for row in self.statuses])

    @property
    def channels_per_second(self) -> float:
        """Seconds of labelled channels for each second of audio: 1 unless each channel is labelled."""
        channels = np.array([number for part in self.parts for number in part.channels])
        seconds = float(self.weights @ self.seconds)
        return float(self.weights @ (self.seconds * channels)) / seconds if seconds else 1.0

    @property
    def outcomes(self) -> dict[str, float]:
        """Shares of the rows that do not become ok, by error type or reason for skipping."""
        shares = Counter[str]()
        for row, weight in zip(self.statuses, self.weights.tolist(), strict=True):
            if row.status != OK:
                shares[row.error_type or row.status] += weight
        return dict(shares.most_common())

    def share(self, status: str) -> float:
        """Return the share of the rows with a status."""
        return float(self.weights @ np.array([row.status == status for row in self.statuses], np.float64))

    def audio_seconds(self, declared: float | None) -> Amount | None:
        """Return the seconds of audio that a run labels; None without rows.

        The interval assumes rows drawn at random or, if that is wider, uses the means of the places: rows that are read
        together may be alike.

        Args:
            declared: seconds of all rows of the plan as declared by the source; None: unknown.
        """
        num_rows = len(self.statuses)
        if not num_rows:
            return None
        mean = float(self.weights @ self.seconds)
        of_headers = np.array([row.seconds or 0.0 for row in self.statuses])
        if declared is not None and (total := float(self.weights @ of_headers)) > 0:
            return Amount(declared * mean / total, 0.0)
        left = 1 - num_rows / self.rows_todo
        if left <= 0:
            return Amount(mean * self.rows_todo, 0.0)
        of_rows = float(self.weights @ (self.seconds - mean) ** 2) * left / max(1, num_rows - 1)
        ends = np.cumsum([len(part.statuses) for part in self.parts])
        means = np.array([seconds.mean() for seconds in np.split(self.seconds, ends[:-1])])
        draws = np.array([part.place.weight for part in self.parts])
        number = int(draws.sum())
        of_places = float(draws @ (means - mean) ** 2) / (number * max(1, number - 1)) if len(means) > 1 else 0.0
        return Amount(mean * self.rows_todo, QUANTILE * max(of_rows, of_places) ** 0.5 * self.rows_todo)


def read_sample(plan: Plan, num_rows: int = SAMPLE_ROWS, *, seed: int = 0) -> Sample:
    """Read a sample of the rows that a plan labels, and the headers of their recordings.

    Draws are spread evenly over the rows. Reading begins where it needs no rows before it, such as at the first row of
    a row group: of a long row group only the first rows are read. Recordings are decoded only where their headers do
    not have a duration. Steps on decoded rows are not applied.

    Args:
        plan: the plan.
        num_rows: rows to read, at least one a place; fewer if they are large.
        seed: determines the rows.
    """
    generator = np.random.default_rng(seed)
    unread: list[str] = []
    parts: list[SampledRows] = []
    step = Pass(plan.pipeline, plan.settings)
    least = plan.settings.checkpoint.min_samples / plan.settings.checkpoint.sample_rate
    draws = _draws(plan, min(num_rows, MOST_PLACES), float(generator.random()))
    with ThreadPoolExecutor(AT_ONCE) as pool, Decoder() as decoder:

        def results(calls: Iterable[Callable[[], T]]) -> Iterable[T]:
            for future in [pool.submit(call) for call in calls]:
                try:
                    yield future.result()
                except (ShardError, StoreError) as error:
                    unread.append(str(error))

        places = [place for places in results(partial(_places, plan, *draw) for draw in draws) for place in places]
        total = sum(place.weight for place in places)
        reads = [
            partial(_read, plan, place, max(1, round(num_rows * place.weight / total)), int(generator.integers(2**32)))
            for place in places
        ]
        for place, piece, numbers, table in results(reads):
            op = assembly.decoding(step, place.shard, decoder, cuts_at_pauses=False)
            measured = op.measure_channels(table, place.first)
            statuses, channels = [row for row, _ in measured], [number for _, number in measured]
            for row in statuses:
                if row.status == OK and (row.seconds or 0.0) < least:
                    row.skip("too_short", "")
            parts.append(SampledRows(place, piece, numbers, statuses, channels, table.nbytes))
    return Sample(tuple(part for part in parts if part.statuses), plan.rows_todo, tuple(unread))


def _draws(plan: Plan, number: int, begin: float) -> list[tuple[Shard, list[int]]]:
    """Return evenly spread rows of the plan, by shard. `begin` in [0, 1) moves all of them."""
    pieces = [(todo.shard, piece) for todo in plan.todo for piece in todo.pieces if piece.num_rows]
    ends = list(accumulate((piece.num_rows for _, piece in pieces), initial=0))
    number = min(number, ends[-1])
    numbers = (((np.arange(number) + begin) * ends[-1]) // max(1, number)).astype(np.int64)
    draws: dict[str, tuple[Shard, list[int]]] = {}
    for row in numbers.tolist():
        index = int(np.searchsorted(ends, row, "right")) - 1
        shard, piece = pieces[index]
        draws.setdefault(shard.name, (shard, []))[1].append(piece.first + row - ends[index])
    return list(draws.values())


def _places(plan: Plan, shard: Shard, rows: Sequence[int]) -> list[Place]:
    """Return the places of a shard on which rows were drawn."""
    edges = [*sorted({0, *sources.starts(shard, plan.pipeline.source.storage_options)}), shard.num_rows]
    weights = Counter(int(np.searchsorted(edges, row, "right")) - 1 for row in rows)
    return [Place(shard, edges[index], edges[index + 1], weight) for index, weight in sorted(weights.items())]


def _read(plan: Plan, place: Place, num_rows: int, seed: int) -> tuple[Place, Piece, list[int], pa.Table]:
    """Read rows of a place: any of them if all are small enough to be read, else the first ones."""
    shard, num_place, source = place.shard, place.end - place.first, plan.pipeline.source
    row_bytes = 0.0 if sources.is_by_path(shard, source.audio_root) else shard.num_bytes / max(1, shard.num_rows)
    most = PLACE_BYTES * place.weight
    fits = row_bytes * num_place <= most
    piece = Piece(place.first, place.first + (num_place if fits else max(1, min(num_rows, int(most / row_bytes)))))
    columns = assembly.decoded_columns(plan.pipeline, shard)
    table = read_columns(source, shard, piece, columns)
    chosen = np.arange(table.num_rows)
    if table.num_rows > num_rows:
        chosen = np.sort(np.random.default_rng(seed).permutation(table.num_rows)[:num_rows])
        table = table.take(chosen)
    return place, piece, (place.first + chosen).tolist(), table
