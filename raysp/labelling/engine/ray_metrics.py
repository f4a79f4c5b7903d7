"""Metrics of a run for Prometheus. The driver writes them, and Ray exports them on the driver's node as `ray_<name>`.

Every metric also has the label `sink`, the url of the labels: on a cluster that serves several runs, each has its own
values, and a run that continues another one adds to its counters. Runs without Ray write nothing. A local Ray that a
run starts for itself exports nothing.
"""

import contextlib
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from raysp.cluster.addresses import is_connected
from raysp.labelling.engine.run_progress import Progress
from raysp.sink import trial

logger = logging.getLogger(__name__)

SINK = "sink"
TRY_OUT = "try-out"
"""Value of `sink` for the temporary sinks of try-outs, so that their number adds no time series."""
WRITE_SECONDS = 2.0
"""Least time between two writes; Ray exports every ten seconds."""

Values = Mapping[str, float | None]
"""Values by the value of the metric's label, or by "" without one; None: not known yet."""


class Kind(StrEnum):
    """Type of a metric in Prometheus."""

    COUNTER = "counter"
    GAUGE = "gauge"


@dataclass(frozen=True)
class Metric:
    """Declaration of a metric."""

    name: str
    kind: Kind
    unit: str
    description: str
    read: Callable[[Progress], Values]
    """Returns the values for a state of the run; those of a counter never decrease."""
    label: str = ""
    """Label beside `sink`; empty: no other label."""


METRICS = (
    Metric(
        "raysp_rows_total",
        Kind.COUNTER,
        "rows",
        "Rows of staged pieces, which no later run labels again, by status: ok, skipped or error",
        lambda progress: progress.staged.by_status,
        "status",
    ),
    Metric(
        "raysp_audio_seconds_total",
        Kind.COUNTER,
        "seconds",
        "Decoded audio in staged pieces",
        lambda progress: {"": progress.staged.audio_seconds},
    ),
    Metric(
        "raysp_errors_total",
        Kind.COUNTER,
        "rows",
        "Error rows of staged pieces, by error_type",
        lambda progress: progress.staged.errors,
        "error_type",
    ),
    Metric(
        "raysp_blocks_labelled_total",
        Kind.COUNTER,
        "blocks",
        "Labelled blocks; those of a piece that is labelled again after crashes count once",
        lambda progress: {"": progress.counts.blocks},
    ),
    Metric(
        "raysp_shards_committed_total",
        Kind.COUNTER,
        "shards",
        "Label shards that the run committed, each once; those committed before it are not included",
        lambda progress: {"": progress.new_commits},
    ),
    Metric(
        "raysp_pieces_in_flight",
        Kind.GAUGE,
        "pieces",
        "Pieces that workers were given and that are not staged; 0 after the run",
        lambda progress: {"": len(progress.in_flight)},
    ),
    Metric(
        "raysp_rtfx",
        Kind.GAUGE,
        "ratio",
        "Seconds of audio labelled per second since the run began, the start of workers included",
        lambda progress: {"": progress.rtfx},
    ),
    Metric(
        "raysp_padding_efficiency",
        Kind.GAUGE,
        "ratio",
        "Share of the samples computed by the model that are audio and not padding",
        lambda progress: {"": progress.padding_efficiency},
    ),
    Metric(
        "raysp_wait_share",
        Kind.GAUGE,
        "ratio",
        "Share of the time of model actors, since the first block of each, in which they waited for input",
        lambda progress: {"": progress.wait_share},
    ),
    Metric(
        "raysp_batch_memory_bytes",
        Kind.GAUGE,
        "bytes",
        "Highest memory of a model actor so far: allocated by torch on its GPU, or resident if it computes on CPUs",
        lambda progress: {"": progress.memory_bytes or None},
    ),
)


class Writer(Protocol):
    """Destination of values."""

    def add(self, name: str, value: float, tags: Mapping[str, str]) -> None:
        """Increase a counter by a positive value."""
        ...

    def set(self, name: str, value: float, tags: Mapping[str, str]) -> None:
        """Set a gauge."""
        ...


class RayWriter:
    """Metrics of this process in Ray."""

    def __init__(self) -> None:
        from ray.util.metrics import Counter, Gauge

        tags = {one.name: tuple(filter(None, (SINK, one.label))) for one in METRICS}
        counters = (one for one in METRICS if one.kind is Kind.COUNTER)
        gauges = (one for one in METRICS if one.kind is Kind.GAUGE)
        self._counters = {one.name: Counter(one.name, _described(one), tags[one.name]) for one in counters}
        self._gauges = {one.name: Gauge(one.name, _described(one), tags[one.name]) for one in gauges}

    def add(self, name: str, value: float, tags: Mapping[str, str]) -> None:
        """Increase a counter by a positive value."""
        self._counters[name].inc(value, dict(tags))

    def set(self, name: str, value: float, tags: Mapping[str, str]) -> None:
        """Set a gauge."""
        self._gauges[name].set(value, dict(tags))


class Exporter:
    """Writes the metrics of one run. A failure to write is logged once, and never ends the run.

    Args:
        sink: url of the sink.
        writer: destination of values.
        clock: monotonic clock.
    """

    def __init__(self, sink: str, writer: Writer, clock: Callable[[], float] = time.monotonic) -> None:
        self._tags = {SINK: TRY_OUT if trial.is_trial(sink) else sink}
        self._writer = writer
        self._clock = clock
        self._written: dict[tuple[str, str], float] = {}
        """Values of counters so far, by name and label."""
        self._last = float("-inf")
        self._failed = False

    def __call__(self, progress: Progress) -> None:
        """Write a state of the run, unless one was written less than `WRITE_SECONDS` ago."""
        if self._clock() - self._last >= WRITE_SECONDS:
            self.write(progress)

    def write(self, progress: Progress) -> None:
        """Write a state of the run."""
        self._last = self._clock()
        if self._failed:
            return
        try:
            for metric in METRICS:
                for label, value in metric.read(progress).items():
                    if value is not None:
                        self._write(metric, label, value)
        except Exception as error:
            self._failed = True
            logger.warning("metrics are not written any more (%s: %s)", type(error).__name__, error)

    def _write(self, metric: Metric, label: str, value: float) -> None:
        tags = {**self._tags, metric.label: label} if metric.label else self._tags
        if metric.kind is Kind.GAUGE:
            self._writer.set(metric.name, value, tags)
            return
        key = (metric.name, label)
        if (added := value - self._written.get(key, 0.0)) > 0:
            self._writer.add(metric.name, added, tags)
            self._written[key] = value


@contextlib.contextmanager
def exported(sink: str, progress: Progress) -> Iterator[Callable[[Progress], None]]:
    """Yield a function that writes states of a run, if Ray is connected; at the end its last state is written."""
    if not is_connected():
        yield lambda _: None
        return
    exporter = Exporter(sink, RayWriter())
    try:
        yield exporter
    finally:
        progress.in_flight.clear()
        exporter.write(progress)


def _described(metric: Metric) -> str:
    return f"{metric.description} ({metric.unit})."
