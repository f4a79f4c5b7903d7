"""Plan of a run: the opened pipeline, and the work to do with resolved settings and resources."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, ClassVar, NamedTuple, Self

import pyarrow as pa

from raysp.cluster.resources import (
    ActorCpus,
    PoolSize,
    Resources,
    actors_that_fit,
    local_resources,
    pool_size,
    shortage_of,
    with_absolute_paths,
)
from raysp.corpus import sources
from raysp.corpus.shards import Shard
from raysp.devices import has_amx
from raysp.labelling.planning.listing import Listed, count_files
from raysp.labelling.planning.planned_checkpoint import Chosen
from raysp.ops.blocks import AGREED_RATE, Batching
from raysp.ops.channels import listed
from raysp.ops.rows import remedy
from raysp.ops.step_ops import UNREADABLE_TEXT
from raysp.sink.absent import AbsentShard
from raysp.sink.commit import Todo
from raysp.sink.run_record import Resolved
from raysp.sink.sinks import Sink
from raysp.specs.code import UserCode
from raysp.specs.pipeline import USUAL_ID, Pipeline, added_schema
from raysp.specs.steps import EACH, Keep, Label
from raysp.specs.values import JsonValue
from raysp.words import Brief, count, duration
from raysp.words import listed as first_of

if TYPE_CHECKING:
    from raysp.models.labelled_passes import CheckpointSummary

SMALL_BYTES = 64 * 2**20
"""Encoded bytes up to which a run is small: half an hour of 16-bit audio at 16 kHz, some hours of compressed audio."""
SMALL_ROWS = 1_000
"""Rows up to which a run is small if they are read by path, so that their bytes are unknown."""
GAIN_OF_AMX = (
    'this processor has AMX: dtype="bfloat16" takes half of the time of float32 for rows of 3 s, a third for rows '
    "of 7 s, and some texts may differ from those in float32"
)
_EXPECTED = "; expected "
"""Separates the fault from the remedy in an error message."""


@dataclass(frozen=True)
class Opened:
    """A pipeline, its sink and the resources of a run, which planning takes."""

    pipeline: Pipeline
    """Pipeline with absolute paths."""
    sink: Sink
    resources: Resources
    """Resources that the run may use."""
    chosen: tuple[Chosen, ...] = ()
    """Backends of the `Label` steps, with descriptions of their checkpoints; empty until they are known."""
    default_text: str | None = None
    """Value of `source.text` if the source sets none and lists folders of recordings."""

    @classmethod
    def of(cls, pipeline: Pipeline, resources: Resources | None = None) -> Self:
        """Open the sink of a pipeline, without access to it; resources default to this machine's.

        Raises:
            StoreError: as `open_store`.
        """
        pipeline = with_absolute_paths(pipeline)
        here = resources if resources is not None else local_resources(pipeline)
        return cls(pipeline, Sink.of(pipeline.sink), here)

    def is_small(self, shards: Iterable[Shard]) -> bool:
        """Return whether one process on this machine labels shards as fast as Ray's actors would.

        This holds for little audio, and one actor with at most one GPU. Starting Ray takes longer than it saves then.
        """
        label, resources = self.pipeline.label, self.resources
        pool = label.pool
        if resources.machine_cpus is None or pool.high > 1 or pool.memory is not None or (pool.gpus or 0) > 1:
            return False
        if label.device == "cuda" and not resources.gpus:
            return False
        num_bytes = num_rows = 0
        for shard in shards:
            if self.pipeline.reads_audio and sources.is_by_path(shard, self.pipeline.source.audio_root):
                num_rows += shard.num_rows
            else:
                num_bytes += shard.num_bytes
        return num_bytes <= SMALL_BYTES and num_rows <= SMALL_ROWS


MOST_GONE = 3
"""Ids of recordings that a message names."""


@dataclass(frozen=True, repr=False)
class Corpus(Brief):
    """A listed and surveyed corpus."""

    shards: tuple[Shard, ...]
    unreadable: Mapping[str, str] = field(default_factory=dict)
    """Unreadable shards by name, with the reason."""
    recorded: Mapping[str, Shard] = field(default_factory=dict)
    """Shards of earlier plans, by name."""
    listed: Listed = field(default_factory=Listed)
    """The listing; without a root for a retry and for a try-out."""
    is_numbered: bool = False
    """Whether rows have their places as ids because the source has no column of ids."""
    without_bytes: frozenset[str] = frozenset()
    """Names of shards of `fresh` whose rows hold no recording and may not be read by path."""
    absent: tuple[AbsentShard, ...] = ()
    """Shards of `unreadable` as the sink records them."""
    carried: pa.Schema = field(default_factory=lambda: pa.schema([]))
    """Types of the columns that label shards carry over; columns that no shard with rows has are missing."""
    widened: tuple[str, ...] = ()
    """Sentences on carried-over columns whose types differ over the shards."""
    schemas: Mapping[pa.Schema, str] = field(default_factory=dict)
    """Columns of shards of `fresh`, each with a url, if steps after the model may read any of them."""

    @property
    def fresh(self) -> tuple[Shard, ...]:
        """Shards of `shards` that no plan has recorded yet, or only with other content."""
        ids = {name: (shard.input_id, shard.part) for name, shard in self.recorded.items()}
        return tuple(shard for shard in self.shards if ids.get(shard.name) != (shard.input_id, shard.part))

    @property
    def vanished(self) -> tuple[str, ...]:
        """Recorded shards that the listing lacks; their labels are kept."""
        names = {shard.name for shard in self.listed.shards}
        return tuple(sorted(self.recorded.keys() - names)) if self.listed.root is not None else ()

    @property
    def seconds(self) -> float | None:
        """Seconds of audio, as declared by the source; None if some shard does not declare them."""
        declared = [shard.seconds for shard in self.shards if shard.seconds is not None]
        return sum(declared) if declared and len(declared) == len(self.shards) else None

    @property
    def num_rows(self) -> int:
        """Number of rows of the shards that can be read."""
        return sum(shard.num_rows for shard in self.shards)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Resolved values of a pipeline's `auto` settings; by default without a model, as of a pipeline without audio."""

    checkpoint: "CheckpointSummary"
    checkpoint_digest: str = ""
    """Hash of its weights, configuration and tokenizer."""
    dtype: str
    device: str
    batch_seconds: float = 0.0
    block_seconds: float = 0.0
    cpus_per_actor: ActorCpus
    """CPUs of each actor, and its number of torch threads."""
    gpus_per_actor: float = 0.0
    batching: Batching = Batching.FREE
    """Batching of windows on this device."""
    fingerprint_seconds: float | None = None
    """Budget in padded seconds, if the sink's labels may depend on it; None: they do not."""
    file_digests: Mapping[str, str] = field(default_factory=dict)
    """Digests of files that outputs read besides the checkpoint, such as language models, by url."""
    library: str = ""
    """Library that runs the checkpoint, with its version; empty: raysp."""
    windows_alone: bool = False
    """Whether padding may change a label of the model, so that each window is a pass of its own on any device."""


class Pass(NamedTuple):
    """One `Label` step of a pipeline, with its settings."""

    pipeline: Pipeline
    """The pipeline of this step alone (`Pipeline.passes`)."""
    settings: Settings


@dataclass(frozen=True, repr=False)
class Plan(Brief):
    """Plan of a run."""

    NOUN: ClassVar[str] = Pipeline.NOUN

    pipeline: Pipeline
    """The pipeline, with absolute paths, commits of the hub and the chosen backend."""
    sink: Sink
    resources: Resources
    """Resources that the run may use."""
    passes: tuple[Pass, ...]
    """The `Label` steps with their settings."""
    parts: Mapping[str, JsonValue]
    """Everything that can change a label, by dotted name."""
    fingerprint: str
    """Hash of `parts`."""
    stage_id: str
    """Id in the names of staged results: the hash of everything up to the last `Label`."""
    corpus: Corpus = Corpus(())
    done: frozenset[str] = frozenset()
    """Names of the label shards that are committed."""
    todo: tuple[Todo, ...] = ()
    code: UserCode = field(default_factory=UserCode)
    """Code from outside raysp that was hashed, and that workers receive."""
    replaces_record: bool = False
    """Whether the sink holds no result, and its record of another pipeline is replaced."""
    engine: str = "auto"
    """Who runs the pieces: "here" or "ray"; "auto" before a run has decided."""
    why_not_own: tuple[str, ...] = ()
    """Sentences on libraries that run a checkpoint in place of raysp, unless the pipeline or sink names them."""

    @property
    def settings(self) -> Settings:
        """Settings of the first `Label` step."""
        return self.passes[0].settings

    @property
    def facts(self) -> Mapping[str, str]:
        """Facts of the plan for users, as text by name."""
        settings, source = self.settings, self.pipeline.source
        shards = count(len(self.corpus.shards), "shard")
        more = f" and {len(source.urls) - 1} more" if len(source.urls) > 1 else ""
        audio = f", {duration(seconds)} of audio" if (seconds := self.corpus.seconds) else ""
        labels = f", with the labels of {source.labels}" if source.labels else ""
        digests = {url: digest for step in self.passes for url, digest in step.settings.file_digests.items()}
        files = [
            f"{field} of outputs.{i} {url} ({digests.get(url)})"
            for i, output in enumerate(self.pipeline.outputs)
            for field, url in (*output.files.items(), *output.checkpoints.items())
        ]
        windows = f"{count(settings.batch_seconds, 'padded second')} a pass"
        if settings.batching is Batching.ALONE:
            windows = "one window a pass"
            if settings.windows_alone and (why := settings.checkpoint.alone):
                windows += f" ({why})"
        elif not settings.checkpoint.takes_padding:
            windows += " of one length"
        facts = {
            "source": f"{source.urls[0]}{more}: {shards}, {count(self.num_rows, 'row')}{audio}{labels}",
            "checkpoint": _described(self.passes[0]) if self.pipeline.reads_audio else "",
            "not used": settings.checkpoint.unused_words,
            "other files": ", ".join(files),
            "model": f"{self.pool_size}, {settings.cpus_per_actor} and {count(settings.gpus_per_actor, 'GPU')} each, "
            f"{settings.dtype} on {settings.device}, {windows}"
            if self.pipeline.reads_audio
            else "none: no audio is read",
            **{
                f"checkpoint {number}": f"{_described(step)}, {step.settings.dtype} on {step.settings.device}"
                for number, step in enumerate(self.passes[1:], 2)
            },
            "bfloat16": GAIN_OF_AMX if self._gains_by_bfloat16 else "",
            **self._filters,
            "sink": f"{self.pipeline.sink.url}: {len(self.done):,} of {shards} committed",
            "to do": f"{count(self.rows_todo, 'row')} in {count(self.pieces_todo, 'piece')} "
            f"of {count(len(self.todo), 'shard')}",
            "fingerprint": self.fingerprint,
        }
        return {name: fact for name, fact in facts.items() if fact}

    @property
    def _filters(self) -> dict[str, str]:
        """`Keep` steps after a `Label` step by their places, with their conditions and the time of the decision."""
        facts, num_labels = {}, 0
        for place, step in enumerate(self.pipeline.steps):
            num_labels += isinstance(step, Label)
            if num_labels and isinstance(step, Keep):
                rules = " and ".join(rule.text for rule in step.rules)
                is_last = num_labels == len(self.passes)
                when = "when a shard is committed" if is_last else "before the next model runs"
                facts[f"steps.{place}"] = f"keeps labelled rows with {rules}, decided {when}"
        return facts

    @property
    def json(self) -> dict[str, object]:
        """Content of `raysp plan --json`."""
        corpus, later = self.corpus, [asdict(step.settings) for step in self.passes[1:]]
        return {
            "fingerprint": self.fingerprint,
            "sink": self.pipeline.sink.url,
            "shards": len(corpus.shards),
            "shards_committed": len(self.done),
            "shards_unreadable": dict(corpus.unreadable),
            "shards_vanished": list(corpus.vanished),
            "recordings_gone": len(corpus.listed.gone),
            "files_passed_over": dict(corpus.listed.passed_over),
            "recordings_without_metadata": corpus.listed.unnamed,
            "recordings_missing": corpus.listed.missing,
            "texts_unreadable": corpus.listed.unread,
            "rows": self.num_rows,
            "audio_seconds": corpus.seconds,
            "rows_todo": self.rows_todo,
            "pieces_todo": self.pieces_todo,
            "settings": asdict(self.settings),
            **({"settings_of_later_labels": later} if later else {}),
            "actors": asdict(self.pool_size),
            "parts": dict(self.parts),
        }

    @property
    def messages(self) -> tuple[str, ...]:
        """Sentences that `raysp plan` prints after the facts."""
        settings = self.settings
        if settings.fingerprint_seconds is None:
            return self.notes
        batching = (
            f"{settings.dtype} on {settings.device}: a label may depend on the rows that share its batch. "
            f"batch_seconds={settings.fingerprint_seconds:g} is part of the fingerprint, and verify --sample expects "
            f"{AGREED_RATE:.0%} of rows to be equal; with dtype='float32' labels do not depend on the batch"
        )
        return (*self.notes, batching)

    @property
    def _gains_by_bfloat16(self) -> bool:
        """Whether labels of a new sink would take less time on a CPU like this one in bfloat16 than in float32."""
        settings, is_new = self.settings, not self.done and self.pipeline.label.dtype == "auto"
        by_frames = not settings.library and not settings.checkpoint.writes_text
        return is_new and by_frames and (settings.device, settings.dtype) == ("cpu", "float32") and has_amx()

    @property
    def messages_at_start(self) -> tuple[str, ...]:
        """Sentences that a run prints before its first row."""
        cpus, size = self.settings.cpus_per_actor, self.pool_size
        pool = (f"{size}, {cpus} each",) if self.todo and (size.reason or cpus.is_capped) else ()
        return (*self.notes, *pool)

    @property
    def resolved(self) -> Resolved:
        """Values of "auto" settings that later plans use."""
        first, *later = (
            Resolved(
                settings.dtype,
                settings.device,
                None if pipeline.label.batch_seconds is not None else settings.batch_seconds,
                settings.windows_alone,
            )
            for pipeline, settings in self.passes
        )
        return replace(first, later=tuple(later))

    @property
    def run_settings(self) -> dict[str, JsonValue]:
        """Settings that a run records."""
        settings = self.settings
        later = "; ".join(f"{step.settings.dtype} on {step.settings.device}" for step in self.passes[1:])
        return {
            "dtype": settings.dtype,
            "device": settings.device,
            "batch_seconds": settings.batch_seconds,
            "block_seconds": settings.block_seconds,
            "cpus_per_actor": settings.cpus_per_actor.number,
            "gpus_per_actor": settings.gpus_per_actor,
            **({"later_labels": later} if later else {}),
            **({"library": settings.library} if settings.library else {}),
        }

    @property
    def pool_size(self) -> PoolSize:
        """Number of actors of the run: as the pool requests, limited by the machine and by the work."""
        pool, gpus = self.pipeline.label.pool, self.settings.gpus_per_actor
        resources = self.resources
        cpus = self.settings.cpus_per_actor.number
        if not (pieces := self.pieces_todo):
            return PoolSize(pool.low, pool.high)
        machine = [count(resources.machine_cpus or resources.cpus, "CPU")] + (
            [count(resources.gpus, "GPU")] if gpus else []
        )
        return pool_size(
            pool,
            machine=(actors_that_fit(resources, cpus, gpus), f"this machine has {' and '.join(machine)}"),
            work=(pieces, f"{count(self.rows_todo, 'row')} in {count(pieces, 'piece')}"),
        )

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences on properties of the source and of the cluster that a user may not expect."""
        corpus, listing, notes = self.corpus, self.corpus.listed, list[str]()
        if names := corpus.vanished:
            and_more = f" and {len(names) - 1:,} more" if len(names) > 1 else ""
            notes.append(f"{names[0]}{and_more}: no longer in the source; the labels are kept")
        if gone := listing.gone:
            notes.append(
                f"{count(len(gone), 'recording')} no longer in the source, {first_of(gone, MOST_GONE)}: labels stay "
                f"until `raysp forget {self.pipeline.sink.url} ID...` removes them"
            )
        notes += self.why_not_own
        notes += [
            note
            for pipeline, settings in self.passes
            for output in pipeline.label.outputs
            for note in output.notes(settings.checkpoint, pipeline.label.window_seconds)
        ]
        if listing.passed_over:
            notes.append(count_files(listing.passed_over, " ignored"))
        notes += corpus.widened
        if corpus.is_numbered:
            notes.append(f"no column {USUAL_ID!r}: ids are <shard>:<row>")
        if unnamed := listing.unnamed:
            notes.append(f"{count(unnamed, 'recording')} without metadata or a text beside it: other columns are null")
        if missing := listing.missing:
            notes.append(
                f"{count(missing, 'recording')} of the metadata, or behind links, not found: their rows become errors "
                "(not_found)"
            )
        if unread := listing.unread:
            more = "" if unread == len(listing.faults) else "; ..."
            notes.append(
                f"{count(unread, 'text')} beside recordings cannot be read: their rows become errors "
                f"({UNREADABLE_TEXT}). {_with_each_remedy_once(listing.faults)}{more}"
            )
        shards = [todo.shard for todo in self.todo]
        if empty := [shard.name for shard in shards if not shard.num_rows]:
            notes.append(f"{len(empty):,} of {count(len(shards), 'shard')} hold no rows, such as {empty[0]}")
        if bare := [shard.name for shard in shards if shard.name in corpus.without_bytes]:
            notes.append(
                f"{len(bare):,} of {count(len(shards), 'shard')} hold no recordings, such as {bare[0]}: their rows "
                f"become errors. To read recordings by path, {remedy('path_not_allowed')}"
            )
        each = self.settings.cpus_per_actor.number, self.settings.gpus_per_actor
        if self.todo and (shortage := shortage_of(self.pool_size.low, self.resources, *each)):
            notes.append(f"the pool requests {shortage}: the run waits until they are available")
        return tuple(notes)

    @property
    def num_rows(self) -> int:
        """Number of rows of the corpus."""
        return self.corpus.num_rows

    @property
    def rows_todo(self) -> int:
        """Number of rows to label."""
        return sum(todo.num_rows for todo in self.todo)

    @property
    def pieces_todo(self) -> int:
        """Number of pieces to label."""
        return sum(len(todo.pieces) for todo in self.todo)


def _with_each_remedy_once(messages: Sequence[str]) -> str:
    """Join error messages; messages with the same remedy are followed by it once."""
    by_remedy: dict[str, list[str]] = {}
    for message in messages:
        fault, _, remedy = message.partition(_EXPECTED)
        by_remedy.setdefault(remedy, []).append(fault)
    joined = ((remedy, "; ".join(faults)) for remedy, faults in by_remedy.items())
    return "; ".join(f"{faults}{_EXPECTED}{remedy}" if remedy else faults for remedy, faults in joined)


def _described(step: Pass) -> str:
    settings, checkpoint = step.settings, step.settings.checkpoint
    by = f", by {settings.library}" if settings.library else ""
    parameters = count(checkpoint.num_parameters, "parameter")
    return f"{step.pipeline.label.checkpoint}: {checkpoint.architecture}, {parameters}, {checkpoint.sample_rate} Hz{by}"


def output_schema(*passes: Pass) -> pa.Schema:
    """Return the columns that all steps add; where each channel is labelled, outputs are lists."""
    fields = [*added_schema(passes[0].pipeline)]
    for pipeline, settings in passes:
        schemas = (output.schema(settings.checkpoint) for output in pipeline.label.outputs)
        outputs = pa.schema([field for schema in schemas for field in schema])
        for output in pipeline.label.outputs:
            outputs = output.completed(outputs)
        fields += listed(outputs) if pipeline.decode.channel == EACH else outputs
    return pa.schema(fields)
