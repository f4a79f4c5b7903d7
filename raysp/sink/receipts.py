"""Receipts: small records of what became of blocks and shards, appended in batches that are never rewritten.

They feed progress, `status` and reports. Nothing that must be right depends on them: a lost batch costs a look into
the footers of label shards.
"""

import json
import logging
from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict, dataclass, field

from raysp.sink import layout
from raysp.storage.store import Store

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class BlockReceipt:
    """What a model did with one block."""

    shard: str
    first: int
    end: int
    k: int
    of: int
    """0 on all blocks of a piece but the last."""
    rows: int
    """That end here: a row of several windows counts where its last one is."""
    windows: int
    """That went through the model."""
    audio_seconds: float
    real_samples: int
    padded_samples: int
    """Samples that went through the model, padding included."""
    load_seconds: float
    """Time that the model waited for and unpacked its input."""
    forward_seconds: float
    actor: str
    finished: float = 0.0
    """Seconds since the epoch, by the actor's clock."""
    staged_bytes: int = 0
    """Of Arrow memory, that the commit reads."""


@dataclass(frozen=True)
class ShardReceipt:
    """What a committed label shard holds."""

    shard: str
    rows: int
    """Of the shard: with `rows="ok"` the label shard itself holds only `ok` of them."""
    ok: int
    skipped: int
    error: int
    errors_by_type: Mapping[str, int] = field(default_factory=dict)
    """Rows by `error_type`, the reasons of skipped rows included."""
    seconds: float = 0.0
    """Of decoded audio."""
    word_errors: Mapping[str, int] = field(default_factory=dict)
    """Counts of `WordErrors`; empty where no row has a reference text, or nothing was compared with it."""
    existing: bool = False
    """It had been committed before, by another run or a racing task."""


@dataclass(frozen=True)
class ShardFailure:
    """Why a shard was not committed."""

    shard: str
    reason: str


Receipt = BlockReceipt | ShardReceipt | ShardFailure

KINDS: Mapping[str, type[Receipt]] = {"block": BlockReceipt, "shard": ShardReceipt, "failure": ShardFailure}
_KIND_OF = {cls: kind for kind, cls in KINDS.items()}


class ReceiptLog:
    """Collects a run's receipts and writes them out in numbered batches."""

    def __init__(self, store: Store, run_id: str) -> None:
        self._store = store
        self._run_id = run_id
        self._number = 0
        self._lines: list[str] = []

    def __len__(self) -> int:
        """Count the receipts that are not written yet."""
        return len(self._lines)

    def add(self, receipt: Receipt) -> None:
        """Take a receipt; it is lost if the process ends before `flush`."""
        self._lines.append(json.dumps({"kind": _KIND_OF[type(receipt)], **asdict(receipt)}))

    def flush(self) -> None:
        """Write what was added since the last time as one new file; on failure it stays for the next time."""
        if not self._lines:
            return
        data = "".join(f"{line}\n" for line in self._lines).encode()
        while not self._store.create(layout.receipts_path(self._run_id, self._number), data):
            self._number += 1
        self._number += 1
        self._lines.clear()


def recent_blocks(store: Store, run_id: str, batches: int = 3) -> list[BlockReceipt]:
    """Return the block receipts of the last batches that a run has written."""
    prefix = layout.receipts_prefix(run_id)
    paths = sorted(entry.path for entry in store.list(layout.RECEIPTS) if entry.path.startswith(prefix))
    found = (receipt for path in paths[-batches:] for receipt in _read(store, path, ("block",)))
    return [receipt for receipt in found if isinstance(receipt, BlockReceipt)]


def load(store: Store, kinds: Collection[str] = tuple(KINDS)) -> Iterator[Receipt]:
    """Yield all receipts of these kinds, in the order of runs and writing; what cannot be read is logged."""
    for entry in store.list(layout.RECEIPTS):
        yield from _read(store, entry.path, kinds)


def _read(store: Store, path: str, kinds: Collection[str]) -> Iterator[Receipt]:
    beginnings = tuple(f'{{"kind": "{kind}"'.encode() for kind in kinds)
    for line in store.read(path).splitlines():
        if not line.startswith(beginnings):
            continue
        try:
            fields = json.loads(line)
            yield KINDS[fields.pop("kind")](**fields)
        except (ValueError, TypeError, KeyError) as error:
            log.warning("%s/%s: skipped a receipt that cannot be read (%s)", store.url, path, error)
