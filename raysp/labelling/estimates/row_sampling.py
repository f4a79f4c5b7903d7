"""Sample of the rows of a plan: a bounded number of rows, read at a bounded number of places."""

from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from raysp.audio.isolation import Decoder
from raysp.corpus import sources
from raysp.corpus.kinds import Options
from raysp.corpus.recording_columns import largest_bytes
from raysp.corpus.shards import Piece, Shard
from raysp.errors import ShardError, StoreError
from raysp.labelling import assembly
from raysp.labelling.planning.run_plan import Plan
from raysp.ops.rows import OK, RowStatus

SAMPLE_ROWS = 256
"""Rows of a sample by default."""
MOST_PLACES = 32
"""Places at which a sample is read: each takes a footer and a few ranged requests."""
PLACE_BYTES = 2 * 1024 * 1024
"""Encoded bytes read for each of them, unless a single row is larger."""
AT_ONCE = 8
"""Places that are read at once."""

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
    """Rows that were read at one place."""

    place: Place
    table: pa.Table
    statuses: Sequence[RowStatus]
    channels: Sequence[int]
    """Number of labelled channels of each row."""


@dataclass(frozen=True)
class Sample:
    """Rows of a plan with their outcome, as far as headers show it."""

    parts: tuple[SampledRows, ...]
    rows_todo: int
    """Rows that the plan labels, which the sample stands for."""
    unread: tuple[str, ...] = ()
    """Reasons why places could not be read."""

    @cached_property
    def statuses(self) -> list[RowStatus]:
        """Outcomes of all rows."""
        return [one for part in self.parts for one in part.statuses]

    @property
    def num_rows(self) -> int:
        """Number of rows."""
        return len(self.statuses)

    @cached_property
    def seconds(self) -> Floats:
        """Seconds of each row that would be labelled; 0 for the others (num_rows,)."""
        return np.array([one.seconds or 0.0 if one.status == OK else 0.0 for one in self.statuses])

    @cached_property
    def channels(self) -> npt.NDArray[np.int64]:
        """Number of labelled channels of each row (num_rows,)."""
        return np.array([number for part in self.parts for number in part.channels], np.int64)

    @property
    def channels_per_second(self) -> float:
        """Seconds of labelled channels for each second of audio: 1 unless each channel is labelled."""
        seconds = float(self.weights @ self.seconds) if self.num_rows else 0.0
        return float(self.weights @ (self.seconds * self.channels)) / seconds if seconds else 1.0

    @cached_property
    def is_ok(self) -> npt.NDArray[np.bool_]:
        """Whether each row would be labelled (num_rows,)."""
        return np.array([one.status == OK for one in self.statuses], np.bool_)

    @cached_property
    def weights(self) -> Floats:
        """Share of the plan's rows that each row stands for; together 1 (num_rows,)."""
        weights = [part.place.weight / len(part.statuses) for part in self.parts for _ in part.statuses]
        return np.array(weights) / sum(part.place.weight for part in self.parts)

    def languages(self, column: str | None) -> list[str] | None:
        """Return the language of each row, as a column of the source has it; None without a column."""
        if column is None:
            return None
        return [str(one) for part in self.parts for one in part.table.column(column).to_pylist()]

    @property
    def num_bytes(self) -> int:
        """Arrow memory of the rows that were read."""
        return sum(part.table.nbytes for part in self.parts)

    @property
    def outcomes(self) -> dict[str, float]:
        """Shares of the rows that do not become ok, by error type or reason for skipping."""
        shares: Counter[str] = Counter()
        for one, weight in zip(self.statuses, self.weights.tolist(), strict=True):
            if one.status != OK:
                shares[one.error_type or one.status] += weight
        return dict(shares.most_common())

    @property
    def error_share(self) -> float:
        """Share of the rows that become error rows."""
        is_error = np.array([one.status == "error" for one in self.statuses], np.bool_)
        return float(self.weights[is_error].sum())

    def largest_recording(self, audio: str) -> int:
        """Return the bytes of the largest recording that is embedded in a row."""
        return max((largest_bytes(part.table.column(audio)) for part in self.parts), default=0)


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
    draws = _draws(plan, min(num_rows, MOST_PLACES), float(generator.random()))
    parts: list[SampledRows] = []
    options = plan.pipeline.source.storage_options
    with ThreadPoolExecutor(AT_ONCE) as pool, Decoder() as decoder:
        found = pool.map(lambda one: _places(one[0], one[1], options), draws)
        places = [place for listed in found for place in _given(listed, unread)]
        total = sum(one.weight for one in places)
        wanted = [max(1, round(num_rows * one.weight / total)) for one in places]
        seeds = [int(generator.integers(2**32)) for _ in places]
        tables = pool.map(lambda one, rows, own: _read(plan, one, rows, own), places, wanted, seeds)
        for place, read in zip(places, tables, strict=True):
            for table in _given(read, unread):
                parts.append(SampledRows(place, table, *_outcomes(plan, place, table, decoder)))
    return Sample(tuple(part for part in parts if part.statuses), plan.rows_todo, tuple(unread))


def _given(found: Sequence[T] | str, unread: list[str]) -> Sequence[T]:
    """Return the value that was read, or collect the reason why it could not be."""
    if isinstance(found, str):
        unread.append(found)
        return ()
    return found


def _draws(plan: Plan, number: int, begin: float) -> list[tuple[Shard, list[int]]]:
    """Return evenly spread rows of the plan, by shard. `begin` in [0, 1) moves all of them."""
    pieces = [(todo.shard, piece) for todo in plan.todo for piece in todo.pieces if piece.num_rows]
    ends = list(accumulate((piece.num_rows for _, piece in pieces), initial=0))
    number = min(number, ends[-1])
    numbers = (((np.arange(number) + begin) * ends[-1]) // max(1, number)).astype(np.int64)
    found: dict[str, tuple[Shard, list[int]]] = {}
    for row in numbers.tolist():
        index = int(np.searchsorted(ends, row, "right")) - 1
        shard, piece = pieces[index]
        found.setdefault(shard.name, (shard, []))[1].append(piece.first + row - ends[index])
    return list(found.values())


def _places(shard: Shard, rows: Sequence[int], options: Options) -> list[Place] | str:
    """Return the places of a shard on which rows were drawn, or the reason why it cannot be read."""
    try:
        starts = sources.starts(shard, options)
    except (ShardError, StoreError) as error:
        return str(error)
    edges = [*sorted({0, *starts}), shard.num_rows]
    weights = Counter(int(np.searchsorted(edges, row, "right")) - 1 for row in rows)
    return [Place(shard, edges[index], edges[index + 1], weight) for index, weight in sorted(weights.items())]


def _read(plan: Plan, place: Place, num_rows: int, seed: int) -> "list[pa.Table] | str":
    """Read rows of a place: any of them if all are small enough to be read, else the first ones."""
    shard, num_place = place.shard, place.end - place.first
    is_by_path = plan.pipeline.source.audio_root is not None or not sources.kind_of(shard).holds_audio
    row_bytes = 0.0 if is_by_path else shard.num_bytes / max(1, shard.num_rows)
    most = PLACE_BYTES * place.weight
    fits = row_bytes * num_place <= most
    read = num_place if fits else max(1, min(num_place, num_rows, int(most / row_bytes)))
    columns = assembly.decoded_columns(plan.pipeline, shard)
    piece = Piece(place.first, place.first + read)
    try:
        source = plan.pipeline.source
        table = sources.read_table(shard, piece, columns, source.storage_options, audio_root=source.audio_root)
    except (ShardError, StoreError) as error:
        return str(error)
    if table.num_rows > num_rows:
        chosen = np.random.default_rng(seed).permutation(table.num_rows)[:num_rows]
        table = table.take(np.sort(chosen))
    return [table]


def _outcomes(plan: Plan, place: Place, table: pa.Table, decoder: Decoder) -> tuple[list[RowStatus], list[int]]:
    """Return the outcomes of rows, and their numbers of labelled channels."""
    op = assembly.header_reading(plan.pipeline, plan.settings, place.shard, decoder=decoder)
    least = plan.settings.checkpoint.min_samples / plan.settings.checkpoint.sample_rate
    measured = op.measure_channels(table, place.first)
    for one, _ in measured:
        if one.status == OK and (one.seconds or 0.0) < least:
            one.skip("too_short", "")
    return [one for one, _ in measured], [channels for _, channels in measured]


def durations_of(sample: Sample) -> Iterator[tuple[float, float]]:
    """Yield the seconds and the weight of each row of known duration, skipped ones included."""
    for one, weight in zip(sample.statuses, sample.weights.tolist(), strict=True):
        if one.seconds is not None:
            yield one.seconds, weight
