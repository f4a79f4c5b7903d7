"""What a run knows of itself while it goes on."""

import time
from collections import Counter
from dataclasses import dataclass, field

from raysp.ops.remedies import FILTERED


@dataclass(frozen=True)
class Example:
    """One error row."""

    shard: str
    row: int
    error_type: str
    message: str


@dataclass
class Progress:
    """Counts since the run began; seconds are of wall clock unless they are of audio."""

    rows_total: int
    """Rows of pieces that this run has to do."""
    shards_total: int
    shards_committed: int = 0
    """Shards whose label shard is there, from this run or before."""
    rows: int = 0
    audio_seconds: float = 0.0
    real_samples: int = 0
    """That went through the model."""
    padded_samples: int = 0
    """The same with the padding."""
    busy_seconds: float = 0.0
    """Of all actors."""
    wait_seconds: float = 0.0
    """In which actors had nothing to do, since their first block."""
    blocks: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    """Error rows by type."""
    skipped: Counter[str] = field(default_factory=Counter)
    """Rows that were left unlabelled on purpose, by reason."""
    committed: Counter[str] = field(default_factory=Counter)
    """Rows of the shards that this run committed: "ok", or by `error_type`; without shards whose rows were retried."""
    examples: list[Example] = field(default_factory=list)
    """A few error rows."""
    begun_rows: int = 0
    """Rows of pieces that have given a block."""
    begun_seconds: float = 0.0
    """Audio in those pieces, as the headers of their recordings claim."""
    done_seconds: float = 0.0
    """Of `begun_seconds`, what is done: whole pieces, and of the others what was labelled."""
    started: float = field(default_factory=lambda: time.monotonic())
    _first: tuple[float, int, float] | None = None

    @property
    def wall_seconds(self) -> float:
        """Measure since the run began."""
        return time.monotonic() - self.started

    @property
    def rtfx(self) -> float:
        """Divide audio seconds by wall seconds."""
        return self.audio_seconds / max(self.wall_seconds, 1e-9)

    @property
    def padding_efficiency(self) -> float | None:
        """Divide the samples that went through the model by what was computed; None before there are any."""
        return self.real_samples / self.padded_samples if self.padded_samples else None

    @property
    def wait_share(self) -> float | None:
        """Tell the share of time that models waited for input; None before there is any."""
        total = self.busy_seconds + self.wait_seconds
        return self.wait_seconds / total if total else None

    @property
    def num_errors(self) -> int:
        """Count error rows."""
        return sum(self.errors.values())

    @property
    def unlabelled(self) -> Counter[str]:
        """Rows by `error_type`, where none was labelled though some should have been; else empty."""
        found = self.errors + self.skipped or +self.committed
        some_ok = self.rows > found.total() or found["ok"] or self.committed["ok"]
        return Counter() if some_ok or not found.keys() - {FILTERED} else found

    @property
    def total_seconds(self) -> float | None:
        """Audio of all rows to do, if those of pieces that are not begun are as long as the others; None: unknown."""
        if not self.begun_seconds or not self.begun_rows:
            return None
        return self.begun_seconds * max(self.rows_total, self.begun_rows) / self.begun_rows

    @property
    def share(self) -> float:
        """Share of the work that is done: of its audio where its length is known, else of its rows."""
        if total := self.total_seconds:
            return min(1.0, self.done_seconds / total)
        return self.rows / self.rows_total if self.rows_total else 1.0

    @property
    def eta_seconds(self) -> float | None:
        """Estimate the seconds left from the speed since the first block; None before there is any."""
        if self._first is None:
            return None
        since, rows, seconds = self._first
        total = self.total_seconds
        done, left = (
            (self.done_seconds - seconds, total - self.done_seconds)
            if total
            else (self.rows - rows, self.rows_total - self.rows)
        )
        return max(left, 0) * (time.monotonic() - since) / done if done > 0 else None

    def add_block(self, rows: int, audio_seconds: float) -> None:
        """Count a finished block."""
        self.rows += rows
        self.blocks += 1
        self.audio_seconds += audio_seconds
        # Starting Ray and loading the model say nothing of the speed, so the estimate begins here.
        self._first = self._first or (time.monotonic(), self.rows, self.done_seconds)
