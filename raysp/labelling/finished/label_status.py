"""Progress of a sink of label shards, from its plan, a listing and receipts.

Label shards without a receipt of their version are counted by their footers.

Nothing is written, so it works on sinks of other users and on sinks with an active run.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Self

from raysp.bounds import plain
from raysp.columns import ERROR, OK, SKIPPED
from raysp.errors import ChangedError
from raysp.labelling.finished.kept_rows import KeptRows, kept_rows, recorded_rules
from raysp.labelling.planning.trust import open_recorded
from raysp.ops.rows import WITHDRAWN
from raysp.sink import lease, stage
from raysp.sink.absent import Gone
from raysp.sink.absent import load as load_absent
from raysp.sink.commit import outcomes
from raysp.sink.label_rows import load_forgotten
from raysp.sink.lease import Running
from raysp.sink.receipts import Counts, PieceReceipt, ShardFailure, ShardReceipt, WordErrors, json_of, recent_pieces
from raysp.sink.run_log import log_files
from raysp.sink.run_record import RunEntry
from raysp.specs.pipeline import fingerprint as hash_parts
from raysp.words import Brief, count, duration, listed
from raysp.work import SinkRequest, run_fact

SHOWN_TYPES = 5
"""Types of errors that `facts` names."""
MOST_NAMED = 100
"""Ids and shards of each kind in `Withdrawn`."""
FEW_NAMED = 3
"""Of these, named in `facts`."""
MOST_STOPPED = 300
"""Characters of the error of a run."""


@dataclass(frozen=True)
class Withdrawn:
    """Recordings that the source no longer has, and recordings that `raysp forget` withdrew."""

    recordings: int = 0
    """Recordings of folders that the last run did not find, without those that are forgotten."""
    ids: tuple[str, ...] = ()
    """Ids of the first of them."""
    shards: int = 0
    """Label shards whose shards the last run did not find, without those whose rows are all forgotten."""
    shard_names: tuple[str, ...] = ()
    """The first of them."""
    forgotten: int = 0
    """Ids that `raysp forget` withdrew."""
    forgotten_ids: tuple[str, ...] = ()
    """The first of them."""

    @classmethod
    def of(cls, gone: Gone, forgotten: Collection[str], rest: Collection[str]) -> Self:
        """Return the figures of a sink; `rest` are label shards whose rows are all forgotten."""
        ids = [id_ for id_ in gone.ids if id_ not in forgotten]
        shards = [name for name in gone.shards if name not in rest]
        return cls(
            gone.recordings - len(gone.ids) + len(ids),
            tuple(ids[:MOST_NAMED]),
            len(shards),
            tuple(shards[:MOST_NAMED]),
            len(forgotten),
            tuple(sorted(forgotten)[:MOST_NAMED]),
        )

    def facts(self, sink: str) -> dict[str, str]:
        """Facts to print, by name."""
        named = ((self.recordings, "recording", self.ids), (self.shards, "shard", self.shard_names))
        gone = [_some(number, noun, names) for number, noun, names in named if number]
        remedy = f"no longer in the source; `raysp forget {sink} ID...` removes their labels"
        forgotten = f"{_some(self.forgotten, 'id', self.forgotten_ids)}; their labels were removed"
        return {
            **({"gone": f"{' and '.join(gone)}: {remedy}"} if gone else {}),
            **({"forgotten": forgotten} if self.forgotten else {}),
        }


def _some(number: int, noun: str, names: Sequence[str]) -> str:
    """Return a number with the first names."""
    more = f", and {number - FEW_NAMED:,} more" if number > FEW_NAMED else ""
    return f"{count(number, noun)} ({', '.join(names[:FEW_NAMED])}{more})"


@dataclass(frozen=True, repr=False)
class Status(Brief):
    """Progress of a sink of label shards."""

    sink: str
    fingerprint: str
    shards: int
    """Planned shards, and the shards of `unreadable`."""
    shards_committed: int
    shards_staged: int
    """Uncommitted shards with some staged results, from which the next run continues."""
    rows: int
    """Planned rows; shards that could not be read have none."""
    counts: Counts
    """Of the rows of committed shards, and their decoded audio."""
    word_errors: WordErrors | None
    """Word errors of the first transcript; None without references, or if all label shards predate these counts."""
    failed: Mapping[str, str]
    """Shards that could not be committed, with the reason."""
    foreign: Mapping[str, str]
    """Shards with a file in their place that this sink's pipeline did not make from their input, with the reason."""
    last_run: RunEntry | None
    running: Running = Running.NO
    holder: str = ""
    """Current or last holder of the lease: user, host, process and start."""
    rows_staged: int = 0
    """Labelled rows of uncommitted shards, kept for the next run."""
    rows_per_second: float | None = None
    """Speed of the active runs, or of the last one, in their last minutes, from receipts; None: too few receipts."""
    last_receipt: float | None = None
    """Time of the last receipt, in seconds since the epoch by the clock of its writer."""
    checkpoint_digest: str | None = None
    """Hash of the weights, configuration and tokenizer that the labels were made with."""
    event_log: str | None = None
    """Glob of the files with the events of the last run, as JSON lines; None: no run began."""
    unreadable: Mapping[str, str] = field(default_factory=dict)
    """Shards of `failed` that the last plan could not read, with the reason."""
    kept: tuple[KeptRows, ...] = ()
    """Rows of committed shards that come into each step that filters, and leave it; empty without such steps."""
    withdrawn: Withdrawn = Withdrawn()
    """Recordings and shards that left the source since they were planned, and ids that were forgotten."""
    stopped: str | None = None
    """Error that ended the last run; None: no error did."""

    @property
    def rows_committed(self) -> int:
        """Rows of committed shards."""
        return self.counts.rows

    @property
    def ok(self) -> int:
        """Rows with a label."""
        return self.counts.by_status[OK]

    @property
    def skipped(self) -> int:
        """Skipped rows."""
        return self.counts.by_status[SKIPPED]

    @property
    def error(self) -> int:
        """Error rows."""
        return self.counts.by_status[ERROR]

    @property
    def errors_by_type(self) -> Mapping[str, int]:
        """Rows by `error_type`, the reasons of skipped rows included; the most frequent first."""
        return self.counts.by_type

    @property
    def audio_seconds(self) -> float:
        """Seconds of decoded audio in committed shards."""
        return self.counts.audio_seconds

    @property
    def word_error_rate(self) -> float | None:
        """Word errors divided by reference words; None without references."""
        return self.word_errors.rate if self.word_errors else None

    @property
    def eta_seconds(self) -> float | None:
        """Seconds left at the last speed; None if no run can be active, the speed is unknown, or no rows are left."""
        left = self.rows - self.rows_committed - self.rows_staged
        if self.running in (Running.NO, Running.KILLED) or not self.rows_per_second or left <= 0:
            return None
        return left / self.rows_per_second

    @property
    def is_complete(self) -> bool:
        """Whether every shard of the source is committed, as far as the last plan listed it."""
        return self.shards_committed == self.shards and not self.unreadable

    @property
    def facts(self) -> dict[str, object]:
        """Facts that `raysp status` prints, by name."""
        begun = f", {self.shards_staged:,} more begun" if self.shards_staged else ""
        share = self.rows_committed / self.rows if self.rows else 1.0
        readable = " of the shards that can be read" if self.unreadable else ""
        staged = f", {self.rows_staged:,} more labelled" if self.rows_staged else ""
        speed = f"{self.rows_per_second:.1f} rows a second" if self.rows_per_second else None
        return {
            "run": run_fact(self, self.last_receipt, "result"),
            "stopped": self.stopped and plain(self.stopped, MOST_STOPPED),
            "shards": f"{self.shards_committed:,} of {count(self.shards, 'shard')} committed{begun}",
            "rows": f"{self.rows_committed:,} of {count(self.rows, 'row')} committed ({share:.0%}){readable}{staged}",
            "time left": self.eta_seconds and f"{duration(self.eta_seconds)}, at {speed}",
            "audio": f"{duration(self.audio_seconds)} in committed shards" if self.audio_seconds else None,
            "labels": f"{self.ok:,} ok, {self.skipped:,} skipped, {count(self.error, 'error')}",
            "reasons": listed([f"{number:,} {kind}" for kind, number in self.errors_by_type.items()], SHOWN_TYPES),
            "kept": "; ".join(step.sentence for step in self.kept) or None,
            "word errors": self.word_errors and self.word_errors.sentence,
            "failed": listed([f"{name}: {reason}" for name, reason in self.failed.items()], 1),
            "foreign": listed([f"{name}: {reason}" for name, reason in self.foreign.items()], 1),
            **self.withdrawn.facts(self.sink),
        }

    @property
    def line(self) -> str:
        """The progress as one line."""
        done = self.rows_committed + self.rows_staged
        share = done / self.rows if self.rows else 1.0
        parts = (
            f"{done:,} of {count(self.rows, 'row')} done ({share:.0%})",
            f"{self.shards_committed:,} of {count(self.shards, 'shard')} committed",
            f"{count(len(self.unreadable), 'shard')} cannot be read" if self.unreadable else "",
            count(self.error, "error") if self.error else "",
            f"time left {duration(self.eta_seconds)}" if self.eta_seconds is not None else "",
        )
        return ", ".join(filter(None, parts))

    @property
    def json(self) -> dict[str, object]:
        """Fields and figures, as `raysp status --json` prints them."""
        of_counts = ("rows_committed", "ok", "skipped", "error", "errors_by_type", "audio_seconds")
        return json_of(self, *of_counts, "word_error_rate", "eta_seconds")


def label_status(request: SinkRequest) -> Status:
    """Return the progress of a sink of label shards; only the sink is read.

    Raises:
        PlanError: there is no sink at this place.
    """
    opened, record = open_recorded(request)
    store, shards = opened.store, opened.shards()
    recorded = load_absent(store)
    absent = {shard.name: shard.reason for shard in recorded.shards}
    committed: dict[str, ShardReceipt] = {}
    failed: dict[str, str] = {}
    foreign: dict[str, str] = {}
    for name, outcome in outcomes(store, shards.values(), record.fingerprint, file_id=hash_parts(record.file_parts)):
        match outcome:
            case ShardReceipt():
                committed[name] = outcome
            case ShardFailure():
                failed[name] = outcome.reason
            case ChangedError():
                foreign[name] = str(outcome)
    counted = [*committed.values()]
    counts = ((receipt.shard, receipt.counts) for receipt in counted)
    rest = {name for name, rows in counts if rows.rows and rows.skipped.get(WITHDRAWN) == rows.rows}
    staged = stage.listed(store, shards.values(), record.staged_as)
    begun = staged.keys() - committed
    runs = record.runs
    recent, stopped = recent_pieces(store, runs[-1].run_id) if runs else ([], "")
    holder = lease.holder(store)
    running = _running(holder, runs[-1] if stopped else None)  # at once: the run may end meanwhile
    return Status(
        sink=store.url,
        fingerprint=record.fingerprint,
        shards=len({*shards, *absent}),
        shards_committed=len(committed),
        shards_staged=len(begun),
        rows=sum(shard.num_rows for shard in shards.values()),
        counts=sum((receipt.counts for receipt in counted), Counts()),
        kept=kept_rows(recorded_rules(record), counted),
        word_errors=sum((receipt.word_errors for receipt in counted), WordErrors()) or None,
        failed={**{name: reason for name, reason in failed.items() if name not in committed}, **absent},
        unreadable=absent,
        foreign=foreign,
        last_run=runs[-1] if runs else None,
        running=running,
        holder=holder.words if holder else "",
        rows_staged=sum(
            tile.rows.num_rows
            for name in begun
            for piece in shards[name].pieces
            for tile in stage.tiles(piece, staged[name])
        ),
        rows_per_second=_speed(recent),
        last_receipt=max((receipt.finished for receipt in recent), default=None),
        checkpoint_digest=record.checkpoint_digest,
        event_log=log_files(store, runs[-1].run_id) if runs else None,
        withdrawn=Withdrawn.of(recorded.gone, load_forgotten(store), rest),
        stopped=stopped or None,
    )


def _running(holder: lease.Holder | None, ended: RunEntry | None) -> Running:
    """Return whether a run is active; one that wrote why it ended, and could not release its lease, is not."""
    running = holder.running if holder else Running.NO
    if holder and running is Running.KILLED and ended and holder.since <= ended.started:
        return Running.NO
    return running


def _speed(blocks: Sequence[PieceReceipt]) -> float | None:
    """Return rows per second between the first and the last block; None if they do not determine a speed."""
    times = sorted((block.finished, block.counts.rows) for block in blocks if block.finished)
    if len(times) < 2 or times[-1][0] <= times[0][0]:
        return None
    # Rows of the first block were labelled before the first of these times.
    return sum(rows for _, rows in times[1:]) / (times[-1][0] - times[0][0])
