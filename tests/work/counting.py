"""A kind of work that counts the files of its sources."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from raysp.sink.lease import Running
from raysp.sink.orphans import Orphan
from raysp.sink.sinks import Sink
from raysp.specs.pipeline import Parquet, Shards
from raysp.specs.values import spec
from raysp.storage.store import Store
from raysp.work import EstimateOptions, PlanPart, SinkRequest

COUNT = ".raysp/count.txt"


@spec
class Counting:
    """Count files."""

    NOUN: ClassVar = "counting"
    VERB: ClassVar = "count"
    LABELS_SHARDS: ClassVar = False

    source: Shards
    sink: Parquet
    name: str | None = None
    steps: ClassVar = ()
    read_places: ClassVar = ()
    labelled_by: ClassVar = None

    @property
    def sources(self) -> dict[str, Shards]:
        return {"source": self.source}

    def run(self) -> None:
        Sink.of(self.sink).store.replace(COUNT, str(len(self.source.urls)).encode())


@dataclass(frozen=True)
class Counted:
    sink: str
    files: int
    running: Running = Running.NO
    holder: str = ""
    last_run: None = None

    @property
    def facts(self) -> Mapping[str, object]:
        return {"files": self.files}

    line = "counted"
    json = property(dataclasses.asdict)


@dataclass(frozen=True)
class Time:
    facts: Sequence[tuple[str, str]] = (("time", "1 s"),)
    messages: Sequence[str] = ()


def estimate(work: Counting, options: EstimateOptions) -> Time:
    return Time()


def plan_parts(work: Counting, options: EstimateOptions, on_indexed: Callable[[int, int], None]) -> Iterator[PlanPart]:
    yield PlanPart([("to count", work.source.urls[0]), *Time().facts], json={"estimate": dataclasses.asdict(Time())})


def opened(request: SinkRequest) -> Store:
    return Sink.open(request.place, request.storage_options).store


def progress(request: SinkRequest) -> Counted:
    store = opened(request)
    return Counted(store.url, int(store.read(COUNT)))


def page(request: SinkRequest, by: Sequence[str] | None) -> tuple[Store, str]:
    return opened(request), f"<p>{progress(request).files} files</p>"


def leftovers(store: Store, *, now: float | None = None) -> Iterator[Orphan]:
    yield from (Orphan(one.path, one.num_bytes, "left") for one in store.list(".raysp/tmp/"))
