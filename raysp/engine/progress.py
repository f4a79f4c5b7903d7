"""What a run knows of itself while it goes on."""

import time
from collections import Counter
from dataclasses import dataclass, field


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
    examples: list[str] = field(default_factory=list)
    """A few error messages."""
    started: float = field(default_factory=lambda: time.monotonic())
    _first: tuple[float, int] | None = None

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
    def eta_seconds(self) -> float | None:
        """Estimate what is left from the rows since the first block; None before there are any."""
        if self._first is None or self.rows <= self._first[1]:
            return None
        since, rows = self._first
        return max(self.rows_total - self.rows, 0) * (time.monotonic() - since) / (self.rows - rows)

    def add_block(self, rows: int, audio_seconds: float) -> None:
        """Count a finished block."""
        self.rows += rows
        self.blocks += 1
        self.audio_seconds += audio_seconds
        # Starting Ray and loading the model say nothing of the speed, so the estimate begins here.
        self._first = self._first or (time.monotonic(), self.rows)
