"""Check before any work that all machines of a cluster see the same files: sink, shards, recordings and checkpoint."""

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from raysp.cluster.nodes import Node, ask, with_resource
from raysp.corpus.shards import Shard
from raysp.errors import PlanError, StoreError
from raysp.sink import layout
from raysp.sink.sinks import Sink
from raysp.specs.pipeline import Shards, Work
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


def check_shared(store: Store, work: Work, places: Iterable[Seen]) -> None:
    """Raise PlanError unless workers see the files that this process sees and writes.

    Places on object stores are shared, and local ones that are declared as `shared`. The others are checked on nodes
    that are up. The sink is checked wherever it is, unless declared, because workers may lack its credentials.

    Args:
        store: the sink.
        work: the pipeline or recipe.
        places: local places that workers read and that are not declared as shared.

    Raises:
        PlanError: some nodes do not see the files, with the field, their number and the first one's reason; or no node
            is up to check a local place of labels or shards.
    """
    nodes = _nodes()
    if not nodes:
        _refuse_unchecked(work)
        return
    places = list(places)
    if work.sink.shared:
        _check(work, nodes, places, "")
        return
    path = f"{layout.TMP}{time.time_ns():x}-seen"
    store.create(path, b"raysp asks whether its workers see what its driver writes\n")
    try:
        _check(work, nodes, places, path)
    finally:
        store.delete(path)


def _check(work: Work, nodes: list[Node], places: list[Seen], written: str) -> None:
    """Raise PlanError for the first field whose files some nodes do not see."""
    if not places and not written:
        return
    sink = work.sink
    answers = ask(nodes, _look, sink.url, dict(sink.storage_options), written, places)
    found = [(node["NodeManagerAddress"], answer or {}) for node, answer in zip(nodes, answers, strict=True)]
    for field, what in _described(work, places).items():
        if blind := [(node, reasons[field]) for node, reasons in found if field in reasons]:
            node, reason = blind[0]
            shared = "" if scheme_of(sink.url) and field == "sink.url" else _declared(field)
            raise PlanError(
                f"{field}: {len(blind)} of {count(len(nodes), 'node')} of the cluster cannot see {what}; on {node}: "
                f"{reason}. {REMEDY}{shared}"
            )


def _described(work: Work, places: Iterable[Seen]) -> dict[str, str]:
    """Return a description of the files of each field."""
    files = {one.field: f"the files that this process sees in {one.place!r}" for one in places}
    return {"sink.url": f"the files that this process writes to {work.sink.url!r}", **files}


def places_of_source(field: str, source: Shards, shards: Iterable[Shard]) -> Iterator[Seen]:
    """Yield a shard, its labels and the folder of its recordings, as far as they are local and not declared."""
    if source.shared:
        return
    shard = next((one for one in shards if not scheme_of(one.url)), None)
    if shard is not None:
        yield seen(f"{field}.url", source.urls[0], Path(shard.url))
        if shard.labels and not scheme_of(shard.labels):
            yield seen(f"{field}.labels", str(source.labels), Path(shard.labels))
    if source.audio_root is not None and not scheme_of(source.audio_root):
        yield seen(f"{field}.audio_root", source.audio_root, Path(source.audio_root))


def place_of_checkpoint(field: str, checkpoint: str, folder: Callable[[], Path]) -> Iterator[Seen]:
    """Yield the configuration of a checkpoint in a local folder."""
    if not scheme_of(checkpoint) and Path(checkpoint).is_dir():
        yield seen(field, checkpoint, folder() / "config.json")


def seen(field: str, place: str, path: Path) -> Seen:
    """Return a place as this process sees it."""
    return Seen(field, place, str(path), path.stat().st_size if path.is_file() else None)


def _refuse_unchecked(work: Work) -> None:
    """Raise for a local place that no node can check and that is not declared as shared."""
    source, sink = work.source, work.sink
    local = [url for url in source.urls if source.split is None and not scheme_of(url)]
    if local and not source.shared:
        raise PlanError(_unchecked("source.url", local[0]))
    if not scheme_of(sink.url) and not sink.shared:
        raise PlanError(_unchecked("sink.url", sink.url))


def _unchecked(field: str, place: str) -> str:
    return (
        f"{field}: found {place!r}, a path of this machine, and no node of the cluster is up to check that it sees the "
        f"same files. {REMEDY}{_declared(field)}"
    )


def _declared(field: str) -> str:
    """Return the declaration of a shared place; empty for a checkpoint, which is always checked."""
    part = field.rpartition(".")[0]
    is_declared = part == "sink" or part.rpartition(".")[2] == "source"
    return f" (then {part}.shared=true declares it, and it is not checked)" if is_declared else ""


def _nodes() -> list[Node]:
    """Return up to `MOST_NODES` nodes on which workers can run now; empty while the cluster is scaled to zero."""
    nodes = with_resource("CPU")
    return nodes[:: -(-len(nodes) // MOST_NODES)] if nodes else []


def _look(url: str, storage_options: dict[str, object], written: str, places: list[Seen]) -> dict[str, str]:
    """Look for files on a worker, and return why some are missing or differ, by field.

    Args:
        url: url of the sink.
        storage_options: options of the sink.
        written: path of the file that the driver wrote into the sink; empty: none.
        places: files and folders to look for.
    """
    reasons = {one.field: reason for one in places if (reason := _difference(one))}
    if written and (reason := _look_in_sink(url, storage_options, written)):
        reasons["sink.url"] = reason
    return reasons


def _difference(seen: Seen) -> str:
    """Return the difference of a place on this machine; empty if it has the same size."""
    path = Path(seen.path)
    try:
        num_bytes = path.stat().st_size
    except OSError as error:
        return f"{seen.path}: {error.strerror}"
    if seen.num_bytes is not None and num_bytes != seen.num_bytes:
        return f"{seen.path}: found {num_bytes:,} bytes, expected {seen.num_bytes:,}"
    return ""


def _look_in_sink(url: str, storage_options: dict[str, object], path: str) -> str:
    deadline = time.monotonic() + APPEAR_SECONDS
    while True:
        try:
            if (store := Sink.open(url, storage_options).store).stat(path) is not None:
                return ""
            reason = f"{store.url}: no such file"
        except StoreError as error:
            reason = str(error)
        if time.monotonic() > deadline:
            return reason
        time.sleep(0.2)
