"""Receipts: small records of the outcome of pieces and shards, in the logs of runs (`run_log`).

They feed progress, `status` and reports. The receipt of a shard has the version of its label shard, so that a listing
of the sink shows which shards are committed. Correctness never depends on receipts: if a batch is lost, the footers of
label shards are read instead.
"""

import logging
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Self

from raysp import bounds
from raysp.columns import ERROR, OK, SKIPPED
from raysp.sink import layout, records
from raysp.sink.records import Natural
from raysp.storage.store import Store

log = logging.getLogger(__name__)

FAILED = "failed"
"""Event of a run that ended with an error."""
READ_AT_ONCE = 16
"""Batches of receipts that are read at once."""


@dataclass(frozen=True)
class Counts:
    """Counts and times of labelled rows."""

    rows: Natural = 0
    blocks: Natural = 0
    windows: Natural = 0
    """Windows that went through the model."""
    audio_seconds: float = 0.0
    real_samples: Natural = 0
    """Samples that went through the model, without padding."""
    padded_samples: Natural = 0
    """Samples that went through the model, with padding."""
    busy_seconds: float = 0.0
    """Time that models spent labelling."""
    wait_seconds: float = 0.0
    """Time that models were idle between blocks."""
    staged_bytes: Natural = 0
    """Arrow memory of the results, which the commit reads."""
    errors: Mapping[str, Natural] = field(default_factory=dict)
    """Error rows by type."""
    skipped: Mapping[str, Natural] = field(default_factory=dict)
    """Skipped rows by reason."""

    def __add__(self, other: "Counts") -> "Counts":
        return Counts.total([self, other])

    @classmethod
    def total(cls, parts: Sequence["Counts"]) -> Self:
        """Return the sum of counts."""
        values: dict[str, Any] = {name: sum(getattr(part, name) for part in parts) for name in _NUMBERS}
        for name in ("errors", "skipped"):
            kinds = Counter[str]()
            for part in parts:
                kinds.update(getattr(part, name))
            values[name] = {kind: number for kind, number in sorted(kinds.items()) if number}
        return cls(**values)

    @property
    def padding_efficiency(self) -> float | None:
        """Share of the computed samples that are not padding; None before the first block."""
        return self.real_samples / self.padded_samples if self.padded_samples else None

    @property
    def wait_share(self) -> float | None:
        """Share of time that models waited for input; None before the first block."""
        total = self.busy_seconds + self.wait_seconds
        return self.wait_seconds / total if total > 0 else None

    @property
    def by_status(self) -> dict[str, int]:
        """Rows by status."""
        errors, skipped = sum(self.errors.values()), sum(self.skipped.values())
        return {OK: self.rows - errors - skipped, SKIPPED: skipped, ERROR: errors}

    @property
    def by_type(self) -> dict[str, int]:
        """Rows by `error_type`, the reasons of skipped rows included; the most frequent first."""
        return dict((Counter(self.errors) + Counter(self.skipped)).most_common())


_NUMBERS = [one.name for one in fields(Counts) if one.name not in ("errors", "skipped")]


def json_of(result: Any, *names: str) -> dict[str, object]:  # noqa: ANN401 - of any class with `counts`
    """Return the fields of a result for JSON, with properties of these names in place of its counts."""
    values = {name: value for name, value in asdict(result).items() if name != "counts"}
    return values | {name: getattr(result, name) for name in names}


class Counted:
    """Figures of a value that holds `Counts`."""

    counts: Counts

    @property
    def rows(self) -> int:
        """Number of labelled rows."""
        return self.counts.rows

    @property
    def errors(self) -> Mapping[str, int]:
        """Error rows by type."""
        return self.counts.errors

    @property
    def skipped(self) -> Mapping[str, int]:
        """Skipped rows by reason."""
        return self.counts.skipped

    @property
    def audio_seconds(self) -> float:
        """Seconds of labelled audio."""
        return self.counts.audio_seconds

    @property
    def padding_efficiency(self) -> float | None:
        """Share of the computed samples that are not padding; None before the first block."""
        return self.counts.padding_efficiency

    @property
    def wait_share(self) -> float | None:
        """Share of time that models waited for input; None before the first block."""
        return self.counts.wait_share


@dataclass(frozen=True)
class PieceReceipt:
    """Counts of a piece, or of a part of one, that went through a model."""

    shard: str
    first: Natural
    end: Natural
    counts: Counts
    actor: str = ""
    finished: float = 0.0
    """Seconds since the epoch, by the actor's clock."""


@dataclass(frozen=True)
class ShardReceipt:
    """Counts of a committed label shard."""

    shard: str
    counts: Counts
    """Rows of the shard, of which with `rows="ok"` the label shard itself holds only those that are ok; their audio."""
    word_errors: Mapping[str, Natural] = field(default_factory=dict)
    """Counts of `WordErrors`; empty without reference texts or without a comparison."""
    filtered: Mapping[str, tuple[Natural, float]] = field(default_factory=dict)
    """Rows that conditions of `Keep` steps left out, and seconds of their decoded audio, by the place of each."""
    filtered_behind: Natural = 0
    """Rows that steps behind the model left out in this commit; the receipts of their pieces count them as ok."""
    failed_behind: Natural = 0
    """Rows for which such a step failed; the receipts of their pieces count them as ok."""
    existing: bool = False
    """Whether the shard was committed before, by another run or a concurrent task."""
    version: str = ""
    """Version of the label shard that this commit published; empty if it published none, or the store has none."""
    fingerprint: str = ""
    """Fingerprint of the pipeline."""
    input_id: str = ""
    """Input id of the shard."""
    file_id: str = ""
    """Hash of settings that change the file but no label: the columns carried over and the rows left out."""


@dataclass(frozen=True)
class ShardFailure:
    """Reason why a shard was not committed."""

    shard: str
    reason: str


Receipt = PieceReceipt | ShardReceipt | ShardFailure

KINDS: Mapping[str, type[Receipt]] = {"piece": PieceReceipt, "shard": ShardReceipt, "failure": ShardFailure}
KIND_OF = {cls: kind for kind, cls in KINDS.items()}


def recent_pieces(store: Store, run_id: str, batches: int = 3) -> tuple[list[PieceReceipt], str]:
    """Return the piece receipts of a run's last batches, and the error that ended the run; empty if none did."""
    prefix = layout.log_prefix(run_id)
    paths = sorted(entry.path for entry in store.list(layout.LOG) if entry.path.startswith(prefix))
    pieces, reason = list[PieceReceipt](), ""
    for path in paths[-batches:]:
        data = store.read(path)
        pieces += (one for one in _parsed(store, path, data, ("piece",)) if isinstance(one, PieceReceipt))
        for line in data.splitlines():
            if line.startswith(f'{{"kind": "{FAILED}"'.encode()):
                with suppress(ValueError):
                    reason = str(records.parse(line, dict[str, object]).get("reason"))
    return pieces, reason


def load(
    store: Store, kinds: Collection[str] = tuple(KINDS), paths: Sequence[str] | None = None
) -> Iterator[tuple[str, Receipt]]:
    """Yield the ids of runs with their receipts of these kinds, in the order of runs and writing.

    Unreadable receipts are logged and skipped.

    Args:
        store: the sink.
        kinds: keys of `KINDS`.
        paths: the batches to read; None: all, which are listed.
    """
    paths = [entry.path for entry in store.list(layout.LOG)] if paths is None else paths
    with ThreadPoolExecutor(READ_AT_ONCE) as pool:
        for start in range(0, len(paths), READ_AT_ONCE):
            window = paths[start : start + READ_AT_ONCE]
            for path, data in zip(window, pool.map(store.read, window), strict=True):
                yield from ((layout.run_of_log(path), receipt) for receipt in _parsed(store, path, data, kinds))


def _parsed(store: Store, path: str, data: bytes, kinds: Collection[str]) -> Iterator[Receipt]:
    beginnings = tuple(f'{{"kind": "{kind}"'.encode() for kind in kinds)
    for line in data.splitlines():
        if not line.startswith(beginnings):
            continue
        try:
            fields = records.parse(line, dict[str, object])
            fields.pop("time")
            yield records.checked(fields, KINDS[str(fields.pop("kind"))])
        except (ValueError, KeyError) as error:
            log.warning("%s/%s: skipped a receipt that cannot be read (%s)", store.url, path, bounds.plain(error))
