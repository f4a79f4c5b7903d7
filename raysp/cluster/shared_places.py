"""Check before any work that all machines of a cluster see the same files: sink, shards, recordings and checkpoint."""

import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from raysp.cluster.resources import ask, data_places, with_resource
from raysp.corpus.shards import Shard
from raysp.errors import PlanError, StoreError
from raysp.sink import layout
from raysp.sink.sinks import Sink
from raysp.specs.pipeline import Work
from raysp.storage.store import Store, scheme_of
from raysp.words import count

MOST_NODES = 8
"""Largest number of nodes checked, spread evenly over the cluster."""
APPEAR_SECONDS = 3.0
"""Time within which a file written on one machine must appear on the others."""
REMEDY = (
    "Use a location that all machines share: an object store (s3://...), or a file system mounted at the same path "
    "everywhere"
)


@dataclass(frozen=True)
class Seen:
    """A local file or folder that this process sees, and that workers will read."""

    field: str
    """Field of the pipeline that names the place."""
    place: str
    """Value of the field."""
    path: str
    num_bytes: int | None = None
    """Size of a file; None: a folder."""


def check_shared(store: Store, work: Work, shards: Mapping[str, Iterable[Shard]]) -> None:
    """Raise PlanError unless workers see the files that this process sees and writes.

    Places on object stores are shared, and local ones that are declared as `shared`. The others are checked on nodes
    that are up. The sink is checked wherever it is, unless declared, because workers may lack its credentials.

    Args:
        store: the sink.
        work: the pipeline or recipe.
        shards: shards that workers read, by the fields of their sources.

    Raises:
        PlanError: some nodes do not see the files, with the field, their number and the first one's reason; or no node
            is up to check a local place of labels or shards.
    """
    nodes = with_resource("CPU")
    nodes = nodes[:: -(-len(nodes) // MOST_NODES) or 1]
    if not nodes:  # the cluster is scaled to zero
        _refuse_unchecked(work)
        return
    sink, places = work.sink, [*_local_places(work, shards)]
    if sink.shared and not places:
        return
    path = "" if sink.shared else f"{layout.TMP}{time.time_ns():x}-seen"
    if path:
        store.create(path, b"raysp asks whether its workers see what its driver writes\n")
    try:
        answers = ask(nodes, look, sink.url, dict(sink.storage_options), path, places)
    finally:
        if path:
            store.delete(path)
    for field, place in {"sink.url": sink.url, **{local.field: local.place for local in places}}.items():
        reasons = [
            (node, answer[field]) for node, answer in zip(nodes, answers, strict=True) if answer and field in answer
        ]
        if reasons:
            node, reason = reasons[0]
            raise PlanError(
                f"{field}: {len(reasons)} of {count(len(nodes), 'node')} of the cluster cannot see the files of this "
                f"process in {place!r}; on {node['NodeManagerAddress']}: {reason}. {REMEDY}{_declared(field, place)}"
            )


def _local_places(work: Work, shards: Mapping[str, Iterable[Shard]]) -> Iterator[Seen]:
    """Yield a local file or folder of each field that is not declared as shared."""
    named = [(field, place, place) for field, place, _ in work.read_places]
    for field, source in work.sources.items():
        if source.shared:
            continue
        if shard := next((shard for shard in shards[field] if not scheme_of(shard.url)), None):
            named.append((f"{field}.url", source.urls[0], shard.url))
            named.append((f"{field}.labels", str(source.labels), shard.labels))
        named.append((f"{field}.audio_root", str(source.audio_root), source.audio_root or ""))
    for field, place, url in named:
        if url and not scheme_of(url) and Path(url).exists():  # others are ids of the hub
            path = config if (config := Path(url, "config.json")).is_file() else Path(url)
            yield Seen(field, place, str(path), path.stat().st_size if path.is_file() else None)


def _refuse_unchecked(work: Work) -> None:
    """Raise for a local place that no node can check and that is not declared as shared."""
    is_declared = {"source.url": work.source.shared, "sink.url": work.sink.shared}
    for field, place in data_places(work):
        if not scheme_of(place) and not is_declared.get(field, True):
            raise PlanError(
                f"{field}: found {place!r}, a path of this machine, and no node of the cluster is up to check that it "
                f"sees the same files. {REMEDY}{_declared(field, place)}"
            )


def _declared(field: str, place: str) -> str:
    """Return the declaration of a shared place; empty for a checkpoint, which is always checked, and on a store."""
    part = field.rpartition(".")[0]
    is_declared = not scheme_of(place) and part.rpartition(".")[2] in ("sink", "source")
    return f" (then {part}.shared=true declares it, and it is not checked)" if is_declared else ""


def look(url: str, storage_options: dict[str, object], written: str, places: list[Seen]) -> dict[str, str]:
    """Look for files on a worker, and return why some are missing or differ, by field.

    Args:
        url: url of the sink.
        storage_options: options of the sink.
        written: path of the file that the driver wrote into the sink; empty: none.
        places: files and folders to look for.
    """
    reasons: dict[str, str] = {}
    for seen in places:
        try:
            num_bytes = Path(seen.path).stat().st_size
        except OSError as error:
            reasons[seen.field] = f"{seen.path}: {error.strerror}"
        else:
            if seen.num_bytes not in (None, num_bytes):
                reasons[seen.field] = f"{seen.path}: found {num_bytes:,} bytes, expected {seen.num_bytes:,}"
    deadline = time.monotonic() + APPEAR_SECONDS
    while written:
        try:
            if (store := Sink.open(url, storage_options).store).stat(written) is not None:
                break
            reason = f"{store.url}: no such file"
        except StoreError as error:
            reason = str(error)
        if time.monotonic() > deadline:
            reasons["sink.url"] = reason
            break
        time.sleep(0.2)
    return reasons
