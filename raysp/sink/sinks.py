"""A sink as one value: its store, its records and its label shards; and the sink of a try-out, removed at its end.

Other packages open a sink only by `Sink`, and leave the paths in it (`layout`) to this package. The commit protocol
itself (`commit`, `stage`, `lease`, `receipts`) works on any `Store`.
"""

import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple, Self

from raysp.corpus.shards import Shard
from raysp.errors import PlanError, StoreError
from raysp.sink import absent, layout, plan_record, run_record
from raysp.sink.absent import AbsentShard
from raysp.sink.fencing import FencedStore
from raysp.sink.lease import Lease
from raysp.sink.run_record import RunRecord
from raysp.specs.pipeline import Parquet
from raysp.storage.options import GivenOptions
from raysp.storage.store import Store, join_url, normalise, scheme_of
from raysp.storage.stores import open_store


class Registered(NamedTuple):
    """Where a kind of work is defined, and how its sinks are known."""

    work: str
    """The class of the work, as `module:name`."""
    record: str
    """The file that marks its sinks."""
    module: str
    """The module that answers as `raysp.work.Kind`."""
    sink: str = "a sink of labels"
    """Sinks of the kind, in words."""
    remedy: str = ""
    """Remedy for such a sink where labels are expected."""


KINDS = {
    "pipeline": Registered("raysp.specs.pipeline:Pipeline", layout.RUN, "raysp.labelling.kind_of_labelling"),
    "recipe": Registered(
        "raysp.training.specs.recipe:Finetune",
        layout.RECIPE,
        "raysp.training.kind_of_training",
        "the sink of a training",
        "`raysp status` shows its progress, and `raysp inspect` checks its checkpoint",
    ),
}
"""Kinds by the nouns of their work. The first is the kind of labels, and of sinks without a record."""


@dataclass(frozen=True)
class Sink:
    """A folder that receives label shards, with its records below `.raysp/`."""

    store: Store

    @classmethod
    def open(cls, place: str | Store, storage_options: GivenOptions | None = None) -> Self:
        """Return the sink at a url or in a store, without access to it. It need not exist yet.

        Raises:
            StoreError: as `open_store`.
        """
        return cls(open_store(place, storage_options) if isinstance(place, str) else place)

    @classmethod
    def of(cls, parquet: Parquet) -> Self:
        """Return the sink of a pipeline, without access to it.

        Raises:
            StoreError: as `open_store`.
        """
        return cls(open_store(parquet.url, parquet.storage_options))

    @property
    def url(self) -> str:
        """Url of the folder."""
        return self.store.url

    def fenced(self, own: Lease) -> Self:
        """Return the sink as the holder of its lease writes it."""
        return replace(self, store=FencedStore(self.store, own.epoch, own))

    def record(self) -> RunRecord | None:
        """Return the record of the runs; None if there was none yet.

        Raises:
            PlanError: as `run_record.load`.
        """
        return run_record.load(self.store)

    def existing_record(self) -> RunRecord:
        """Return the record of the runs of a sink that must exist.

        Raises:
            PlanError: there is no sink of label shards here, or as `run_record.load`.
        """
        if (record := self.record()) is not None:
            return record
        if other := self.other_kind():
            raise PlanError(f"{self.url}: {other.sink}, without label shards; {other.remedy}")
        records = " nor ".join(kind.record for kind in KINDS.values())
        raise PlanError(
            f"{self.url}: not a sink of raysp: found neither {records}; give the folder that a run wrote to, or the "
            "pipeline file"
        )

    def refuse_other_kind(self) -> None:
        """Raise if the folder is a sink of another kind: labels need a folder of their own.

        Raises:
            PlanError: the folder holds another kind of work; the message has its url.
        """
        if other := self.other_kind():
            raise PlanError(f"{self.url}: {other.sink}; choose another folder for the labels")

    def other_kind(self) -> Registered | None:
        """Return the kind whose record is there, unless it is the kind of labels."""
        _, *other_kinds = KINDS.values()
        return next((kind for kind in other_kinds if self.store.stat(kind.record) is not None), None)

    def shards(self) -> dict[str, Shard]:
        """Return the recorded shards by name, in the order of recording; empty if nothing was recorded."""
        return plan_record.load(self.store)

    def absent(self) -> tuple[AbsentShard, ...]:
        """Return the shards of the source that the plan lacks, because the last plan could not read them."""
        return absent.load(self.store).shards

    def label_shards(self) -> Iterator[str]:
        """Yield the paths of all files that readers read as label shards, sorted."""
        for entry in self.store.list():
            if layout.is_label_shard(entry.path):
                yield entry.path

    def holds_results(self, staged_as: str) -> bool:
        """Return whether there are label shards, or staged results with this id, which a run would use."""
        names = (layout.parse_stage_path(entry.path) for entry in self.store.list(layout.STAGE))
        return any(name and name.fingerprint == staged_as for name in names) or any(self.label_shards())

    def remove_report(self) -> None:
        """Remove the report, if any: it shows label shards that are about to be replaced."""
        self.store.delete(layout.REPORT)

    def forget_plan(self) -> None:
        """Remove the recorded plan and the receipts. Only valid while no result depends on them."""
        for entry in [*self.store.list(layout.PLAN), *self.store.list(layout.LOG)]:
            self.store.delete(entry.path)


@dataclass(frozen=True)
class SinkState:
    """Records of a sink. Without staged or committed results they bind no plan: the next run replaces them."""

    record: RunRecord | None = None
    shards: Mapping[str, Shard] = field(default_factory=dict)
    """Planned shards by name."""
    absent: tuple[AbsentShard, ...] = ()
    """Shards that the last plan could not read."""
    has_results: bool = False

    @classmethod
    def of(cls, sink: Sink) -> Self:
        """Read the state of a sink that need not exist.

        Raises:
            PlanError, StoreError: a record cannot be read.
        """
        record = sink.record()
        if record is None:
            return cls()
        return cls(record, sink.shards(), sink.absent(), sink.holds_results(record.staged_as))

    @property
    def binding_record(self) -> RunRecord | None:
        """The record that a pipeline must agree with."""
        return self.record if self.has_results else None


@contextmanager
def trial_sink(sink: Parquet, *, is_shared: bool) -> Iterator[Parquet]:
    """Yield a sink for a try-out: a temporary folder, or a place below the real sink if other machines write too."""
    if not is_shared:
        with tempfile.TemporaryDirectory(prefix="raysp-") as folder:
            yield replace(sink, url=folder, storage_options={})
        return
    place = normalise(sink.url)
    lent = replace(sink, url=join_url(place, f"{layout.TRIAL}{time.time_ns()}"))
    folders = (Path(place), *Path(place).parents)
    before = None if scheme_of(place) else next(filter(Path.exists, folders))
    try:
        yield lent
    finally:
        if before is None:
            _clear(lent)
        else:
            _remove_folders(Path(lent.url), before)


def is_trial(url: str) -> bool:
    """Return whether a url names the sink of a try-out on a cluster."""
    return f"/{layout.TRIAL}" in url


def trial_of(path: str) -> str:
    """Return the name of the try-out that a file of a sink belongs to; empty: of none."""
    name, _, rest = path.removeprefix(layout.TRIAL).partition("/")
    return name if path.startswith(layout.TRIAL) and rest else ""


def _clear(sink: Parquet) -> None:
    with suppress(StoreError):
        store = Sink.of(sink).store
        for entry in list(store.list()):
            store.delete(entry.path)


def _remove_folders(folder: Path, before: Path) -> None:
    """Remove a folder, and its empty parents below `before`, which existed earlier."""
    shutil.rmtree(folder, ignore_errors=True)
    with suppress(OSError):
        for place in folder.parents:
            if place == before:
                break
            place.rmdir()
