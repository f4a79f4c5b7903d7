"""`.raysp/absent.json`: shards of a source that the plan of a sink lacks, because they could not be read.

The file holds the result of the last plan, so a shard leaves it when it can be read and joins the plan. Without it a
sink would be complete as soon as its readable shards are.
"""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass

from raysp import bounds
from raysp.corpus.shards import Shard
from raysp.errors import StoreError
from raysp.sink import layout
from raysp.storage.store import Store


@dataclass(frozen=True)
class AbsentShard:
    """A shard without a place in the plan."""

    name: str
    """Path that its label shard would have."""
    url: str
    reason: str
    num_bytes: int = 0
    version: str = ""
    kind: str = "parquet"
    part: str = ""

    @property
    def shard(self) -> Shard:
        """The shard without rows and input id, which keeps the place of a slice among the slices of its origin."""
        return Shard(self.name, self.url, self.num_bytes, self.version, 0, "", (), self.kind, self.part)


def load(store: Store) -> tuple[AbsentShard, ...]:
    """Return the recorded shards, sorted by name.

    Raises:
        StoreError: the record cannot be read.
    """
    if store.stat(layout.ABSENT) is None:
        return ()
    try:
        return tuple(AbsentShard(**one) for one in bounds.parse_record(store.read(layout.ABSENT))["shards"])
    except (ValueError, KeyError, TypeError) as error:
        raise StoreError(
            f"{store.url}/{layout.ABSENT}: not a record of shards ({bounds.plain(error)}); remove it and run again, "
            "which records the shards that cannot be read"
        ) from error


def record(store: Store, shards: Iterable[AbsentShard]) -> None:
    """Replace the recorded shards; nothing is written if they are recorded already."""
    found = tuple(sorted(shards, key=lambda one: one.name))
    if found != load(store):
        store.replace(layout.ABSENT, json.dumps({"shards": [asdict(one) for one in found]}, indent=1).encode())
