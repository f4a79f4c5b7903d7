"""Record of a sink: its work, everything that can change its results, and every run over it.

The record of labels is `.raysp/run.json`, the record of a training `.raysp/recipe.json`. Both begin, continue and
refuse other work by the same functions.
"""

import functools
import json
import platform
import shlex
import socket
import sys
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from importlib import metadata
from typing import Any, ClassVar, Protocol, TypeVar, cast

from raysp import bounds
from raysp.errors import ChangedError, PlanError, StoreError
from raysp.sink import layout, records
from raysp.sink.fencing import replace_version
from raysp.sink.records import Natural
from raysp.specs.values import JsonValue
from raysp.storage.store import Store

SCHEMA_VERSION = 1
"""Version of everything under `.raysp/` and of the metadata in label shards."""

ABSENT = "absent"
UNSET = "unset"
CODE = "code."
"""Prefix of parts that are hashes of a user's files."""
SHOWN_CHARACTERS = 40  # of each value in a difference


@dataclass(frozen=True)
class RunEntry:
    """One execution: its host, command, package versions, and values that the pipeline left open."""

    run_id: str
    """Starts with the time, so that runs sort by it."""
    started: str
    versions: Mapping[str, str]
    host: str
    command: str
    resolved: Mapping[str, JsonValue] = field(default_factory=dict)

    @classmethod
    def now(
        cls, *, command: Sequence[str] | None = None, resolved: Mapping[str, JsonValue] | None = None
    ) -> "RunEntry":
        """Return the entry of a run that begins now on this host; the command is this process's by default."""
        time = datetime.now(UTC)
        packages = ("raysp", "torch", "ray", "pyarrow", "soundfile", "av")
        return cls(
            run_id=f"{time:%Y%m%dT%H%M%S%fZ}-{uuid.uuid4().hex[:6]}",
            started=time.isoformat(timespec="seconds"),
            versions={
                "python": platform.python_version(),
                **{package: installed_version(package) for package in packages},
            },
            host=socket.gethostname(),
            command=shlex.join(sys.argv if command is None else command),
            resolved=dict(resolved or {}),
        )


@dataclass(frozen=True)
class Resolved:
    """Values of "auto" settings, resolved by a sink's first plan and used by every later one."""

    dtype: str
    device: str | None = None
    batch_seconds: float | None = None
    """Padded seconds of a pass; None: set by the pipeline, or unknown."""
    alone: bool | None = None
    """Whether each window is a pass of its own, by what was measured for the model; None: unknown."""
    later: tuple["Resolved", ...] = ()
    """Those of the `Label` steps after the first."""

    @property
    def passes(self) -> tuple["Resolved", ...]:
        """Those of each `Label` step."""
        return (self, *self.later)


class Record(Protocol):
    """Fields of the records of all kinds of work."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def runs(self) -> tuple[RunEntry, ...]:
        """Every run over the sink, in order."""


R = TypeVar("R", bound=Record)


@dataclass(frozen=True)
class RunRecord:
    """Content of run.json."""

    created: str
    pipeline: JsonValue
    fingerprint: str
    parts: Mapping[str, JsonValue]
    """Everything that can change a label, by dotted name."""
    file_parts: Mapping[str, JsonValue]
    """Everything that changes a label shard but no label."""
    runs: tuple[RunEntry, ...]
    root: str | None = None
    """Folder that label shards are named relative to; None if no shard was listed."""
    settings: Mapping[str, JsonValue] = field(default_factory=dict)
    """Values of "auto" settings, resolved by the first plan; empty in merged sinks."""
    columns: str = ""
    """Types of the columns that label shards carry over, as `planning.carried` encodes them; empty in merged sinks."""
    stage_id: str = ""
    """Hash of everything up to the last `Label`; empty: no step is after it."""
    schema_version: Natural = SCHEMA_VERSION

    @property
    def staged_as(self) -> str:
        """Id in the names of staged results."""
        return self.stage_id or self.fingerprint

    @property
    def resolved(self) -> Resolved:
        """Values of "auto" settings for this sink; in merged sinks the data type of `parts`."""
        if self.settings:
            return records.checked(self.settings, Resolved)
        dtype, *later = [str(value) for key, value in self.parts.items() if key.endswith(".dtype")] or ["float32"]
        return Resolved(dtype, later=tuple(map(Resolved, later)))

    @property
    def checkpoint_digest(self) -> str | None:
        """Hash of the weights, configuration and tokenizer that the labels were made with, by the first `Label`."""
        return next(iter(checkpoint_digests(self.parts)), None)

    @property
    def steps(self) -> list[dict[str, JsonValue]]:
        """Recorded steps of the pipeline; see `objects_in`."""
        return objects_in(self.pipeline, "steps")


def field_of(value: JsonValue, *path: str) -> JsonValue:
    """Return a field of a recorded value, by the names of the fields above it; None if there is no such field."""
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    return value


def objects_in(value: JsonValue, name: str) -> list[dict[str, JsonValue]]:
    """Return the objects of a list that a recorded value should have; an empty one for each value of another type."""
    values = field_of(value, name)
    return [entry if isinstance(entry, dict) else {} for entry in values] if isinstance(values, list) else []


def load(store: Store) -> RunRecord | None:
    """Return the record; None if the store is not a sink yet.

    Raises:
        PlanError: It was written by a newer raysp, or is not a record.
    """
    if store.stat(layout.RUN) is None:
        return None
    record = read_record(store, layout.RUN, RunRecord)
    try:
        records.checked(record.settings or {"dtype": ""}, Resolved)
    except ValueError as error:
        raise _not_a_record(store, layout.RUN, error) from error
    return record


def read_record(store: Store, path: str, kind: type[R]) -> R:
    """Return the record at a path, which must exist.

    Raises:
        PlanError: It was written by a newer raysp, or is not a record of this kind.
    """
    try:
        content = bounds.parse_record(store.read(path))
        version = content.get("schema_version") if isinstance(content, dict) else None
        if isinstance(version, int) and version > SCHEMA_VERSION:
            raise PlanError(
                f"{store.url}/{path}: schema version {version}, this version of raysp reads {SCHEMA_VERSION}; upgrade "
                "raysp, or use another sink"
            )
        return records.checked(content, kind)
    except ValueError as error:
        raise _not_a_record(store, path, error) from error


def _not_a_record(store: Store, path: str, error: ValueError) -> PlanError:
    return PlanError(f"{store.url}/{path}: not a run record ({bounds.plain(error)}); restore it, or use another sink")


def begin(store: Store, made: RunRecord, *, replaces_record: bool = False) -> RunRecord:
    """Create the record with a sink's first run, or add a later run to it.

    With `replaces_record` the sink holds no result, so the recorded pipeline is replaced without a check.

    Otherwise the pipeline must produce the same labels, and its places, options and pool replace the recorded ones,
    unless it lacks the recorded `audio_root`. The settings are kept from the first plan. If the id in the names of
    staged results is the recorded one, the steps after the last `Label` may change until a shard is committed.

    Args:
        store: the sink.
        made: record of the run, as if it was the first one.
        replaces_record: replace the recorded pipeline.

    Raises:
        ChangedError: The sink belongs to a pipeline that produces other labels or other files.
        RunError: Another run took over the lease, if the store is a `FencedStore`.
    """
    joined = partial(_joined, store, made=made)
    return begin_record(store, layout.RUN, made, joined, first=partial(_replaced, made) if replaces_record else joined)


def begin_record(
    store: Store,
    path: str,
    made: R,
    joined: Callable[[R], R],
    *,
    first: Callable[[R], R] | None = None,
    creates: bool = True,
) -> R:
    """Create a record with the first run of a sink, or replace it by one with a later run.

    Args:
        store: the sink.
        path: path of the record.
        made: record of the run, as if it was the first one.
        joined: returns the record with the run, from the recorded one; raises if the run must not continue it.
        first: as `joined`, until another run has replaced the record; None: `joined`.
        creates: whether the record may be missing; False: the run has seen it.

    Raises:
        StoreError: the record was removed meanwhile.
        RunError: Another run took over the lease, if the store is a `FencedStore`.
    """
    # Of two first runs one creates the record, and the other one is checked against it.
    if creates and store.create(path, encode(made)):
        return made
    join = first or joined
    while True:
        # In this order: a record that another run writes after any of these steps is not replaced.
        entry = store.stat(path)
        if entry is None:
            raise StoreError(
                f"{store.url}/{path}: it was removed; check which process removes files in this folder, and run again"
            )
        recorded = read_record(store, path, type(made))
        begun = join(recorded)
        if begun == recorded or replace_version(store, path, encode(begun), expected=entry.version):
            return begun
        join = joined


def all_runs(recorded: Record, made: Record) -> tuple[RunEntry, ...]:
    """Return the runs of `recorded`, followed by the run of `made` if it is missing there."""
    return recorded.runs if made.runs[0] in recorded.runs else (*recorded.runs, *made.runs)


def _replaced(made: RunRecord, recorded: RunRecord) -> RunRecord:
    return replace(made, runs=all_runs(recorded, made))


def _joined(store: Store, recorded: RunRecord, made: RunRecord) -> RunRecord:
    """Return the recorded pipeline with another run, whose labels must be the same."""
    recorded = continued(store, recorded, made)
    # Without the root, rows that were read by path could not be checked again.
    keeps_root = names_audio_root(recorded.pipeline) and not names_audio_root(made.pipeline)
    return replace(
        recorded,
        pipeline=recorded.pipeline if keeps_root else made.pipeline,
        runs=all_runs(recorded, made),
        root=made.root or recorded.root,
        settings=recorded.settings or made.settings,
        columns=made.columns or recorded.columns,
    )


def continued(store: Store, recorded: RunRecord, made: RunRecord) -> RunRecord:
    """Return the record that a run continues, with the steps of the run after the last `Label` if they may change.

    Raises:
        ChangedError: as `check_same`.
    """
    if recorded.fingerprint != made.fingerprint and is_open(store, recorded, made.staged_as):
        recorded = replace(recorded, fingerprint=made.fingerprint, parts=made.parts, stage_id=made.stage_id)
    check_same(store.url, recorded, made)
    return recorded


def is_open(store: Store, recorded: RunRecord, staged_as: str) -> bool:
    """Return whether the steps after the last `Label` may change: no shard is committed, and those up to it stay."""
    if recorded.staged_as != staged_as:
        return False
    return not any(layout.is_label_shard(entry.path) for entry in store.list())


def names_audio_root(pipeline: JsonValue) -> bool:
    """Return whether a pipeline, as JSON, sets the folder of recordings that are read by path."""
    return field_of(pipeline, "source", "audio_root") is not None


def check_same(url: str, recorded: RunRecord, current: RunRecord) -> None:
    """Raise if the sink belongs to another pipeline than `current`.

    Raises:
        ChangedError: `differences` lists every key with its recorded and its current value.
    """
    if recorded.fingerprint != current.fingerprint:
        ours = {"fingerprint": recorded.fingerprint}, {"fingerprint": current.fingerprint}
        changed = differences(recorded.parts, current.parts) or differences(*ours)
        raise ChangedError(
            f"{url}: its labels were made by another pipeline: {'; '.join(changed)}; undo the change, or use another "
            "sink",
            changed,
        )
    if changed := file_differences(recorded, current.file_parts, current.pipeline):
        raise ChangedError(
            f"{url}: its label shards hold the same labels in other columns or rows: {'; '.join(changed)}; "
            "undo the change, or use another sink",
            changed,
        )


def differences(recorded: Mapping[str, JsonValue], current: Mapping[str, JsonValue]) -> tuple[str, ...]:
    """Return the differences, as "`steps.1.window_seconds` was 30, now 20"; long values are cut around the change."""
    old, new = dict(_flatten(dict(recorded))), dict(_flatten(dict(current)))
    values = ((key, old.get(key, UNSET), new.get(key, UNSET)) for key in dict.fromkeys((*old, *new)))
    return tuple(_described(key, before, now) for key, before, now in values if before != now)


def file_differences(
    recorded: RunRecord, file_parts: Mapping[str, JsonValue], pipeline: JsonValue = None
) -> tuple[str, ...]:
    """Return the differences that change a sink's files, named by fields of the pipeline if these differ."""
    changed = differences(recorded.file_parts, file_parts)
    return changed and (differences(_file_fields(recorded.pipeline), _file_fields(pipeline)) or changed)


def _described(key: str, old: str, new: str) -> str:
    """Return one difference as text; for a hash, the text names its source."""
    before, now = _shown(old, new)
    if key.startswith(CODE) and "version" not in old + new:
        file = key.removeprefix(CODE)
        verb = "is new" if old == UNSET else "is no longer used" if new == UNSET else "changed"
        return f"the code in `{file}` {verb}"
    if key.endswith(".checkpoint_digest"):
        return f"the files of `{key.removesuffix('_digest')}` changed (their digest was {before}, now {now})"
    if key == "label_version":
        return f"this version of raysp labels differently (label version was {before}, now {now})"
    return f"`{key}` was {before}, now {now}"


def _file_fields(pipeline: JsonValue) -> dict[str, JsonValue]:
    """Return the fields of a recorded pipeline that change a label shard but no label."""
    fields = (("source", "text"), ("sink", "keep"), ("sink", "rows"))
    return {".".join(path): field_of(pipeline, *path) for path in fields}


def checkpoint_digests(parts: Mapping[str, JsonValue]) -> list[str]:
    """Return the digests of the checkpoints of all `Label` steps."""
    return [str(value) for key, value in parts.items() if key.endswith(".checkpoint_digest")]


@functools.cache
def installed_version(package: str) -> str:
    """Return the version of an installed package."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ABSENT


def encode(record: Record) -> bytes:
    """Return the content of the file of a record."""
    return json.dumps({"schema_version": 0, **asdict(record)}, indent=1).encode()  # the version first


def _flatten(value: JsonValue, path: str = "") -> Iterator[tuple[str, str]]:
    """Yield (dotted key, value as shown) for every leaf; empty objects and lists of plain values are leaves."""
    items: list[tuple[str, JsonValue]] = []
    if isinstance(value, dict):
        items = list(value.items())
    elif isinstance(value, list | tuple):
        value = list(cast("Sequence[JsonValue]", value))
        if not all(isinstance(item, str | int | float) for item in value):
            items = [(str(i), item) for i, item in enumerate(value)]
    if not items:
        yield path, UNSET if value is None else repr(value)
    for key, item in items:
        yield from _flatten(item, f"{path}.{key}" if path else key)


def _shown(old: str, new: str) -> tuple[str, str]:
    """Return both values, cut to the same range around the first different character."""
    same = next((i for i, (a, b) in enumerate(zip(old, new, strict=False)) if a != b), min(len(old), len(new)))
    first = max(0, same - SHOWN_CHARACTERS // 2) if max(len(old), len(new)) > SHOWN_CHARACTERS else 0
    return _cut(old, first), _cut(new, first)


def _cut(text: str, first: int) -> str:
    end = first + SHOWN_CHARACTERS
    return f"{'...' if first > 0 else ''}{text[first:end]}{'...' if end < len(text) else ''}"
