"""Metrics of a run for Prometheus. The driver writes them, and Ray exports them on the driver's node as `ray_<name>`.

Every metric also has the label `sink`, the url of the labels: on a cluster that serves several runs, each has its own
values, and a run that continues another one adds to its counters. Runs without Ray write nothing. A local Ray that a
run starts for itself exports nothing.
"""

import logging
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import NamedTuple

from raysp.labelling.engine.run_progress import Progress
from raysp.sink import sinks

logger = logging.getLogger(__name__)

SINK = "sink"
TRY_OUT = "try-out"
"""Value of `sink` for the temporary sinks of try-outs, so that their number adds no time series."""
WRITE_SECONDS = 2.0
"""Least time between two writes; Ray exports every ten seconds."""

Write = Callable[[float, dict[str, str]], object]
"""Callable that adds a value to a counter or sets a gauge, by the values of its labels."""


class Metric(NamedTuple):
    """Declaration of a metric: a counter if its name ends with `_total`, else a gauge."""

    name: str
    description: str
    label: str = ""
    """Label besides `sink`; empty: no other label."""

    @property
    def is_counter(self) -> bool:
        """Whether the metric is a counter."""
        return self.name.endswith("_total")


METRICS = (
    Metric(
        "raysp_rows_total",
        "Rows of staged pieces, which no later run labels again, by status: ok, skipped or error",
        "status",
    ),
    Metric("raysp_audio_seconds_total", "Decoded audio in staged pieces"),
    Metric("raysp_errors_total", "Error rows of staged pieces, by error_type", "error_type"),
    Metric(
        "raysp_blocks_labelled_total",
        "Labelled blocks; those of a piece that is labelled again after crashes count once",
    ),
    Metric(
        "raysp_shards_committed_total",
        "Label shards that the run committed, each once; those committed before it are not included",
    ),
    Metric("raysp_pieces_in_flight", "Pieces taken by workers and not staged yet; 0 after the run"),
    Metric("raysp_rtfx", "Seconds of audio labelled per second of wall-clock time, the start of the run included"),
    Metric("raysp_padding_efficiency", "Share of the samples computed by the model that are audio and not padding"),
    Metric(
        "raysp_wait_share",
        "Share of the time of model actors, since the first block of each, in which they waited for input",
    ),
    Metric(
        "raysp_batch_memory_bytes",
        "Highest memory of a model actor so far: allocated by torch on its GPU, or resident if it computes on CPUs",
    ),
)


def values_of(progress: Progress) -> dict[str, Mapping[str, float | None]]:
    """Return the values of each metric by the value of its label, or by ""; None: not known yet.

    Those of a counter never decrease.
    """
    single = {
        "raysp_audio_seconds_total": progress.staged.audio_seconds,
        "raysp_blocks_labelled_total": progress.counts.blocks,
        "raysp_shards_committed_total": progress.new_commits,
        "raysp_pieces_in_flight": len(progress.in_flight),
        "raysp_rtfx": progress.rtfx,
        "raysp_padding_efficiency": progress.padding_efficiency,
        "raysp_wait_share": progress.wait_share,
        "raysp_batch_memory_bytes": progress.memory_bytes or None,
    }
    by_label = {"raysp_rows_total": progress.staged.by_status, "raysp_errors_total": progress.staged.errors}
    return {**by_label, **{name: {"": value} for name, value in single.items()}}


class Exporter(AbstractContextManager["Exporter"]):
    """Writes the metrics of one run. A failure to write is logged once, and never ends the run. Ray is connected.

    Args:
        sink: url of the sink.
        progress: the state of the run, which is written a last time at the end.
    """

    def __init__(self, sink: str, progress: Progress) -> None:
        from ray.util.metrics import Counter, Gauge

        self._tags = {SINK: TRY_OUT if sinks.is_trial(sink) else sink}
        self._progress = progress
        self._write: dict[str, Write] = {}
        for metric in METRICS:
            declared = metric.name, metric.description, (SINK, metric.label) if metric.label else (SINK,)
            self._write[metric.name] = Counter(*declared).inc if metric.is_counter else Gauge(*declared).set
        self._written: dict[tuple[str, str], float] = {}
        """Values of counters so far, by name and label."""
        self._last = float("-inf")
        self._failed = False

    def __exit__(self, *_: object) -> None:
        """Write the last state of the run."""
        self._progress.in_flight.clear()
        self.write()

    def __call__(self, _: Progress) -> None:
        """Write the state of the run, unless it was written less than `WRITE_SECONDS` ago."""
        if time.monotonic() - self._last >= WRITE_SECONDS:
            self.write()

    def write(self) -> None:
        """Write the state of the run."""
        self._last = time.monotonic()
        if self._failed:
            return
        try:
            values = values_of(self._progress)
            for metric in METRICS:
                for label, value in values[metric.name].items():
                    before = self._written.get((metric.name, label), 0.0)
                    if value is None or (metric.is_counter and value <= before):
                        continue
                    tags = {**self._tags, metric.label: label} if metric.label else self._tags
                    self._write[metric.name](value - before if metric.is_counter else value, tags)
                    if metric.is_counter:
                        self._written[metric.name, label] = value
        except Exception as error:
            self._failed = True
            logger.warning("metrics are not written any more (%s: %s)", type(error).__name__, error)
