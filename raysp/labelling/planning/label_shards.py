"""Label shards that stand beside the shards of a source: `Shards(labels=...)`."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import pyarrow as pa

from raysp.corpus.beside import options_beside, without_ids
from raysp.corpus.sealed import SealedFile
from raysp.corpus.shards import place_of
from raysp.errors import PlanError, RayspError
from raysp.sink import commit, footer
from raysp.sink.sinks import Sink
from raysp.specs.pipeline import Shards
from raysp.storage.store import join_url
from raysp.words import count, listed


@dataclass(frozen=True)
class Found:
    """A listed shard; its footer is not read yet."""

    name: str
    """Path of its label shard."""
    url: str
    num_bytes: int
    version: str
    kind: str = "parquet"
    """Name of its kind of source."""
    part: str = ""
    labels: str = ""
    """Url of the label shard beside it; empty: there is no such shard."""
    labels_version: str = ""
    unreadable: str = ""
    """Reason why its file cannot be cut into shards; empty if it can."""


def with_label_shards(found: Sequence[Found], source: Shards) -> tuple[Found, ...]:
    """Return listed shards with the label shards beside them, of which only the places and versions are read.

    Raises:
        PlanError: `source.labels` is not a sink of labels, or some shards are not labelled there as they are now.
    """
    if source.labels is None:
        return tuple(found)
    sink = Sink.open(source.labels, options_beside(source.labels, source.urls[0], source.storage_options))
    try:
        record = sink.existing_record()
        labelled = {shard.name: shard for shard in sink.shards()}
        committed = commit.committed(sink.store, [*labelled.values()], record.fingerprint)
        versions = {entry.path: entry.version for entry in sink.store.list() if entry.path in committed.done}
    except RayspError as error:
        raise PlanError(f"source.labels: {error}") from None
    absent = [one.name for one in found if one.name not in versions]
    if reasons := [committed.foreign[name] for name in absent if name in committed.foreign]:
        raise PlanError(f"source.labels: {listed(reasons, 1)}")
    if absent:
        raise PlanError(
            f"source.labels: {sink.url} has no finished label shard for {len(absent):,} of "
            f"{count(len(found), 'shard')}, such as {absent[0]}: finish its run, and give the source.url and "
            "source.root that it has"
        )
    for one in found:
        before = labelled[one.name]
        if (before.num_bytes, before.version) != (one.num_bytes, one.version):
            raise PlanError(
                f"source.labels: {sink.url} was made from another {one.url} ({before.num_bytes:,} bytes, version "
                f"{before.version}; now {one.num_bytes:,}, version {one.version}): label it again"
            )
    return tuple(replace(one, labels=join_url(sink.url, one.name), labels_version=versions[one.name]) for one in found)


def label_schema(found: Sequence[Found], source: Shards) -> pa.Schema:
    """Return the columns of the label shards, from the first of them; none without label shards.

    Raises:
        PlanError: it cannot be read.
    """
    if source.labels is None or not found:
        return pa.schema([])
    store, name = place_of(found[0].labels, options_beside(source.labels, source.urls[0], source.storage_options))
    try:
        with footer.opened(store, name) as file:
            return without_ids(SealedFile.of(file).metadata.schema.to_arrow_schema())
    except RayspError as error:
        raise PlanError(f"source.labels: {error}") from None


def with_columns(schema: pa.Schema, labels: pa.Schema) -> pa.Schema:
    """Return the columns of a shard and of its label shard; of columns that both have, that of the label shard."""
    if not len(labels):
        return schema
    own = [field for field in schema if field.name not in labels.names]
    return pa.schema([*own, *labels])
