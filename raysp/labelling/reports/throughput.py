"""Speed of the runs over a sink, from the receipts of their pieces; memory does not grow with the pieces."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

import numpy as np

from raysp.evaluation.scores import UNDEFINED
from raysp.pages import page_charts
from raysp.pages.axes import Floats, value_axis
from raysp.pages.page_charts import Chart
from raysp.pages.page_tables import MOST_RUNS, Table, earlier, short, when
from raysp.sink.receipts import Counts, PieceReceipt
from raysp.sink.run_record import RunEntry
from raysp.words import duration

MOST_INTERVALS = 240
"""Intervals of time that are counted."""
MOST_SHOWN = 60
MOST_ACTORS = 16
MOST_KNOWN = 1000
"""Most actors, and most runs, that are listed one by one."""
LONGEST = 10 * 366 * 86400.0
"""Seconds of the longest run; receipts with later times are not counted over time."""
OTHERS = "other actors"
_AUDIO, _BUSY, _WAITED = range(3)
_UNITS = ((7200.0, 3600.0, "hours"), (120.0, 60.0, "minutes"), (0.0, 1.0, "seconds"))
_RUN_ID = "%Y%m%dT%H%M%S%fZ"


class Timeline:
    """Amounts over the time of a run, in intervals that double when they do not suffice.

    Args:
        start: start of the run, in seconds since the epoch.
    """

    def __init__(self, start: float) -> None:
        self._start = start
        self.seconds = 1.0
        """Seconds of an interval."""
        self.amounts: Floats = np.zeros((MOST_INTERVALS, 3))
        """Seconds of labelled audio, seconds of labelling, and seconds of waiting for input."""

    def add(self, piece: PieceReceipt) -> None:
        """Spread a piece over the time in which it was awaited and labelled."""
        end = piece.finished - self._start
        times = (end, piece.counts.busy_seconds, piece.counts.wait_seconds, piece.counts.audio_seconds)
        if not all(math.isfinite(one) and abs(one) <= LONGEST for one in times):
            return
        end = max(0.0, end)
        while end >= self.seconds * MOST_INTERVALS:
            halves = self.amounts.reshape(-1, 2, 3).sum(1)
            self.amounts = np.concatenate([halves, np.zeros_like(halves)])
            self.seconds *= 2
        begun = end - piece.counts.busy_seconds
        self._spread(begun, end, _AUDIO, piece.counts.audio_seconds)
        self._spread(begun, end, _BUSY, piece.counts.busy_seconds)
        self._spread(begun - piece.counts.wait_seconds, begun, _WAITED, piece.counts.wait_seconds)

    def _spread(self, begin: float, end: float, kind: int, amount: float) -> None:
        begin, end = max(0.0, begin), max(0.0, end)
        edges = self.seconds * np.arange(MOST_INTERVALS + 1)
        shares = np.clip(np.minimum(end, edges[1:]) - np.maximum(begin, edges[:-1]), 0, None)
        if shares.sum() > 0:
            self.amounts[:, kind] += amount * shares / shares.sum()
        else:
            self.amounts[min(int(end // self.seconds), MOST_INTERVALS - 1), kind] += amount

    def shown(self, pieces: int) -> tuple[Floats, Floats]:
        """Return the ends of intervals in seconds, and the amounts in them, up to the last piece.

        Args:
            pieces: number of pieces, on average at least two an interval.
        """
        used = np.flatnonzero(self.amounts.any(axis=1))
        number = int(used[-1]) + 1 if used.size else 1
        step = max(1, math.ceil(number / max(1, min(MOST_SHOWN, pieces // 2))))
        first = np.arange(0, number, step)
        amounts: Floats = np.add.reduceat(self.amounts[:number], first, axis=0)
        return self.seconds * np.minimum(first + step, number), amounts


@dataclass
class RunWork:
    """Pieces of a run."""

    counts: Counts = field(default_factory=Counts)
    start: float = 0.0
    """Begin of the run, in seconds since the epoch."""
    end: float = 0.0
    actors: dict[str, Counts] = field(default_factory=dict)
    timeline: Timeline = field(default_factory=lambda: Timeline(0.0))

    def add(self, piece: PieceReceipt) -> None:
        """Count a piece."""
        self.counts += piece.counts
        self.end = max(self.end, piece.finished)
        is_known = piece.actor in self.actors or len(self.actors) < MOST_KNOWN
        name = piece.actor if is_known else OTHERS
        self.actors[name] = self.actors.get(name, Counts()) + piece.counts
        self.timeline.add(piece)

    @property
    def wall_seconds(self) -> float | None:
        """Seconds from the start of the run to its last piece, start-up included; None if clocks disagree."""
        return self.end - self.start if self.end > self.start else None

    @property
    def rtfx(self) -> float | None:
        """Seconds of audio labelled per wall-clock second."""
        return self.counts.audio_seconds / self.wall_seconds if self.wall_seconds else None


def work_of_runs(pieces: Iterable[tuple[str, PieceReceipt]]) -> dict[str, RunWork]:
    """Return the work of the last runs by their ids, from receipts in the order of runs."""
    found: dict[str, RunWork] = {}
    for run_id, piece in pieces:
        if run_id not in found:
            start = started(run_id)
            found[run_id] = RunWork(start=start, timeline=Timeline(start))
            if len(found) > MOST_RUNS:
                del found[next(iter(found))]
        found[run_id].add(piece)
    return found


def started(run_id: str) -> float:
    """Return the start of a run in seconds since the epoch, from its id; 0 if the id has no time."""
    try:
        return datetime.strptime(run_id.partition("-")[0], _RUN_ID).replace(tzinfo=UTC).timestamp()
    except ValueError:
        return 0.0


def charts_of(work: RunWork) -> list[Chart]:
    """Return the charts of a run over time: its speed, and the share of time that models waited."""
    ends, amounts = work.timeline.shown(work.counts.blocks)
    if len(ends) < 2:
        return []
    unit, name = next((unit, name) for least, unit, name in _UNITS if ends[-1] >= least)
    seconds = np.diff(ends, prepend=0.0)
    speed = amounts[:, _AUDIO] / seconds
    total = amounts[:, _BUSY] + amounts[:, _WAITED]
    waited = np.divide(amounts[:, _WAITED], total, out=np.zeros_like(total), where=total > 0)
    across = f"{name} since the run began"
    note = f"means of {duration(seconds[0])}" if seconds[0] >= 60 else f"means of {seconds[0]:g} s"
    mean = f"mean {work.rtfx:,.1f}" if work.rtfx else ""
    share = f"{work.counts.wait_share:.1%} of the time" if work.counts.wait_share is not None else ""
    return [
        _over_time("Throughput", f"seconds of audio a second, {note}", mean, across, ends / unit, speed),
        _over_time("Waiting for input", f"share of the time of the models, {note}", share, across, ends / unit, waited),
    ]


def _over_time(title: str, note: str, figure: str, across: str, ends: Floats, values: Floats) -> Chart:
    is_share = title.startswith("Waiting")
    x, y = value_axis(np.append(0.0, ends), from_zero=True), value_axis(values, from_zero=True, is_share=is_share)
    places, heights = x.places(np.append(0.0, ends)), y.places(np.append(values[:1], values))
    ground = y.places(np.zeros(len(heights)))
    band = page_charts.area(places, ground, heights)
    return Chart(title, note, figure, x, y, line=page_charts.line(places, heights), band=band, across=across)


def runs_table(runs: Mapping[str, RunWork], entries: Sequence[RunEntry]) -> Table:
    """Return a table of the last runs with their labelled rows."""
    packages = [name for name in ("raysp", "torch", "ray") if any(name in one.versions for one in entries)]
    rows = []
    for entry in entries[-MOST_RUNS:][::-1]:
        work = runs.get(entry.run_id, RunWork())
        took = duration(work.wall_seconds) if work.wall_seconds else UNDEFINED
        speed = f"{work.rtfx:,.1f}" if work.rtfx else UNDEFINED
        versions = (short(entry.versions.get(name), 30) for name in packages)
        place = (when(entry.started), short(entry.host, 40))
        rows.append((*place, f"{work.counts.rows:,}", duration(work.counts.audio_seconds), took, speed, *versions))
    return Table("Runs", ("began", "host", "rows", "audio", "took", "RTFx", *packages), rows, earlier(entries))


def actors_table(work: RunWork) -> Table | None:
    """Return a table of the actors of a run; None if they are many, or one."""
    if not 1 < len(work.actors) <= MOST_ACTORS:
        return None
    rows = []
    for name, one in sorted(work.actors.items()):
        share = f"{one.wait_share:.1%}" if one.wait_share is not None else UNDEFINED
        speed = f"{one.audio_seconds / one.busy_seconds:,.1f}" if one.busy_seconds else UNDEFINED
        rows.append((short(name, 60), f"{one.rows:,}", duration(one.audio_seconds), speed, share))
    return Table("Actors of the last run", ("actor", "rows", "audio", "RTFx while busy", "waited"), rows)
