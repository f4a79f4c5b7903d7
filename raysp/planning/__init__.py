"""What there is to do: a pipeline, a listing of its corpus, and what is already committed, made into pieces.

Nothing here starts Ray.
"""

import logging
import os
import subprocess
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from raysp.checkpoints.fetching import digest_files, fetch
from raysp.corpus import sources
from raysp.corpus.shards import Shard, check_columns, input_id
from raysp.errors import CheckpointError, PlanError, ShardError, StoreError
from raysp.models.files import hub
from raysp.ops.precision import Batching, batching
from raysp.ops.remedies import remedy
from raysp.planning.listing import Found, count_files
from raysp.planning.machine import memory_bytes, num_cpus
from raysp.planning.pools import ActorCpus, PoolSize, actor_cpus, most_actors, most_blocks, pool_size
from raysp.sink.run_record import Resolved
from raysp.sink.todo import Todo
from raysp.specs.code import UserCode
from raysp.specs.pipeline import Pipeline, fingerprint, label_parts
from raysp.specs.steps import Decode, Keep, Label, Output
from raysp.specs.values import JsonValue
from raysp.storage.store import normalise, scheme_of
from raysp.words import brief, count

if TYPE_CHECKING:
    from raysp.audio.windows import Windowing
    from raysp.models.summary import CheckpointSummary

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Resources:
    """What a run may use."""

    cpus: float
    gpus: float = 0
    memory: float | None = None
    """Bytes of main memory; None: unknown."""
    gpu_memory: float | None = None
    """Bytes of one GPU; None: unknown."""
    machine_cpus: int | None = None
    """CPUs of this machine, where a run starts a Ray of its own on it; None: a cluster."""
    node_cpus: float | None = None
    """CPUs of the cluster's largest node; None: unknown, or no cluster."""
    can_grow: bool = False
    """More may come up than is up now: a cluster, which may start nodes that are asked for."""


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
        """Return a screen at most."""
        return brief(self)

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
        machine = [count(min(resources.cpus, num_cpus()), "CPU")] + ([count(resources.gpus, "GPU")] if gpus else [])
        rows = f"{count(self.rows_todo, 'row')} in {count(pieces, 'piece')}"
        return pool_size(
            pool,
            machine=(_most_actors(resources, cpus, gpus), f"this machine has {' and '.join(machine)}"),
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
        return _shortage(self.pool_size.low, self.resources, settings.cpus_per_actor.number, settings.gpus_per_actor)

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


def local_resources(pipeline: Pipeline) -> Resources:
    """Return what a local Ray is started with: every CPU, and at least one to decode with beside the actors.

    It has no more actors than the machine has CPUs, but always one.
    """
    label = pipeline.label
    gpus, machine_cpus = count_gpus(), num_cpus()
    each = actor_cpus(label.pool, machine_cpus=machine_cpus, on_gpu=gpus > 0 and label.device != "cpu").number
    actors = max(1, min(label.pool.low, machine_cpus // each))
    return Resources(
        cpus=max(machine_cpus, actors * each + 1),
        gpus=gpus,
        machine_cpus=machine_cpus,
        memory=memory_bytes(),
        gpu_memory=gpu_memory() if gpus else None,
    )


def gpu_memory() -> float | None:
    """Ask the driver for the bytes of this machine's smallest GPU; None where it does not say."""
    command = ["nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits"]
    try:
        said = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout
        return min(float(line) for line in said.split()) * 2**20
    except (OSError, ValueError, subprocess.SubprocessError):
        return None


def count_gpus() -> int:
    """Count the NVIDIA GPUs that this process may use, without asking a driver library."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return len([one for one in visible.split(",") if one.strip() not in ("", "-1")])
    try:
        return sum(name.startswith("nvidia") and name[6:].isdigit() for name in os.listdir("/dev"))  # noqa: PTH208
    except OSError:
        return 0


def survey(
    found: Sequence[Found],
    recorded: Mapping[str, Shard],
    pipeline: Pipeline,
    *,
    limit_rows: int | None = None,
    relabel: bool = False,
    replaceable: Collection[str] = (),
) -> Corpus:
    """Read the footers of shards that are new, check their columns and cut them into pieces.

    Args:
        found: the listing.
        recorded: what earlier plans of the same sink recorded, by name.
        pipeline: names the columns that must be there.
        limit_rows: stop once so many rows are found.
        relabel: take recorded shards whose content changed for new ones, instead of refusing them.
        replaceable: names of recorded shards of which the same holds without `relabel`.

    Raises:
        PlanError: a column is missing or of the wrong type, or a recorded shard's content changed.
    """
    bare: set[str] = set()

    def survey_one(one: Found) -> Shard | str:
        return _survey_one(one, recorded.get(one.name), pipeline, relabel or one.name in replaceable, bare)

    shards: list[Shard] = []
    fresh: list[Shard] = []
    unreadable: dict[str, str] = {}
    for one, surveyed in _in_order(found, survey_one):
        if isinstance(surveyed, str):
            unreadable[one.name] = surveyed
            continue
        shards.append(surveyed)
        known = recorded.get(one.name)
        if known is None or (known.input_id, known.part) != (surveyed.input_id, surveyed.part):
            fresh.append(surveyed)
        if limit_rows is not None and sum(shard.num_rows for shard in shards) >= limit_rows:
            break
    names = {one.name for one in found}
    vanished = tuple(sorted(name for name in recorded if name not in names))
    supersedes = any(one.name in recorded for one in fresh)
    without_bytes = frozenset(bare)
    return Corpus(tuple(shards), unreadable, tuple(fresh), vanished, supersedes, without_bytes=without_bytes)


def _in_order(found: Sequence[Found], work: Callable[[Found], Shard | str]) -> Iterator[tuple[Found, Shard | str]]:
    with ThreadPoolExecutor(16) as pool:
        for start in range(0, len(found), 256):
            yield from zip(found[start : start + 256], pool.map(work, found[start : start + 256]), strict=True)


def _survey_one(one: Found, known: Shard | None, pipeline: Pipeline, relabel: bool, bare: set[str]) -> Shard | str:
    """Survey a shard, or return why it cannot be read; `bare` gets its name if its rows hold no recording."""
    if known is not None and (known.num_bytes, known.version) == (one.num_bytes, one.version):
        return replace(known, url=one.url, part=one.part or known.part)
    if known is not None and not relabel and one.kind == sources.MANIFEST:  # its slice may end in a line by now
        raise _changed(one, known)
    source = pipeline.source
    try:
        columns = (source.audio, *source_columns(pipeline))
        found = sources.survey(one.kind, one.url, one.part, source.storage_options, columns)
    except (ShardError, StoreError) as error:
        return str(error)
    if known is not None and not relabel:
        raise _changed(one, known)
    try:
        has_rows = found.num_rows > 0  # without them a writer does not know types
        check_columns(one.url, found.schema, audio=source.audio, others=source_columns(pipeline), has_rows=has_rows)
    except ShardError as error:
        raise PlanError(str(error)) from None
    if source.text is not None and has_rows:
        _check_text(one.url, found.schema, source.text)
    _check_conditions(one.url, found.schema, pipeline)
    is_by_path = source.audio_root is not None or one.kind not in (sources.PARQUET, sources.ARROW)
    if has_rows and not is_by_path and found.nulls & {source.audio, f"{source.audio}.bytes"}:
        bare.add(one.name)
    return Shard(
        name=one.name,
        url=one.url,
        num_bytes=one.num_bytes,
        version=one.version,
        num_rows=found.num_rows,
        input_id=input_id(one.num_bytes, one.version, found),
        pieces=found.pieces,
        kind=one.kind,
        part=one.part,
        seconds=found.seconds,
    )


def _check_text(url: str, schema: pa.Schema, name: str) -> None:
    """Refuse a reference that is no text: the word error rate would be of nothing, or of digits."""
    found = schema.field(name).type
    held = found.value_type if pa.types.is_dictionary(found) else found
    of_text = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
    of_bytes = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_binary_view)
    if not any(fits(held) for fits in (*of_text, *of_bytes, pa.types.is_null)):
        raise PlanError(
            f"{url}: column {name!r} holds {found}, expected texts, for source.text is what labels are compared with; "
            f"name a column of texts, or leave source.text out and keep this one by sink.keep=[{name!r}]"
        )


def _changed(one: Found, known: Shard) -> PlanError:
    return PlanError(
        f"{one.url}: its content changed since it was planned ({known.num_bytes:,} bytes, now {one.num_bytes:,}; "
        f"version {known.version}, now {one.version}). Bring the old file back, label into another sink, or redo what "
        "differs with --relabel"
    )


def _check_conditions(url: str, schema: pa.Schema, pipeline: Pipeline) -> None:
    """Try the conditions of `Keep` on no rows, so that one that does not fit its column fails before any work."""
    from raysp.ops.keeping import meets

    for step in pipeline.steps:
        if not isinstance(step, Keep) or step.where is None or isinstance(step.where, str):
            continue
        for name, compare, value in step.where:
            try:
                meets(pa.chunked_array([], schema.field(name).type), compare, value)
            except pa.ArrowException as error:
                kind = schema.field(name).type
                raise PlanError(f"{url}: Keep cannot ask {name!r} {compare} {value!r} of {kind}: {error}") from None


def source_columns(pipeline: Pipeline) -> tuple[str, ...]:
    """Name the source columns, besides the audio, that a pipeline must find."""
    reads = [column for step in pipeline.steps if isinstance(step, Keep) for column in step.reads]
    identity = [pipeline.source.id] if pipeline.source.id else []
    return tuple(dict.fromkeys([*identity, *pipeline.kept, *reads]))


def settle(pipeline: Pipeline, resources: Resources, before: Resolved | None = None) -> Settings:
    """Check the checkpoint against the pipeline and the pool against the cluster, and resolve "auto" settings.

    Args:
        pipeline: the pipeline; what it sets itself is used.
        resources: what is up now.
        before: what the sink's first plan resolved, which holds whatever is up now; None at the first plan.

    Raises:
        CheckpointError: no such folder, or one that cannot be run.
        PlanError: the pool does not fit, or leaves nothing to decode with.
    """
    from raysp.models.checking import check_checkpoint
    from raysp.ops.budget import batch_seconds, block_seconds

    for index, step in enumerate(pipeline.steps):
        if not isinstance(step, Decode | Keep | Label):
            raise PlanError(f"steps[{index}] {type(step).__name__}: found a step that this version of raysp cannot run")
    label = pipeline.label
    summary = check_checkpoint(checkpoint_folder(pipeline))
    for output in label.outputs:
        name = _kind(output)
        if name and name not in summary.outputs:
            raise CheckpointError(
                f"{label.checkpoint}: {summary.architecture} cannot give {name}; it can give "
                f"{', '.join(summary.outputs) or 'nothing that raysp knows'}"
            )
        output.check(summary)
    try:
        windowing(summary, label)
    except ValueError as error:
        raise PlanError(f"{label.checkpoint}: {error}. Raise window_seconds") from None
    gpus = _gpus_per_actor(label, resources, before)
    device = _device(label, gpus, before)
    on_gpu = device == "cuda"
    auto_dtype = before.dtype if before else ("bfloat16" if on_gpu else "float32")
    dtype = auto_dtype if label.dtype == "auto" else label.dtype
    cpus = actor_cpus(label.pool, machine_cpus=resources.machine_cpus, on_gpu=on_gpu)
    _check_pool(label, resources, cpus.number, gpus, before)
    memory = _memory_of_actor(label, resources, cpus.number, gpus) if gpus or not on_gpu else None
    fitting = batch_seconds(summary, on_gpu=on_gpu, memory=memory)
    budget = label.batch_seconds or _recorded_budget(before, dtype, device, fitting)
    return Settings(
        checkpoint=summary,
        dtype=dtype,
        device=device,
        batch_seconds=budget,
        block_seconds=block_seconds(summary, on_gpu=on_gpu, batch_seconds=budget, threads=cpus.number),
        cpus_per_actor=cpus,
        gpus_per_actor=gpus,
        batching=batching(dtype=dtype, device=device, exact=label.exact),
        fingerprint_seconds=_fingerprint_seconds(label, dtype, device, budget, before),
    )


def _fingerprint_seconds(label: Label, dtype: str, device: str, budget: float, before: Resolved | None) -> float | None:
    """Return the budget where labels may depend on it, on this device or on the one that the sink began with."""
    began = before.device if before and before.device else device
    depends = {
        one: batching(dtype=dtype, device=one, exact=label.exact) is Batching.RECORDED for one in (began, device)
    }
    if depends[began] and before and before.batch_seconds:
        return label.batch_seconds or before.batch_seconds
    return budget if any(depends.values()) else None


def _recorded_budget(before: Resolved | None, dtype: str, device: str, fitting: float) -> float:
    """Return the recorded budget, or a smaller one where actors have less memory now.

    In half precision a text may depend on its batch, so there the record holds as it is; a batch that does not fit is
    halved when it fails.
    """
    if before is None or before.batch_seconds is None or before.device != device:
        return fitting
    return min(before.batch_seconds, fitting) if dtype == "float32" else before.batch_seconds


def _memory_of_actor(label: Label, resources: Resources, cpus: int, gpus: float) -> float | None:
    """Tell the bytes that each actor has: of its GPU, reserved, or its share of the machines beside one reader each."""
    if gpus:
        return None if resources.gpu_memory is None else resources.gpu_memory * min(gpus, 1)
    if label.pool.memory or resources.memory is None:
        return label.pool.memory
    most = _most_actors(resources, cpus, gpus)
    return resources.memory / (label.pool.high + 1 if most is None else max(1, min(label.pool.high, most)) + 1)


def _kind(output: Output) -> str | None:
    """Name the output that the model must be able to give; a user's own, made from none of raysp's, asks for none."""
    shipped = [cls for cls in type(output).__mro__ if cls.__module__ == Output.__module__ and cls is not Output]
    return shipped[0].__name__ if shipped else None


def checkpoint_folder(pipeline: Pipeline) -> Path:
    """Give the folder of the pipeline's checkpoint on this machine.

    A step has no storage options of its own: the source's serve where both are of one scheme, else the environment
    and the profile.

    Raises:
        CheckpointError, StoreError: as `locate`.
    """
    url, source = pipeline.label.checkpoint, pipeline.source
    scheme = scheme_of(url)
    return locate(url, source.storage_options if scheme and scheme_of(source.urls[0]) == scheme else {})


def locate(checkpoint: str, storage_options: Mapping[str, object] | None = None) -> Path:
    """Give the folder of a checkpoint on this machine, fetched once from object storage or from the hub.

    Raises:
        CheckpointError: no such folder, or no checkpoint in it.
        StoreError: it cannot be read.
    """
    if scheme_of(checkpoint):
        return fetch(checkpoint, storage_options)
    if (folder := Path(normalise(checkpoint))).is_dir():
        return folder
    if _names_hub(checkpoint):
        return hub.local_checkpoint(checkpoint)
    raise CheckpointError(
        f"checkpoint {checkpoint!r}: no such folder; expected a Hugging Face model folder (config.json, "
        "model.safetensors), on a local disk or on object storage, or a hub id ('owner/name')"
    )


def pinned(pipeline: Pipeline) -> Pipeline:
    """Give the pipeline with the commit that a hub id of its checkpoint means now, so that all machines read that one.

    Raises:
        CheckpointError: the hub does not know the id, or cannot be reached.
    """
    label = pipeline.label
    if not _names_hub(label.checkpoint):
        return pipeline
    of_commit = replace(label, checkpoint=hub.pinned(label.checkpoint))
    return replace(pipeline, steps=[of_commit if step is label else step for step in pipeline.steps])


def _names_hub(checkpoint: str) -> bool:
    """Tell whether a checkpoint is a hub id with its owner; a bare name is taken for a folder that is not there."""
    return "/" in checkpoint and not scheme_of(checkpoint) and hub.is_hub_id(checkpoint)


def windowing(summary: "CheckpointSummary", label: Label) -> "Windowing":
    """Say how rows are cut into windows for a checkpoint.

    Raises:
        ValueError: a window would not hold a frame of the model.
    """
    from raysp.ops.windowing import windowing_of

    return windowing_of(summary, window_seconds=label.window_seconds, overlap_seconds=label.overlap_seconds)


def _gpus_per_actor(label: Label, resources: Resources, before: Resolved | None) -> float:
    if label.device == "cpu" or label.pool.gpus is not None:
        return label.pool.gpus or 0
    device = before.device if before and label.device == "auto" else label.device
    if device == "cuda":
        return 1
    return 0 if device == "cpu" or resources.gpus == 0 else 1


def _device(label: Label, gpus: float, before: Resolved | None) -> str:
    if label.device != "auto":
        return label.device
    if label.pool.gpus is None and before and before.device:
        return before.device
    return "cuda" if gpus else "cpu"


def _check_pool(label: Label, resources: Resources, cpus: int, gpus: float, before: Resolved | None) -> None:
    """Raise if the pool cannot run: on a cluster only what contradicts itself, for more nodes may come up there."""
    pool = label.pool
    asked = f"pool: {count(pool.low, 'actor')} of {count(gpus, 'GPU')}, device={label.device!r}"
    if label.device == "cuda" and gpus == 0:
        raise PlanError(f"{asked}: a model on a GPU needs a share of one; set pool.gpus, or device='cpu'")
    if resources.can_grow or not _shortage(1, resources, cpus, gpus):
        return
    if gpus > resources.gpus:
        recorded = before is not None and before.device == "cuda" and label.device == "auto" and pool.gpus is None
        why = ", as the labels of this sink were made on GPUs" if recorded else ""
        raise PlanError(
            f"{asked}{why}; found {count(resources.gpus, 'GPU')}, and no more can come up on this machine. Give the "
            "--address of a cluster with GPUs, lower pool.gpus, or set device='cpu'"
        )
    raise PlanError(
        f"pool: one actor of {count(cpus, 'CPU')} leaves none of {count(resources.cpus, 'CPU')} to decode with; "
        "lower pool.cpus"
    )


def _most_actors(resources: Resources, cpus: int, gpus: float) -> int | None:
    """Return how many actors the machine bears; None: more machines may come up."""
    if resources.can_grow:
        return None
    return most_actors(cpus=resources.cpus, cpus_per_actor=cpus, gpus=resources.gpus, gpus_per_actor=gpus)


def _shortage(actors: int, resources: Resources, cpus: int, gpus: float) -> str:
    """Describe what so many actors ask for beyond what is up; empty when all is."""
    wanted = {"GPU": (actors * gpus, resources.gpus), "CPU": (actors * cpus + 1, resources.cpus)}
    short = [f"{count(asked, name)}, {there:g} found" for name, (asked, there) in wanted.items() if asked > there]
    if resources.node_cpus is not None and cpus > resources.node_cpus and len(short) == 0:
        short.append(f"{count(cpus, 'CPU')} on one node, {resources.node_cpus:g} on the largest found")
    return "; ".join(short)


AUDIO_ROOT = "source.audio_root"
"""Part of the fingerprints of older sinks: true where the pipeline that began them had one."""


def hash_pipeline(
    pipeline: Pipeline,
    settings: Settings,
    code: UserCode | None = None,
    recorded: Mapping[str, JsonValue] | None = None,
) -> tuple[dict[str, JsonValue], str]:
    """Collect what can change a label and hash it.

    Args:
        pipeline: the pipeline.
        settings: its resolved values.
        code: its code from outside raysp; None: read now.
        recorded: parts of the sink's record; None: there is none, or they do not bind.
    """
    digest = _digest(checkpoint_folder(pipeline))
    parts = label_parts(
        pipeline,
        checkpoint_digest=digest,
        dtype=settings.dtype,
        batch_seconds=settings.fingerprint_seconds,
        code=code,
    )
    if recorded and AUDIO_ROOT in recorded:
        parts[AUDIO_ROOT] = recorded[AUDIO_ROOT]
    return parts, fingerprint(parts)


def check_digest(url: str, folder: Path, planned: str) -> None:
    """Raise if a checkpoint, as it came to this machine, is no longer the one that was planned.

    Raises:
        CheckpointError: naming both digests.
    """
    if (found := _digest(folder)) != planned:
        raise CheckpointError(
            f"checkpoint {url!r}: its digest was {planned} when the run was planned, here it is {found}; do not "
            "change a checkpoint during a run, and give workers the same files"
        )


def _digest(folder: Path) -> str:
    from raysp.models.checking import checkpoint_files

    return digest_files(folder, checkpoint_files(folder))
