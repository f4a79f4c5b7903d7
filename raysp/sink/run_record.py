"""`.raysp/run.json`: the pipeline that a sink belongs to, and every run over it."""

import functools
import json
import platform
import shlex
import socket
import sys
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from importlib import metadata
from typing import cast

from raysp.errors import ChangedError, PlanError, StoreError
from raysp.sink import layout
from raysp.specs.values import JsonValue
from raysp.storage.store import Store

SCHEMA_VERSION = 1
"""Of everything under `.raysp/` and of the metadata in label shards."""

ABSENT = "absent"
UNSET = "unset"
CODE = "code."
"""Prefix of the parts that are hashes of a user's files."""
SHOWN_CHARACTERS = 40  # of a value in a difference


@dataclass(frozen=True)
class RunEntry:
    """One execution: where, by what, and the values that were left open by the pipeline."""

    run_id: str
    """Begins with the time, so that runs sort by it."""
    started: str
    versions: Mapping[str, str]
    host: str
    command: str
    resolved: Mapping[str, JsonValue] = field(default_factory=dict)

    @classmethod
    def now(
        cls, *, command: Sequence[str] | None = None, resolved: Mapping[str, JsonValue] | None = None
    ) -> "RunEntry":
        """Describe a run that begins here and now; the command is this process's unless given."""
        time = datetime.now(UTC)
        return cls(
            run_id=f"{time:%Y%m%dT%H%M%S%fZ}-{uuid.uuid4().hex[:6]}",
            started=time.isoformat(timespec="seconds"),
            versions=_versions(),
            host=socket.gethostname(),
            command=shlex.join(sys.argv if command is None else command),
            resolved=dict(resolved or {}),
        )


@dataclass(frozen=True)
class Resolved:
    """Values of "auto" settings as a sink's first plan resolved them; every later plan takes them."""

    dtype: str
    device: str | None = None
    batch_seconds: float | None = None
    """None: the pipeline set it, or it is unknown."""


@dataclass(frozen=True)
class RunRecord:
    """What run.json holds; see there."""

    created: str
    pipeline: JsonValue
    fingerprint: str
    parts: Mapping[str, JsonValue]
    """All that can change a label, by dotted names."""
    file_parts: Mapping[str, JsonValue]
    """What changes a label shard but no label."""
    runs: tuple[RunEntry, ...]
    root: str | None = None
    """What label shards are named relative to; None in sinks of before it was recorded."""
    settings: Mapping[str, JsonValue] = field(default_factory=dict)
    """Values of "auto" settings as the first plan resolved them ; empty in older sinks."""
    schema_version: int = SCHEMA_VERSION

    @property
    def resolved(self) -> Resolved:
        """Values of "auto" settings that hold for this sink; an older one tells them by its last run."""
        if self.settings:
            return Resolved(**self.settings)  # type: ignore[arg-type]
        dtype = next((str(value) for key, value in self.parts.items() if key.endswith(".dtype")), "float32")
        said = next((run.resolved for run in reversed(self.runs) if "device" in run.resolved), {})
        return Resolved(**{"dtype": dtype, **{key: said[key] for key in ("device",) if key in said}})  # type: ignore[arg-type]


def load(store: Store) -> RunRecord | None:
    """Read the record; None when the store is no sink yet.

    Raises:
        PlanError: It was written by a newer raysp, or is not a record at all.
    """
    if store.stat(layout.RUN) is None:
        return None
    where = f"{store.url}/{layout.RUN}"
    try:
        found = json.loads(store.read(layout.RUN))
        version = found["schema_version"]
        if isinstance(version, int) and version > SCHEMA_VERSION:
            raise PlanError(
                f"{where}: schema version {version}, this raysp knows {SCHEMA_VERSION}; upgrade raysp, "
                "or take another sink"
            )
        return RunRecord(**{**found, "runs": tuple(RunEntry(**entry) for entry in found["runs"])})
    except (ValueError, KeyError, TypeError) as error:
        raise PlanError(f"{where}: not a run record ({error}); restore it, or take another sink") from error


def begin(
    store: Store,
    run: RunEntry,
    *,
    pipeline: JsonValue,
    fingerprint: str,
    parts: Mapping[str, JsonValue],
    file_parts: Mapping[str, JsonValue],
    relabel: bool = False,
    root: str | None = None,
    resolved: Resolved | None = None,
    anew: bool = False,
) -> RunRecord:
    """Make the record with a sink's first run, or add a later run to it.

    With `anew` the sink holds no result, so that nothing binds a run to the pipeline that began it.

    With `relabel` the sink belongs to this pipeline from now on. Else the pipeline gives the same labels, and its
    places, options and pool are recorded in place of the earlier ones; see `_latest`. `root` is that of the listing,
    which the plan has checked; None where nothing was listed. `resolved` is kept from the first plan, or from the
    first one that relabels with another pipeline.

    Raises:
        ChangedError: The sink belongs to a pipeline that gives other labels or other files.
    """
    settings = asdict(resolved) if resolved else {}
    made = RunRecord(run.started, pipeline, fingerprint, parts, file_parts, (run,), root, settings)
    if store.create(layout.RUN, _encode(made)):
        return made
    recorded = load(store)
    if recorded is None:
        raise StoreError(f"{store.url}/{layout.RUN}: it was there and is gone; does something else clear this folder?")
    if anew:
        begun = replace(made, runs=(*recorded.runs, run))
        store.replace(layout.RUN, _encode(begun))
        return begun
    if not recorded.settings or (relabel and recorded.fingerprint != fingerprint):
        recorded = replace(recorded, settings=settings)
    if relabel:
        store.create(layout.RELABELLED, b"")  # before anything is replaced, so that no marker is trusted from then on
        recorded = replace(recorded, pipeline=pipeline, fingerprint=fingerprint, parts=parts, file_parts=file_parts)
    check_same(store.url, recorded, fingerprint=fingerprint, parts=parts, file_parts=file_parts, pipeline=pipeline)
    pipeline = _latest(recorded.pipeline, pipeline)
    extended = replace(recorded, pipeline=pipeline, runs=(*recorded.runs, run), root=root or recorded.root)
    store.replace(layout.RUN, _encode(extended))
    return extended


def _latest(recorded: JsonValue, current: JsonValue) -> JsonValue:
    """Return which of two pipelines of the same labels to record: the latest that names an `audio_root`, if one does.

    Without it rows that were read by path could not be checked again. It is always one of the two, never a mixture:
    a user who ran it knows all of it.
    """
    return recorded if names_audio_root(recorded) and not names_audio_root(current) else current


def names_audio_root(pipeline: JsonValue) -> bool:
    """Return whether a pipeline, as JSON, says below which folder recordings may be read by path."""
    source = pipeline.get("source") if isinstance(pipeline, dict) else None
    return isinstance(source, dict) and source.get("audio_root") is not None


def check_same(
    url: str,
    recorded: RunRecord,
    *,
    fingerprint: str,
    parts: Mapping[str, JsonValue],
    file_parts: Mapping[str, JsonValue],
    pipeline: JsonValue = None,
) -> None:
    """Refuse to go on with a sink that another pipeline began.

    `pipeline` is the current one, whose fields say what differs in the files where only these do.

    Raises:
        ChangedError: `differences` names every key with its recorded and its current value.
    """
    if recorded.fingerprint != fingerprint:
        ours = {"fingerprint": recorded.fingerprint}, {"fingerprint": fingerprint}
        changed = differences(recorded.parts, parts) or differences(*ours)
        raise ChangedError(
            f"{url}: its labels were made by another pipeline: {'; '.join(changed)}; "
            "undo that, take another sink, or redo what differs with --relabel",
            changed,
        )
    if changed := file_differences(recorded, file_parts, pipeline):
        raise ChangedError(
            f"{url}: its label shards hold the same labels in other columns or rows: {'; '.join(changed)}; "
            "undo that, take another sink, or redo what differs with --relabel",
            changed,
        )


def differences(recorded: Mapping[str, JsonValue], current: Mapping[str, JsonValue]) -> tuple[str, ...]:
    """Describe what differs, as "`steps.1.window_seconds` was 30, now 20"; long values are cut to where they differ."""
    old, new = dict(_flatten(dict(recorded))), dict(_flatten(dict(current)))
    keys = [*old, *(key for key in new if key not in old)]
    found = {key: (old.get(key, UNSET), new.get(key, UNSET)) for key in keys}
    return tuple(_described(key, before, now) for key, (before, now) in found.items() if before != now)


def file_differences(
    recorded: RunRecord, file_parts: Mapping[str, JsonValue], pipeline: JsonValue = None
) -> tuple[str, ...]:
    """Describe what differs in the files of a sink, by the fields of the current pipeline where these show it."""
    found = differences(recorded.file_parts, file_parts)
    return found and (differences(_file_fields(recorded.pipeline), _file_fields(pipeline)) or found)


def _described(key: str, old: str, new: str) -> str:
    """Describe one difference; hashes, which say nothing to a reader, by what they are made of."""
    before, now = _shown(old, new)
    if key.startswith(CODE) and "version" not in old + new:
        file = key.removeprefix(CODE)
        verb = "is new" if old == UNSET else "is no longer used" if new == UNSET else "changed"
        return f"the code in `{file}` {verb}"
    if key.endswith(".checkpoint_digest"):
        return f"the files of `{key.removesuffix('_digest')}` changed (their digest was {before}, now {now})"
    if key == "label_version":
        return f"raysp itself labels differently since (label version {before}, now {now})"
    return f"`{key}` was {before}, now {now}"


def _file_fields(pipeline: JsonValue) -> dict[str, JsonValue]:
    """Return the fields of a recorded pipeline that change a label shard but no label."""
    fields = (("source", "text"), ("sink", "keep"), ("sink", "rows"))
    found: dict[str, JsonValue] = {}
    for part, name in fields:
        spec = pipeline.get(part) if isinstance(pipeline, dict) else None
        if isinstance(spec, dict) and name in spec:
            found[f"{part}.{name}"] = spec[name]
    return found


@functools.cache
def raysp_version() -> str:
    """Return the installed version."""
    return metadata.version("raysp")


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for package in ("raysp", "torch", "ray", "pyarrow"):
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = ABSENT
    return versions


def _encode(record: RunRecord) -> bytes:
    """Write it so that people can read it: the pipeline indented, a line for each other part and for each run."""
    pipeline = json.dumps(record.pipeline, indent=1).replace("\n", "\n ")
    runs = ",\n  ".join(json.dumps(vars(run)) for run in record.runs)
    values = {
        "schema_version": str(record.schema_version),
        "created": json.dumps(record.created),
        "pipeline": pipeline,
        "fingerprint": json.dumps(record.fingerprint),
        "parts": json.dumps(record.parts),
        "file_parts": json.dumps(record.file_parts),
        "root": json.dumps(record.root),
        "settings": json.dumps(record.settings),
        "runs": f"[\n  {runs}\n ]",
    }
    lines = (f' "{name}": {value}' for name, value in values.items())
    return ("{\n" + ",\n".join(lines) + "\n}\n").encode()


def _flatten(value: JsonValue, path: str = "") -> Iterator[tuple[str, str]]:
    """Yield (dotted key, value as shown) for every leaf; an empty object and a list of plain values are leaves."""
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
    """Cut both values alike, around the first character that differs."""
    same = next((i for i, (a, b) in enumerate(zip(old, new, strict=False)) if a != b), min(len(old), len(new)))
    first = max(0, same - SHOWN_CHARACTERS // 2) if max(len(old), len(new)) > SHOWN_CHARACTERS else 0
    return _cut(old, first), _cut(new, first)


def _cut(text: str, first: int) -> str:
    end = first + SHOWN_CHARACTERS
    return f"{'...' if first > 0 else ''}{text[first:end]}{'...' if end < len(text) else ''}"
