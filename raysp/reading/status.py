"""How far a sink is: from its plan, markers and receipts, and footers of label shards only where a receipt is missing.

Nothing is written, so a sink that others own, or that a run is busy with, can be asked.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TypedDict

from raysp.corpus.shards import Shard
from raysp.errors import ChangedError
from raysp.planning.trust import open_recorded
from raysp.sink import footer, layout, lease, plan_record, receipts, stopping
from raysp.sink.commit import committed, for_each
from raysp.sink.receipts import BlockReceipt, ShardFailure, ShardReceipt, recent_blocks
from raysp.sink.run_record import RunEntry
from raysp.sink.stage import is_complete, staged
from raysp.sink.word_errors import WordErrors
from raysp.specs.pipeline import Pipeline
from raysp.specs.pipeline import fingerprint as hash_parts
from raysp.storage.store import Store
from raysp.words import brief


class Running(StrEnum):
    """Whether a run is at work on a sink, as far as this machine can know."""

    YES = "yes"
    NO = "no"
    KILLED = "killed"
    """Its process is gone, and it did not say that it ended."""
    ELSEWHERE = "elsewhere"
    """It runs, or ran, on another machine, and did not say that it ended."""


@dataclass(frozen=True, repr=False)
class Status:
    """How far a sink is; all of it turns into JSON by `dataclasses.asdict`."""

    sink: str
    fingerprint: str
    shards: int
    shards_committed: int
    shards_staged: int
    """Not committed, but some results are kept: the next run goes on from there."""
    rows: int
    """Planned."""
    rows_committed: int
    ok: int
    skipped: int
    error: int
    errors_by_type: Mapping[str, int]
    """Rows by `error_type`, the reasons of skipped rows included; the most frequent first."""
    audio_seconds: float
    """Decoded, in committed shards."""
    word_errors: WordErrors | None
    """Of the first transcript; None where no row has a reference, or all label shards are older than these counts."""
    failed: Mapping[str, str]
    """Shards that could not be committed, and why."""
    foreign: Mapping[str, str]
    """Shards in whose place lies something that this sink's pipeline did not make of their input, and what."""
    last_run: RunEntry | None
    running: Running = Running.NO
    holder: str = ""
    """Who is at work, or was last: user, host, process and since when."""
    rows_staged: int = 0
    """Of shards that are not committed: labelled, and kept for the next run."""
    rows_per_second: float | None = None
    """Of the last run in its last minutes, by its receipts; None: too few yet."""
    last_receipt: float | None = None
    """Seconds since the epoch, by the clock of whoever wrote it."""
    checkpoint_digest: str | None = None
    """Hash of the weights, configuration and tokenizer that the labels were made by."""

    def __repr__(self) -> str:
        """Return a screen at most."""
        return brief(self)

    @property
    def eta_seconds(self) -> float | None:
        """Seconds that a run at work still takes at its last speed; None where none is known to be."""
        left = self.rows - self.rows_committed - self.rows_staged
        if self.running in (Running.NO, Running.KILLED) or not self.rows_per_second or left <= 0:
            return None
        return left / self.rows_per_second

    @property
    def is_complete(self) -> bool:
        """Tell whether every planned shard is committed."""
        return self.shards_committed == self.shards


def status(
    sink: str | Store,
    storage_options: Mapping[str, object] | None = None,
    *,
    pipeline: Pipeline | None = None,
    trust: bool = False,
) -> Status:
    """Return the progress of a sink; all of it is read in the sink alone.

    Args:
        sink: where label shards are.
        storage_options: how to reach it; None: those of `pipeline`, or as recorded where that may be used.
        pipeline: that made the labels; only its storage options are used.
        trust: reach the sink by the recorded options, whoever recorded them.

    Raises:
        PlanError: There is no sink at the place.
    """
    store, record = open_recorded(sink, storage_options, pipeline=pipeline, trust=trust)
    shards = plan_record.load(store)
    found = committed(store, shards, record.fingerprint, mend=False, file_id=hash_parts(record.file_parts))
    blocks = staged(store, shards, stopping.load(store).stage_id(record.fingerprint))
    begun = blocks.keys() - found.done
    last_run = record.runs[-1] if record.runs else None
    recent = recent_blocks(store, last_run.run_id) if last_run else []
    written, failed = _last_receipts(store)
    counted = _count(store, [shard for shard in shards if shard.name in found.done], record.fingerprint, written)
    by_type: Counter[str] = Counter()
    word_errors = WordErrors()
    for receipt in counted:
        by_type.update(receipt.errors_by_type)
        word_errors.add(receipt.word_errors)
    return Status(
        sink=store.url,
        fingerprint=record.fingerprint,
        shards=len(shards),
        shards_committed=len(found.done),
        shards_staged=len(begun),
        rows=sum(shard.num_rows for shard in shards),
        rows_committed=sum(receipt.rows for receipt in counted),
        ok=sum(receipt.ok for receipt in counted),
        skipped=sum(receipt.skipped for receipt in counted),
        error=sum(receipt.error for receipt in counted),
        errors_by_type=dict(by_type.most_common()),
        audio_seconds=sum(receipt.seconds for receipt in counted),
        word_errors=word_errors if word_errors.to_counts() else None,
        failed={name: reason for name, reason in failed.items() if name not in found.done},
        foreign=found.foreign,
        last_run=last_run,
        **_activity(store),
        rows_staged=sum(piece.num_rows for name in begun for piece, done in blocks[name].items() if is_complete(done)),
        rows_per_second=_speed(recent),
        last_receipt=max((receipt.finished for receipt in recent), default=None),
        checkpoint_digest=next(
            (str(one) for key, one in record.parts.items() if key.endswith(".checkpoint_digest")), None
        ),
    )


def _activity(store: Store) -> "_Activity":
    holder = lease.last_holder(store)
    if holder is None or holder.is_over:
        was_killed = holder is not None and not holder.released and holder.process.is_known_dead()
        running = Running.KILLED if was_killed else Running.NO
    else:
        running = Running.YES if holder.process.is_known_alive() else Running.ELSEWHERE
    return {"running": running, "holder": holder.words if holder else ""}


class _Activity(TypedDict):
    running: Running
    holder: str


def _speed(blocks: Sequence[BlockReceipt]) -> float | None:
    """Return rows a second between the first and the last of some blocks."""
    times = sorted((block.finished, block.rows) for block in blocks if block.finished)
    if len(times) < 2 or times[-1][0] <= times[0][0]:
        return None
    return sum(rows for _, rows in times[1:]) / (times[-1][0] - times[0][0])


def _last_receipts(store: Store) -> tuple[dict[str, ShardReceipt], dict[str, str]]:
    """Collect what was last said of every shard: its receipt, or why it failed."""
    written: dict[str, ShardReceipt] = {}
    failed: dict[str, str] = {}
    for receipt in receipts.load(store, kinds=("shard", "failure")):
        if isinstance(receipt, ShardReceipt):
            written[receipt.shard] = receipt
        elif isinstance(receipt, ShardFailure):
            failed[receipt.shard] = receipt.reason
    return written, failed


def _count(
    store: Store, shards: Sequence[Shard], fingerprint: str, written: Mapping[str, ShardReceipt]
) -> list[ShardReceipt]:
    """Return the counts of committed shards: of their receipts where these must hold still, else of their footers.

    A killed retry or relabelling may have replaced a label shard and left no receipt of it. A retry replaces only label
    shards with error rows.
    """
    is_relabelled = store.stat(layout.RELABELLED) is not None

    def count(shard: Shard) -> ShardReceipt:
        receipt = None if is_relabelled else written.get(shard.name)
        return receipt if receipt and not receipt.error else _footer(store, shard, fingerprint)

    return for_each(count, shards)


def _footer(store: Store, shard: Shard, fingerprint: str) -> ShardReceipt:
    try:
        return footer.read_expected(store, shard, fingerprint)
    except ChangedError:  # its marker says otherwise: something was put in its place by hand
        return ShardReceipt(shard.name, rows=0, ok=0, skipped=0, error=0)
