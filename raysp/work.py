"""Kinds of work, which files define, and of sinks, which records name.

A kind is one entry of `raysp.sink.sinks.KINDS`. The verbs act on `Work` and `Kind` alone, and name none of
them.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, cast

from raysp.errors import SpecError
from raysp.sink.lease import Running
from raysp.sink.run_record import RunEntry
from raysp.sink.sinks import KINDS, Sink
from raysp.specs.pipeline import Pipeline, Work
from raysp.specs.text_rules import Text
from raysp.specs.work_files import load_value
from raysp.storage.options import GivenOptions
from raysp.storage.store import Store
from raysp.words import ago

if TYPE_CHECKING:
    from raysp.sink.orphans import Orphan


class Progress(Protocol):
    """Progress of a sink of any kind: a dataclass, whose fields are the JSON of `raysp status`."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def sink(self) -> str:
        """Url of the sink."""

    @property
    def running(self) -> Running:
        """Whether a run is active."""

    @property
    def holder(self) -> str:
        """Current or last holder of the lease."""

    @property
    def last_run(self) -> RunEntry | None:
        """The last run; None before the first."""

    @property
    def facts(self) -> Mapping[str, object]:
        """Facts to print, by name; None and empty facts are left out."""

    @property
    def line(self) -> str:
        """The progress as one line."""

    @property
    def json(self) -> Mapping[str, object]:
        """Fields and figures for JSON."""


@dataclass(frozen=True)
class SinkRequest:
    """A sink as the caller of a verb names it."""

    place: str | Store
    storage_options: GivenOptions | None = None
    """Options to reach it; None: options of `pipeline`, or with `trust` the recorded ones."""
    pipeline: Pipeline | None = None
    """Pipeline that made the labels."""
    trust: bool = False
    """Whether everything that the record names is used."""
    normalise: str | Text | None = None
    """Normalisation of the texts that a report compares; None: as they were counted. Of label shards only."""


@dataclass(frozen=True)
class EstimateOptions:
    """Options of an estimate; at most one of `rtfx`, `like` and `calibrate` sets the speed.

    Attributes:
        sample: rows to sample; None: as many as are usual. Of work that samples rows only, as is `seed`.
        seed: determines the rows of the sample.
        rtfx: seconds of audio per second of one actor or worker.
        like: sink of another run of the same checkpoint, which gives the speed.
        like_options: storage options of `like`.
        calibrate: whether speed and memory are measured in this process.
        price: price of an hour of one GPU, or of one CPU.
    """

    sample: int | None = None
    seed: int | None = None
    rtfx: float | None = None
    like: str | None = None
    like_options: GivenOptions | None = None
    calibrate: bool = False
    price: float | None = None

    def __post_init__(self) -> None:
        """Raise SpecError if an option for the speed or the price is invalid for any data."""
        for name, value in (("rtfx", self.rtfx), ("price", self.price)):
            if value is not None and not 0 < value < float("inf"):
                raise SpecError(f"{name}: found {value:g}, expected a number above 0")
        speeds = [name for name in ("rtfx", "like", "calibrate") if getattr(self, name)]
        if len(speeds) > 1:
            raise SpecError(f"found {' and '.join(speeds)}, expected one of them: each of them gives the speed")

    @property
    def speed_options(self) -> dict[str, object]:
        """Options of the command line that set the speed and the price."""
        return {"--rtfx": self.rtfx, "--like": self.like, "--calibrate": self.calibrate, "--price": self.price}


class Estimated(Protocol):
    """Resources, time and cost of work."""

    @property
    def facts(self) -> Sequence[tuple[str, str]]:
        """Facts to print, with their names."""

    @property
    def messages(self) -> Sequence[str]:
        """Sentences to print with the facts."""


@dataclass(frozen=True)
class PlanPart:
    """A part of the output of `raysp plan`, printed before the next part is computed."""

    facts: Sequence[tuple[str, str]] = ()
    messages: Sequence[str] = ()
    """Sentences for the standard error."""
    failures: Mapping[str, str] = field(default_factory=dict)
    """Shards that cannot be read, with the reasons."""
    json: Mapping[str, object] = field(default_factory=dict)
    exit_code: int = 0


class Kind(Protocol):
    """Functions of a module for a kind of work and its sinks, which verbs call."""

    def estimate(self, work: Any, options: EstimateOptions) -> Estimated:  # noqa: ANN401 (of the kind's own class)
        """Return the estimate of work of this kind, or of a plan of it."""

    def plan_parts(
        self,
        work: Any,  # noqa: ANN401 (of the kind's own class)
        options: EstimateOptions,
        on_indexed: Callable[[int, int], None],
    ) -> Iterator[PlanPart]:
        """Yield the facts that `raysp plan` shows, the estimate last."""

    def opened(self, request: SinkRequest) -> Store:
        """Return the store of a sink.

        Raises:
            PlanError: there is no such sink.
        """

    def progress(self, request: SinkRequest) -> Progress:
        """Return the progress of a sink; only the sink is read."""

    def page(self, request: SinkRequest, by: Sequence[str] | None) -> tuple[Store, str]:
        """Return a sink's store and its report as HTML, by the values of columns where it has rows."""

    def leftovers(self, store: Store, *, now: float | None = None) -> "Iterator[Orphan]":
        """Yield the files of a sink that no run will use any more, at a time of the store's clock."""


def kind_of_sink(request: SinkRequest) -> Kind:
    """Return the kind of a sink by its record: label shards without a record, or with a pipeline."""
    other = None if request.pipeline is not None else Sink.open(request.place, request.storage_options).other_kind()
    return cast("Kind", import_module((other or KINDS["pipeline"]).module))


def kind_of_work(work: "Named") -> Kind:
    """Return the kind of work, or of a plan of it."""
    return cast("Kind", import_module(KINDS[work.NOUN].module))


class Named(Protocol):
    """Work, or a plan of it."""

    NOUN: ClassVar[str]


def load_work(target: str) -> Work:
    """Load work of any kind from `file.py` (its only one, or the one with its usual name) or `file.py:name`.

    Raises:
        SpecError: as `load_value`.
    """
    return cast("Work", load_value(target, {noun: kind.work for noun, kind in KINDS.items()}))


def run_fact(progress: Progress, last: float | None, noun: str) -> str:
    """Return a phrase on whether a run is active, and on the age of its last write, which `noun` names."""
    match progress.running:
        case Running.YES:
            return f"active: {progress.holder}"
        case Running.KILLED:
            return f"killed; the same command again continues: {progress.holder}"
        case Running.ELSEWHERE:
            written = f", last {noun} {ago(last)}" if last else ""
            return f"active or lost, not visible from this machine: {progress.holder}{written}"
    began = f"; the last one began {progress.last_run.started}" if progress.last_run else ""
    return f"none active{began}"
