"""Order of training rows: a pure function of index, seed and epoch, cut into steps of micro-batches; and their balance.

The position in an epoch is the number of a step. No other state is stored, since the order is computed again from the
index. It does not depend on the number of workers: worker `w` of `n` runs micro-batches `w`, `w + n`, ... of a step.
"""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

Rows = npt.NDArray[np.int64]
"""Numbers of rows, counted over the corpus."""

LEAST_WINDOW_SHARE = 0.25
"""Share of `window_seconds` below which the last window of an epoch is merged into the one before it."""
HALVINGS = 6
"""Steps of the search for the lowest budget: the last one changes it by a hundredth."""


@dataclass(frozen=True)
class Durations:
    """Durations of the rows of a corpus, by its pieces, on which the order of the rows depends.

    Attributes:
        seconds: float32 (num_rows,), duration of each row; 0 for rows that are not trained on.
        piece_rows: int64 (num_pieces + 1,), first row of each piece, and the number of rows last.
    """

    seconds: npt.NDArray[np.float32] = field(repr=False)
    piece_rows: Rows = field(repr=False)

    @property
    def num_rows(self) -> int:
        """Number of rows that are trained on."""
        return int(np.count_nonzero(self.seconds))

    @property
    def digest(self) -> str:
        """Hash of the durations and pieces: 16 hexadecimal digits."""
        # Of one width and byte order, so that every machine computes the same digest.
        digest = hashlib.sha256(self.piece_rows.astype("<i8").tobytes())
        digest.update(self.seconds.astype("<f4").tobytes())
        return digest.hexdigest()[:16]


@dataclass(frozen=True)
class Sizes:
    """Sizes of micro-batches, steps and windows.

    Attributes:
        micro_seconds: padded cost of a micro-batch in seconds, at most; a longer row is a micro-batch of its own.
        micro_batches: number of micro-batches per step.
        window_seconds: audio whose rows are shuffled and sorted together, and are in memory at once.
        quadratic_seconds: duration at which a row costs twice its seconds, since attention grows with the square.
        by_length: whether the steps of a window are ordered from short to long rows instead of randomly.
    """

    micro_seconds: float
    micro_batches: int
    window_seconds: float
    quadratic_seconds: float = float("inf")
    by_length: bool = False

    def cost(self, seconds: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Return the cost of rows in seconds of audio."""
        return seconds * (1 + seconds / self.quadratic_seconds)


@dataclass(frozen=True)
class Window:
    """Pieces that are in memory together, and the steps made of their rows.

    Attributes:
        epoch: number of its epoch.
        number: place of the window in its epoch.
        first_step: number of its first step in the epoch.
        pieces: int64 (num_pieces,), numbers of its pieces.
        rows: int64 (num_rows,), its rows in the order of micro-batches.
        edges: int64 (num_steps * micro_batches + 1,), micro-batch `k` is `rows[edges[k]:edges[k + 1]]`.
        micro_batches: number of micro-batches per step.
        epoch_steps: number of steps of its epoch.
    """

    epoch: int
    number: int
    first_step: int
    pieces: Rows = field(repr=False)
    rows: Rows = field(repr=False)
    edges: Rows = field(repr=False)
    micro_batches: int
    epoch_steps: int

    @property
    def num_steps(self) -> int:
        """Number of steps."""
        return (len(self.edges) - 1) // self.micro_batches

    def micro_batch(self, step: int, number: int) -> Rows:
        """Return the rows of a micro-batch of a step, which is counted from the window's first."""
        place = step * self.micro_batches + number
        return self.rows[self.edges[place] : self.edges[place + 1]]

    def rows_of(self, worker: int, num_workers: int) -> Rows:
        """Return the rows of all micro-batches that a worker runs."""
        is_own = np.arange(len(self.edges) - 1) % self.micro_batches % num_workers == worker
        rows: Rows = self.rows[np.repeat(is_own, np.diff(self.edges))]
        return rows


class Epoch:
    """One pass over a corpus, with every row once: windows of permuted pieces, whose rows are cut into steps."""

    def __init__(self, durations: Durations, sizes: Sizes, *, seed: int, epoch: int) -> None:
        self.durations, self._sizes = durations, sizes
        self._seed, self._epoch = seed, epoch
        order = generator_of(seed, epoch, 0).permutation(len(durations.piece_rows) - 1)
        sums = np.concatenate([[0.0], np.cumsum(durations.seconds, dtype=np.float64)])
        edges = window_edges(np.diff(sums[durations.piece_rows])[order], sizes.window_seconds)
        self._pieces = np.split(order, edges[1:-1])
        # Costs alone: `window` sorts its rows to the same costs.
        costs = (np.sort(self._cost(self._rows(number)))[::-1] for number in range(len(self._pieces)))
        self._edges = [micro_batch_edges(cost, sizes.micro_seconds, sizes.micro_batches) for cost in costs]
        """Edges of the micro-batches of each window, its rows in the order of descending cost."""
        steps = [(len(edges) - 1) // sizes.micro_batches for edges in self._edges]
        self._first_steps: list[int] = np.cumsum([0, *steps]).tolist()
        """First step of each window, and the number of steps last."""
        self.num_steps = self._first_steps[-1]
        """Number of steps."""

    def window(self, number: int) -> Window:
        """Return a window; none depends on another."""
        generator, edges = generator_of(self._seed, self._epoch, 1, number), self._edges[number]
        rows = generator.permutation(self._rows(number))  # rows of like length are combined differently in each epoch
        cost = self._cost(rows)
        # Stable: rows of equal cost keep the order that was drawn, on every processor.
        order = np.argsort(-cost, kind="stable")
        rows, cost = rows[order], cost[order]
        # Micro-batches of like cost make a step, so that workers do not wait for each other. The durations in a step
        # still differ, since the share of the budget that whole rows leave goes up and down with the duration.
        multiple, longest = self._sizes.micro_batches, np.concatenate([cost, [0.0]])[edges[:-1]]
        steps = np.argsort(-longest * np.diff(edges), kind="stable").reshape(-1, multiple)
        order = generator.permutation(len(steps))
        if self._sizes.by_length:
            order = np.argsort(longest[steps].max(1, initial=0.0), kind="stable")
        numbers = steps[order].ravel()
        starts, lengths = edges[:-1][numbers], np.diff(edges)[numbers]
        ends = np.cumsum(lengths, dtype=np.int64)
        places = np.repeat(starts - (ends - lengths), lengths) + np.arange(len(rows))
        first, pieces = self._first_steps[number], self._pieces[number]
        edges = np.concatenate([[0], ends])
        return Window(self._epoch, number, first, pieces, rows[places], edges, multiple, self.num_steps)

    def windows_from(self, step: int) -> Iterator[Window]:
        """Yield the windows in order, from the window of a step."""
        for number, end in enumerate(self._first_steps[1:]):
            if end > step:
                yield self.window(number)

    def _cost(self, rows: Rows) -> npt.NDArray[np.float64]:
        return self._sizes.cost(self.durations.seconds[rows].astype(np.float64))

    def _rows(self, number: int) -> Rows:
        firsts = self.durations.piece_rows
        spans = [np.arange(firsts[piece], firsts[piece + 1]) for piece in self._pieces[number]]
        rows: Rows = np.concatenate([np.zeros(0, np.int64), *spans])
        kept: Rows = rows[self.durations.seconds[rows] > 0]
        return kept


def window_edges(seconds: npt.NDArray[np.float64], window_seconds: float) -> list[int]:
    """Cut pieces, in order, into windows of at most `window_seconds`; a longer piece is a window of its own.

    Args:
        seconds: duration of each piece (num_pieces,).
        window_seconds: most seconds of a window.

    Returns:
        Places at which windows begin, and the number of pieces last.
    """
    edges, window = [0], 0.0
    for place, piece_seconds in enumerate(seconds.tolist()):
        if window and window + piece_seconds > window_seconds:
            edges.append(place)
            window = 0.0
        window += piece_seconds
    if len(edges) > 1 and window < LEAST_WINDOW_SHARE * window_seconds:
        edges.pop()
    return [*edges, len(seconds)] if len(seconds) else [0]


def micro_batch_edges(cost: npt.NDArray[np.float64], budget: float, multiple: int) -> Rows:
    """Cut rows into micro-batches whose number is a multiple, so that an epoch has no incomplete step.

    The number is the smallest that the budget allows. The budget is then lowered as far as that number still suffices,
    which makes micro-batches alike. The last micro-batches are empty if there are fewer rows.

    Args:
        cost: of each row (num_rows,), descending.
        budget: most that the rows of a micro-batch cost, each as much as its first.
        multiple: number of micro-batches in a step.

    Returns:
        Places at which micro-batches begin, and the number of rows last.
    """
    costs = cost.tolist()
    starts = _starts(costs, budget)
    num_groups = -(-len(starts) // multiple) * multiple
    low, high = budget * min(0.5, len(starts) / max(num_groups, 1)), budget
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        edges = _starts(costs, middle)
        if len(edges) <= num_groups:
            high, starts = middle, edges
        else:
            low = middle
    cuts = [*starts, len(costs)]
    # The largest are halved until there are enough, or each has one row; the remaining ones are empty.
    while len(cuts) - 1 < num_groups:
        largest = max(range(len(cuts) - 1), key=lambda place: cuts[place + 1] - cuts[place])
        first, end = cuts[largest], cuts[largest + 1]
        if end - first < 2:
            break
        cuts.insert(largest + 1, (first + end) // 2)
    return np.asarray(cuts + cuts[-1:] * (num_groups + 1 - len(cuts)), np.int64)


def _starts(costs: list[float], budget: float) -> list[int]:
    starts, place = [], 0
    while place < len(costs):
        starts.append(place)
        place += max(1, int(budget / costs[place]))
    return starts


def generator_of(*key: int) -> np.random.Generator:
    """Return a generator of random numbers that are a function of a key, on every machine."""
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(key)))


Costs = npt.NDArray[np.float64]


def longest_seconds(window: Window, durations: Durations) -> Costs:
    """Return the duration of the longest row of each micro-batch, 0 for an empty one (num_steps * micro_batches,)."""
    seconds = np.append(durations.seconds[window.rows].astype(np.float64), 0.0)
    return seconds[window.edges[:-1]]  # rows of a micro-batch are in the order of descending duration


def imbalance(costs: Costs, num_workers: int) -> float:
    """Return the load of the slowest worker over the mean of all, summed over steps; 1 if there is no load.

    Args:
        costs: costs of micro-batches (num_steps, micro_batches), of which worker `w` runs `w`, `w + num_workers`, ...
        num_workers: number of workers; of more than micro-batches some have no work.
    """
    num_steps, number = costs.shape
    padded = np.zeros((num_steps, -(-number // num_workers) * num_workers))
    padded[:, :number] = costs
    loads = padded.reshape(num_steps, -1, num_workers).sum(1)
    mean = float(loads.mean(1).sum())
    return float(loads.max(1).sum()) / mean if mean else 1.0


def imbalances(costs: Costs, own: Iterable[int]) -> dict[int, float]:
    """Return the `imbalance` by numbers of workers above 1, ascending.

    The numbers divide the micro-batches of a step, are powers of two, or belong to the plan; one that does not divide
    the micro-batches is always among them, if there is any.

    Args:
        costs: as for `imbalance`.
        own: numbers of workers of the plan.
    """
    micro_batches = costs.shape[1]
    every = range(2, micro_batches + 1)
    numbers = {n for n in every if micro_batches % n == 0 or n.bit_count() == 1} | {*own}
    if all(micro_batches % n == 0 for n in numbers if n > 1):
        numbers |= {next((n for n in every if micro_batches % n), micro_batches)}
    return {number: imbalance(costs, number) for number in sorted(numbers) if number > 1}
