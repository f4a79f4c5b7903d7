"""What there is to do: a pipeline, a listing of its corpus, and what is already committed, made into pieces.

Nothing here writes, and nothing starts Ray. What a sink remembers is read by `sink`, which calls this.
"""

import json
import logging
import os
import re
import subprocess
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import takewhile
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import pyarrow as pa

from raysp.errors import CheckpointError, PlanError, ShardError, StoreError
from raysp.io import folders, manifests, sources
from raysp.io.checkpoints import digest_files, fetch
from raysp.io.globs import has_wildcard, is_listed, split_glob
from raysp.io.shards import Piece, Shard, check_columns, input_id
from raysp.io.store import Entry, Listing, NothingListedError, Store, expand, join_url, normalise, open_store, scheme_of
from raysp.models import hub
from raysp.pipeline import Pipeline, Shards, fingerprint, label_parts
from raysp.specs import JsonValue
from raysp.steps import Decode, Keep, Label, Output

if TYPE_CHECKING:
    from raysp.audio.windows import Windowing
    from raysp.models.checking import CheckpointSummary

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Found:
    """A shard as the listing shows it; its footer is not read yet."""

    name: str
    """Path of its label shard."""
    url: str
    num_bytes: int
    version: str
    kind: str = sources.PARQUET
    part: str = ""


@dataclass(frozen=True)
class Resources:
    """What a run may use."""

    cpus: float
    gpus: float = 0
    memory: float | None = None
    """Bytes of main memory; None: unknown."""
    gpu_memory: float | None = None
    """Bytes of one GPU; None: unknown."""


@dataclass(frozen=True)
class Retry:
    """That only some rows of a committed shard are done again."""

    stage_id: str
    """Stands in for the fingerprint where their results are staged, so that no others are taken for them."""
    rows: tuple[int, ...]
    """Sorted."""

    def of(self, piece: Piece) -> tuple[int, ...]:
        """Give those of a piece."""
        return self.rows[bisect_left(self.rows, piece.first) : bisect_left(self.rows, piece.end)]


@dataclass(frozen=True)
class Todo:
    """Pieces of one shard that are not staged yet; none: the shard only waits to be committed."""

    shard: Shard
    pieces: tuple[Piece, ...]
    retry: Retry | None = None

    @property
    def num_rows(self) -> int:
        """Count the rows to label."""
        return sum(len(self.retry.of(piece)) if self.retry else piece.num_rows for piece in self.pieces)


@dataclass(frozen=True)
class Corpus:
    """A listed and surveyed corpus."""

    shards: tuple[Shard, ...]
    unreadable: Mapping[str, str] = field(default_factory=dict)
    """Shards that cannot be read, by name, with the reason."""
    fresh: tuple[Shard, ...] = ()
    """Those of `shards` that no plan has recorded yet, or not with this content."""
    vanished: tuple[str, ...] = ()
    """Recorded shards that are no longer there; their labels are kept."""


@dataclass(frozen=True)
class Settings:
    """What a pipeline's "auto" values come to here."""

    checkpoint: "CheckpointSummary"
    dtype: str
    device: str
    batch_seconds: float
    block_seconds: float
    gpus_per_actor: float


@dataclass(frozen=True)
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
    """Say what a local Ray is started with: every core, and at least one CPU to decode with beside the actors."""
    pool = pipeline.label.pool
    gpus = count_gpus()
    return Resources(
        cpus=max(os.cpu_count() or 1, pool.low * pool.cpus + 1),
        gpus=gpus,
        memory=os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
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


def list_source(source: Shards, recorded: Mapping[str, Shard] | None = None) -> list[Found]:
    """List a corpus's shards and name their label shards.

    Args:
        source: the corpus.
        recorded: shards of earlier plans by name: what was cut from a manifest or a folder is never cut again.

    Raises:
        PlanError: nothing there, two label shards of one name, a name that readers would pass over.
    """
    try:
        listings = [_list_url(url, source.storage_options) for url in source.urls]
    except StoreError as error:
        raise PlanError(f"source.url: {error}") from error
    root = _normal(source.root) if source.root else _common_root([one for one, _ in listings])
    found: list[Found] = []
    entries: dict[str, Entry] = {}
    for listing, kind in listings:
        if kind == sources.FOLDER:
            found += _cut_folder(listing, root, recorded or {})
        else:
            entries |= {listing.url(entry): entry for entry in listing.entries}
    for url, entry in sorted(entries.items()):
        kind = sources.kind_of(url)
        if kind == sources.MANIFEST:
            found += _cut_manifest(url, root, recorded or {}, source.storage_options)
        else:
            found.append(Found(_label_name(url, root), url, entry.num_bytes, entry.version, kind))
    for name, times in Counter(one.name for one in found).items():
        if times > 1:
            urls = [one.url for one in found if one.name == name]
            raise PlanError(f"source: {' and '.join(urls)} would both become {name}; set source.root or rename one")
    return sorted(found, key=lambda one: one.name)


def _common_root(listings: Sequence[Listing]) -> str:
    """Find the folder that holds all listings' roots."""
    roots = [listing.root.split("/") for listing in listings]
    alike = takewhile(lambda parts: len(set(parts)) == 1, zip(*roots, strict=False))
    shared = [parts[0] for parts in alike]
    is_bucket = len(shared) > 2 or not scheme_of(listings[0].root)
    if not shared or not is_bucket:
        places = " and ".join(dict.fromkeys(listing.root for listing in listings))
        raise PlanError(f"source.url: {places} have no folder in common; label them into two sinks")
    return "/".join(shared) or "/"


def _list_url(url: str, storage_options: Mapping[str, object]) -> tuple[Listing, str]:
    """List what a url stands for: the shards of a folder where it has some, else its audio files."""
    if has_wildcard(url) or sources.is_file_name(url):
        return expand(url, storage_options), ""
    found, nothing = _try(url, storage_options)
    arrow, _ = _try(f"{url.rstrip('/')}/**/*.arrow", storage_options)
    if arrow is not None and (found is None or arrow.root == found.root):
        saved = Listing(arrow.root, _of_data_sets(arrow, storage_options))
        entries = [*saved.entries, *(found.entries if found else ())]
        found = Listing(arrow.root, tuple(sorted(entries, key=lambda entry: entry.path)))
    if found is not None:
        return found, ""
    files, _ = _try(f"{url.rstrip('/')}/**/*", storage_options)
    if files and (audio := tuple(entry for entry in files.entries if folders.is_audio(entry.path))):
        return Listing(files.root, audio), sources.FOLDER
    if re.fullmatch(r"[\w.-]+/[\w.-]+", url) and "no such file" in str(nothing):
        raise PlanError(
            f"source.url: {nothing}. If {url!r} is a data set of the Hugging Face hub, download it first: "
            f"hf download {url} --repo-type dataset --local-dir DIR"
        )
    raise nothing


def _try(url: str, storage_options: Mapping[str, object]) -> tuple[Listing | None, StoreError]:
    """List what may not be there; a storage that fails is never taken for one that is empty."""
    try:
        return expand(url, storage_options), StoreError("")
    except NothingListedError as error:
        return None, error
    except StoreError as error:
        if not isinstance(error.__cause__, FileNotFoundError | NotADirectoryError):
            raise
        return None, error


def _of_data_sets(listing: Listing, storage_options: Mapping[str, object]) -> tuple[Entry, ...]:
    """Leave out what `datasets` keeps beside the files of a saved data set, such as the results of `map`."""
    files: dict[str, set[str] | None] = {}
    store = open_store(listing.root, storage_options)
    for entry in listing.entries:
        folder = entry.path.rpartition("/")[0]
        if folder not in files:
            files[folder] = _data_files(store, f"{folder}/state.json" if folder else "state.json")
    names = {entry: entry.path.rpartition("/") for entry in listing.entries}
    return tuple(entry for entry, (folder, _, name) in names.items() if (f := files[folder]) is None or name in f)


def _data_files(store: Store, path: str) -> set[str] | None:
    """Read which files make up a data set that `save_to_disk` wrote; None where there is none."""
    if store.stat(path) is None:
        return None
    try:
        return {str(one["filename"]) for one in json.loads(store.read(path))["_data_files"]}
    except (ValueError, KeyError, TypeError):
        return None


def _cut_manifest(
    url: str, root: str, recorded: Mapping[str, Shard], storage_options: Mapping[str, object]
) -> list[Found]:
    stem = _label_name(url, root).removesuffix(".parquet")
    parts = [shard.part for shard in _recorded_parts(stem, sources.MANIFEST, recorded)]
    try:
        slices = manifests.cut(url, parts, storage_options)
    except (ShardError, StoreError, OSError, EOFError) as error:
        raise PlanError(f"source: {url}: {error}") from error
    return [
        Found(f"{stem}-{number:05}.parquet", url, one.end - one.first, one.digest, sources.MANIFEST, one.part)
        for number, one in enumerate(slices)
    ]


def _cut_folder(listing: Listing, root: str, recorded: Mapping[str, Shard]) -> list[Found]:
    name = PurePosixPath(listing.root).name or "audio"
    stem = name if listing.root == root else f"{_label_name(f'{listing.root}/x', root)[:-10]}/{name}".lstrip("/")
    parts = [shard.part for shard in _recorded_parts(stem, sources.FOLDER, recorded)]
    return [
        Found(
            f"{stem}-{number:05}.parquet",
            listing.root,
            folders.num_bytes(part),
            folders.version(part),
            sources.FOLDER,
            part,
        )
        for number, part in enumerate(folders.cut(listing.entries, parts))
    ]


def _recorded_parts(stem: str, kind: str, recorded: Mapping[str, Shard]) -> list[Shard]:
    """Give the recorded shards that were cut from one manifest or folder, in their order."""
    name = re.compile(re.escape(stem) + r"-\d{5,}\.parquet")
    return [recorded[one] for one in sorted(recorded) if recorded[one].kind == kind and name.fullmatch(one)]


def _label_name(url: str, root: str) -> str:
    if not url.startswith(beginning := join_url(root, "")):
        raise PlanError(f"source.root: {url} is not below {root}")
    relative = PurePosixPath(url.removeprefix(beginning))
    for part in relative.parts:
        if part.startswith(("_", ".")):
            raise PlanError(f"source: {url}: readers pass over names that begin with {part[0]!r}; rename {part!r}")
    return f"{sources.stem_of(relative.as_posix())}.parquet"


def refuse_listed_sink(source: Shards, found: Sequence[Found], sink_url: str) -> None:
    """Raise if a label shard would be listed as a shard, or would take the place of one.

    Raises:
        PlanError: naming the url and the label shard.
    """
    sinks = {sink for place in [_normal(sink_url)] for sink in (place, _real(place))}
    shards = {place for one in found for place in (one.url, _real(one.url))}
    patterns = [(url, root, pattern) for url in source.urls for root, pattern in _patterns(url, shards)]
    for one in found:
        for label_shard in (join_url(sink, one.name) for sink in sinks):
            listing = next((url for url, root, pattern in patterns if _lists(root, pattern, label_shard)), None)
            if listing is not None or label_shard in shards:
                raise PlanError(
                    f"sink.url: the label shard {label_shard} would be one of the shards of source.url="
                    f"{listing or one.url!r}; choose a folder outside the source"
                )


def _normal(url: str) -> str:
    try:
        return normalise(url)
    except StoreError as error:
        raise PlanError(str(error)) from error


def _real(place: str) -> str:
    """Resolve the links of a local path."""
    return place if scheme_of(place) else os.path.realpath(place)


def _patterns(url: str, shards: Collection[str]) -> list[tuple[str, str]]:
    """Give a folder or glob as its root, as written and with its links resolved, and the pattern below it."""
    place = _normal(url)
    if place in shards:
        return []
    root, pattern = (place, "**/*.parquet") if _is_folder(place) else split_glob(place)
    return [(root or "/", pattern), (_real(root or "/"), pattern)]


def _is_folder(place: str) -> bool:
    return not has_wildcard(place) or (not scheme_of(place) and Path(place).is_dir())


def _lists(root: str, pattern: str, url: str) -> bool:
    """Tell whether `expand` would find a file at `url`."""
    beginning = join_url(root, "")
    return url.startswith(beginning) and is_listed(url.removeprefix(beginning), pattern)


def survey(
    found: Sequence[Found],
    recorded: Mapping[str, Shard],
    pipeline: Pipeline,
    *,
    limit_rows: int | None = None,
    relabel: bool = False,
) -> Corpus:
    """Read the footers of shards that are new, check their columns and cut them into pieces.

    Args:
        found: the listing.
        recorded: what earlier plans of the same sink recorded, by name.
        pipeline: names the columns that must be there.
        limit_rows: stop once so many rows are found.
        relabel: take recorded shards whose content changed for new ones, instead of refusing them.

    Raises:
        PlanError: a column is missing or of the wrong type, or a recorded shard's content changed.
    """
    shards: list[Shard] = []
    fresh: list[Shard] = []
    unreadable: dict[str, str] = {}
    for one, surveyed in _in_order(found, lambda one: _survey_one(one, recorded.get(one.name), pipeline, relabel)):
        if isinstance(surveyed, str):
            unreadable[one.name] = surveyed
            continue
        shards.append(surveyed)
        if one.name not in recorded or recorded[one.name].input_id != surveyed.input_id:
            fresh.append(surveyed)
        if limit_rows is not None and sum(shard.num_rows for shard in shards) >= limit_rows:
            break
    names = {one.name for one in found}
    vanished = tuple(sorted(name for name in recorded if name not in names))
    return Corpus(tuple(shards), unreadable, tuple(fresh), vanished)


def _in_order(found: Sequence[Found], work: Callable[[Found], Shard | str]) -> Iterator[tuple[Found, Shard | str]]:
    with ThreadPoolExecutor(16) as pool:
        for start in range(0, len(found), 256):
            yield from zip(found[start : start + 256], pool.map(work, found[start : start + 256]), strict=True)


def _survey_one(one: Found, known: Shard | None, pipeline: Pipeline, relabel: bool) -> Shard | str:
    if known is not None and (known.num_bytes, known.version) == (one.num_bytes, one.version):
        return replace(known, url=one.url)
    source = pipeline.source
    try:
        found = sources.survey(one.kind, one.url, one.part, source.storage_options)
    except (ShardError, StoreError) as error:
        return str(error)
    if known is not None and not relabel:
        raise PlanError(
            f"{one.url}: its content changed since it was planned ({known.num_bytes:,} bytes, now "
            f"{one.num_bytes:,}; version {known.version}, now {one.version}). Bring the old file back, label "
            "into another sink, or redo what differs with --relabel"
        )
    try:
        check_columns(one.url, found.schema, audio=source.audio, others=source_columns(pipeline))
    except ShardError as error:
        raise PlanError(str(error)) from None
    _check_conditions(one.url, found.schema, pipeline)
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


def settle(pipeline: Pipeline, resources: Resources) -> Settings:
    """Check the checkpoint against the pipeline and the pool against the cluster, and decide what "auto" means.

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
    gpus = _gpus_per_actor(pipeline, resources)
    on_gpu = label.device == "cuda" or (label.device == "auto" and gpus > 0)
    dtype = label.dtype if label.dtype != "auto" else ("bfloat16" if on_gpu else "float32")
    _check_pool(pipeline, resources, gpus)
    memory = _memory_of_actor(label, resources, gpus) if gpus or not on_gpu else None
    budget = label.batch_seconds or batch_seconds(summary, on_gpu=on_gpu, memory=memory)
    return Settings(
        checkpoint=summary,
        dtype=dtype,
        device="cuda" if on_gpu else "cpu",
        batch_seconds=budget,
        block_seconds=block_seconds(summary, on_gpu=on_gpu, batch_seconds=budget, threads=label.pool.cpus),
        gpus_per_actor=gpus,
    )


def _memory_of_actor(label: Label, resources: Resources, gpus: float) -> float | None:
    """Tell the bytes that each actor has: of its GPU, reserved, or its share of the machines beside one reader each."""
    if gpus:
        return None if resources.gpu_memory is None else resources.gpu_memory * min(gpus, 1)
    if label.pool.memory or resources.memory is None:
        return label.pool.memory
    return resources.memory / (label.pool.high + 1)


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


def _gpus_per_actor(pipeline: Pipeline, resources: Resources) -> float:
    label = pipeline.label
    if label.device == "cpu":
        return label.pool.gpus or 0
    if label.pool.gpus is not None:
        return label.pool.gpus
    return 1 if resources.gpus > 0 else 0


def _check_pool(pipeline: Pipeline, resources: Resources, gpus: float) -> None:
    pool = pipeline.label.pool
    if pool.low * gpus > resources.gpus or (pipeline.label.device == "cuda" and gpus == 0):
        raise PlanError(
            f"pool: {pool.low} actor(s) of {gpus:g} GPU(s), device={pipeline.label.device!r}; found "
            f"{resources.gpus:g} GPU(s). Lower pool.actors or pool.gpus, or set device='cpu'"
        )
    if pool.low * pool.cpus + 1 > resources.cpus:
        raise PlanError(
            f"pool: {pool.low} actor(s) of {pool.cpus} CPU(s) leave none of {resources.cpus:g} CPUs to decode with; "
            "lower pool.actors or pool.cpus"
        )


def hash_pipeline(pipeline: Pipeline, settings: Settings) -> tuple[dict[str, JsonValue], str]:
    """Collect what can change a label and hash it."""
    digest = _digest(checkpoint_folder(pipeline))
    parts = label_parts(pipeline, checkpoint_digest=digest, dtype=settings.dtype)
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
