"""A plan: what a run would do."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from raysp.corpus import sources
from raysp.corpus.shards import Shard
from raysp.ops.precision import Batching
from raysp.ops.remedies import remedy
from raysp.planning.listing import count_files
from raysp.planning.pools import ActorCpus, PoolSize, most_blocks, pool_size
from raysp.sink.run_record import Resolved
from raysp.sink.todo import Todo
from raysp.specs.code import UserCode
from raysp.specs.pipeline import Pipeline
from raysp.specs.values import JsonValue
from raysp.words import brief, count, duration

if TYPE_CHECKING:
    from raysp.models.summary import CheckpointSummary

from raysp.planning.resources import Resources, actors_that_fit, shortage_of


@dataclass(frozen=True, repr=False)
class Corpus:
    """A listed and surveyed corpus."""

    shards: tuple[Shard, ...]
    unreadable: Mapping[str, str] = field(default_factory=dict)
    """Shards that cannot be read, by name, with the reason."""
    fresh: tuple[Shard, ...] = ()
    """Those of `shards` that no plan has recorded yet, or not with this content."""
    vanished: tuple[str, ...] = ()
    """Recorded shards that are no longer there; their labels are kept."""
    supersedes: bool = False
    """Some of `fresh` are recorded with other content."""
    root: str | None = None
    """What the label shards are named relative to; None: not listed."""
    passed_over: Mapping[str, int] = field(default_factory=dict)
    """Number of files of the source that are neither shards nor recordings, by suffix."""
    unnamed: int = 0
    """Recordings that no metadata file names, in folders that have such files."""
    missing: int = 0
    """Recordings that metadata names and that are not there."""
    without_bytes: frozenset[str] = frozenset()
    """Names of those of `fresh` whose rows hold no recording, and none may be read by path."""

    def __repr__(self) -> str:
        """Return a screen at most."""
        return brief(self)

    @property
    def seconds(self) -> float | None:
        """Seconds of audio, as the source claims them; None where it does not for some shard."""
        known = [shard.seconds for shard in self.shards if shard.seconds is not None]
        return sum(known) if known and len(known) == len(self.shards) else None


@dataclass(frozen=True)
class Settings:
    """What a pipeline's "auto" values come to here."""

    checkpoint: "CheckpointSummary"
    dtype: str
    device: str
    batch_seconds: float
    block_seconds: float
    cpus_per_actor: ActorCpus
    """Which are also its torch threads."""
    gpus_per_actor: float
    batching: Batching
    """How windows are brought to the model on this device."""
    fingerprint_seconds: float | None
    """The budget, where the sink's labels may depend on it; None: they do not."""


@dataclass(frozen=True, repr=False)
class Plan:
    """What a run would do."""

    pipeline: Pipeline
    settings: Settings
    parts: Mapping[str, JsonValue]
    fingerprint: str
    corpus: Corpus
    done: frozenset[str]
    """Names of the label shards that are committed."""
    todo: tuple[Todo, ...]
    resources: Resources
    relabel: bool = False
    """What is committed already but differs is done again and replaced."""
    code: UserCode = field(default_factory=UserCode)
    """The code from outside raysp that was hashed, and that workers are given."""
    stage_id: str = ""
    """Stands for the fingerprint in the names of staged results: the fingerprint itself, until a run stops."""
    stops: int = 0
    """Number of the last stopped run of which something is left to do again; 0: none."""
    anew: bool = False
    """The sink holds no result, and the record of another pipeline there is replaced."""

    def __repr__(self) -> str:
        """Return its facts, a line each."""
        facts = [f"    {name.replace(' ', '_')}={fact!r}," for name, fact in self.facts.items()]
        return "\n".join(["Plan(", *facts, ")"])

    @property
    def facts(self) -> Mapping[str, str]:
        """What a user wants to know of a plan, in words, by name."""
        settings, size, source = self.settings, self.pool_size, self.pipeline.source
        shards = count(len(self.corpus.shards), "shard")
        more = f" and {len(source.urls) - 1} more" if len(source.urls) > 1 else ""
        audio = f", {duration(seconds)} of audio" if (seconds := self.corpus.seconds) else ""
        checkpoint = settings.checkpoint
        budget = f"{count(settings.batch_seconds, 'padded second')} a pass"
        return {
            "source": f"{source.urls[0]}{more}: {shards}, {count(self.num_rows, 'row')}{audio}",
            "checkpoint": f"{self.pipeline.label.checkpoint}: {checkpoint.architecture}, "
            f"{count(checkpoint.num_parameters, 'parameter')}, {checkpoint.sample_rate} Hz",
            "model": f"{size}, {settings.cpus_per_actor} and {count(settings.gpus_per_actor, 'GPU')} each, "
            f"{settings.dtype} on {settings.device}, "
            f"{'one window a pass' if settings.batching is Batching.ALONE else budget}",
            "sink": f"{self.pipeline.sink.url}: {len(self.done):,} of {shards} committed",
            "to do": f"{count(self.rows_todo, 'row')} in {count(self.pieces_todo, 'piece')} "
            f"of {count(len(self.todo), 'shard')}",
            "fingerprint": self.fingerprint,
        }

    def __post_init__(self) -> None:
        """Stage under the fingerprint unless told otherwise."""
        object.__setattr__(self, "stage_id", self.stage_id or self.fingerprint)

    @property
    def resolved(self) -> Resolved:
        """Values of "auto" settings that later plans take."""
        is_set = self.pipeline.label.batch_seconds is not None
        settings = self.settings
        return Resolved(settings.dtype, settings.device, None if is_set else settings.batch_seconds)

    @property
    def pool_size(self) -> PoolSize:
        """Number of actors that a run starts: what the pool asks for, as far as the machine and the work bear it."""
        pool, resources, gpus = self.pipeline.label.pool, self.resources, self.settings.gpus_per_actor
        cpus = self.settings.cpus_per_actor.number
        if not (pieces := self.pieces_todo):
            return PoolSize(pool.low, pool.high)
        blocks = most_blocks(self._pieces(), self.settings.block_seconds, pool.high)
        machine = [count(resources.machine_cpus or resources.cpus, "CPU")] + (
            [count(resources.gpus, "GPU")] if gpus else []
        )
        rows = f"{count(self.rows_todo, 'row')} in {count(pieces, 'piece')}"
        return pool_size(
            pool,
            machine=(actors_that_fit(resources, cpus, gpus), f"this machine has {' and '.join(machine)}"),
            work=(blocks, f"{rows} are at most {count(blocks, 'block')}"),
        )

    def _pieces(self) -> Iterator[tuple[int, float | None]]:
        """Yield rows and encoded bytes of each piece to do; None for the bytes where rows are read by path."""
        is_by_path = self.pipeline.source.audio_root is not None
        for todo in self.todo:
            shard = todo.shard
            rows_alone = is_by_path or shard.kind in (sources.MANIFEST, sources.FOLDER)
            for piece in todo.pieces:
                yield piece.num_rows, None if rows_alone else shard.num_bytes * piece.num_rows / max(1, shard.num_rows)

    @property
    def shortage(self) -> str:
        """Resources that the pool asks for and that are not up; empty when all are."""
        settings = self.settings
        return shortage_of(self.pool_size.low, self.resources, settings.cpus_per_actor.number, settings.gpus_per_actor)

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences on what a user may not expect of the source."""
        found = [count_files(self.corpus.passed_over, " passed over")] if self.corpus.passed_over else []
        if unnamed := self.corpus.unnamed:
            found.append(f"{count(unnamed, 'recording')} without a row in the metadata: other columns are null there")
        if missing := self.corpus.missing:
            found.append(f"{count(missing, 'recording')} of the metadata not found: error rows of type not_found")
        shards = [todo.shard for todo in self.todo]
        if empty := [shard.name for shard in shards if not shard.num_rows]:
            found.append(f"{len(empty):,} of {count(len(shards), 'shard')} hold no rows, such as {empty[0]}")
        if bare := [shard.name for shard in shards if shard.name in self.corpus.without_bytes]:
            found.append(
                f"{len(bare):,} of {count(len(shards), 'shard')} hold no recordings, such as {bare[0]}: their rows "
                f"become errors. To read recordings by path, {remedy('path_not_allowed')}"
            )
        return tuple(found)

    @property
    def num_rows(self) -> int:
        """Count the corpus's rows."""
        return sum(shard.num_rows for shard in self.corpus.shards)

    @property
    def rows_todo(self) -> int:
        """Count the rows of pieces that are not staged yet."""
        return sum(todo.num_rows for todo in self.todo)

    @property
    def pieces_todo(self) -> int:
        """Count the pieces that are not staged yet."""
        return sum(len(todo.pieces) for todo in self.todo)
