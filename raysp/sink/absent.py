"""`.raysp/absent.json`: shards of a source that the plan of a sink lacks, because they could not be read.

The file holds the result of the last plan, so a shard leaves it when it can be read and joins the plan. Without it a
sink would be complete as soon as its readable shards are. It also names shards and recordings of the plan that the
source no longer has.
"""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Self

from raysp import bounds
from raysp.corpus.shards import Shard
from raysp.errors import StoreError
from raysp.sink import layout, records
from raysp.sink.records import Natural
from raysp.storage.store import Store

MOST_IDS = 10_000


@dataclass(frozen=True)
class AbsentShard:
    """A shard without a place in the plan."""

    name: str
    """Path that its label shard would have."""
    url: str
    reason: str
    num_bytes: Natural = 0
    version: str = ""
    kind: str = "parquet"
    part: str = ""

    @classmethod
    def of(cls, shard: Shard, reason: str) -> Self:
        """Return the record of a shard."""
        return cls(shard.name, shard.url, reason, shard.num_bytes, shard.version, shard.kind, shard.part)

    @property
    def shard(self) -> Shard:
        """The shard without rows and input id, which keeps the place of a slice among the slices of its origin."""
        return Shard(self.name, self.url, self.num_bytes, self.version, 0, "", (), self.kind, self.part)


@dataclass(frozen=True)
class Gone:
    """Shards and recordings of the plan that the last run did not find in the source."""

    shards: tuple[str, ...] = ()
    """Names of label shards."""
    recordings: Natural = 0
    """Recordings of folders."""
    ids: tuple[str, ...] = ()
    """Ids of these recordings, at most `MOST_IDS`."""


@dataclass(frozen=True)
class Absent:
    """Content of the record."""

    shards: tuple[AbsentShard, ...] = ()
    """Shards of the source without a place in the plan, sorted by name."""
    gone: Gone = Gone()


def load(store: Store) -> Absent:
    """Return the record of the last plan; an empty one before the first.

    Raises:
        StoreError: it cannot be read.
    """
    if store.stat(layout.ABSENT) is None:
        return Absent()
    try:
        return records.parse(store.read(layout.ABSENT), Absent)
    except ValueError as error:
        raise StoreError(
            f"{store.url}/{layout.ABSENT}: not a record of shards ({bounds.plain(error)}); remove it and run again, "
            "which records the shards that cannot be read"
        ) from error


def record(store: Store, shards: Iterable[AbsentShard], gone: Gone = Gone()) -> None:
    """Replace the record; nothing is written if it is the same already."""
    current = Absent(tuple(sorted(shards, key=lambda shard: shard.name)), gone)
    if current != load(store):
        value = asdict(current)
        if gone == Gone():
            del value["gone"]
        store.replace(layout.ABSENT, json.dumps(value, indent=1).encode())
