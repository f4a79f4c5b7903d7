"""Trust in a sink's record: a sink is data, and its record may come from another user.

The record names urls, options with environment variables and endpoints, and modules. These are used only if the user
passes the pipeline, declares the sink trusted, or ran the same pipeline on this machine before. In the last case
modules are still not imported.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import cast

from raysp.corpus.shards import Shard
from raysp.errors import ChangedError, PlanError, TrustError
from raysp.labelling.planning.backend_choice import as_recorded
from raysp.labelling.planning.listing import of_commit
from raysp.sink import known, run_record
from raysp.sink.run_record import RunRecord
from raysp.sink.sinks import Sink
from raysp.specs.pipeline import USUAL_ID, Pipeline, file_parts
from raysp.specs.values import JsonValue, from_json, to_json
from raysp.storage.globs import has_wildcard, split_glob
from raysp.storage.options import GivenOptions, options_of
from raysp.storage.store import Store, normalise, scheme_of

_PLACES = ("url", "root", "audio_root", "checkpoint", "lm")
_FUNCTIONS = ("where", "function")
"""Fields of steps that name a function."""
SHOWN_CHARACTERS = 200
SHOWN_PARTS = 20


@dataclass(frozen=True)
class Recorded:
    """A sink, its record, and the parts of the record that may be used."""

    sink: Sink
    record: RunRecord
    pipeline: Pipeline | None
    """Pipeline that made the labels, with the current place of the sink; None: the recorded one may not be used."""
    unused: tuple[str, ...] = ()
    """Values of the record that may not be used, as `source.url='...'`."""
    roots: tuple[str, ...] | None = None
    """Files and folders that may hold the plan's shards; None: no restriction."""

    def trusted_pipeline(self) -> Pipeline:
        """Return the pipeline.

        Raises:
            TrustError: only the recorded one is available, and it may not be used.
        """
        if self.pipeline is None:
            raise refusal(self.sink.url, self.unused)
        return self.pipeline

    def outside(self, shards: Iterable[Shard]) -> tuple[str, ...]:
        """Return the urls of planned shards outside the pipeline's source, which only the sink's plan names."""
        if self.roots is None:
            return ()
        files = frozenset(self.roots)
        folders = tuple(f"{root.rstrip('/')}/" for root in self.roots)
        urls = dict.fromkeys(shard.url for shard in shards)
        return tuple(url for url in urls if not (url in files or (url.startswith(folders) and _is_plain(url))))


def read_recorded(
    sink: str,
    storage_options: GivenOptions | None = None,
    *,
    pipeline: Pipeline | None = None,
    trust: bool = False,
) -> Recorded:
    """Open a sink and read its record.

    Args:
        sink: url of the sink.
        storage_options: options to reach it; None: those of `pipeline`, else the recorded ones if they may be used,
            else environment and profile.
        pipeline: pipeline that made the labels; the recorded one is then not used.
        trust: use everything that the record names.

    Raises:
        PlanError: there is no sink at this url.
    """
    opened, record = open_recorded(sink, storage_options, pipeline=pipeline, trust=trust)
    options = storage_options if storage_options is not None else _options(sink, record, pipeline, trust)
    unused = () if pipeline or trust else untrusted_parts(record)
    if unused:
        return Recorded(opened, record, None, unused)
    made = _with_recorded(pipeline, record) if pipeline else _pipeline(opened, record)
    made = replace(made, sink=replace(made.sink, url=sink, storage_options=options_of(options or {})))
    return Recorded(opened, record, made, roots=None if trust else _roots(made, record))


def _with_recorded(pipeline: Pipeline, record: RunRecord) -> Pipeline:
    """Return a pipeline with the choices of its sink's first plan for values that it leaves open."""
    return _with_recorded_ids(as_recorded(of_commit(pipeline, record), record), record)


def _with_recorded_ids(pipeline: Pipeline, record: RunRecord) -> Pipeline:
    """Return a pipeline with an `id` of None if it has the usual value and the sink's labels were made without ids."""
    source = pipeline.source
    is_numbered = source.id == USUAL_ID and record.parts.get("source.id", USUAL_ID) is None
    return replace(pipeline, source=replace(source, id=None)) if is_numbered else pipeline


def open_recorded(
    sink: str | Store,
    storage_options: GivenOptions | None = None,
    *,
    pipeline: Pipeline | None = None,
    trust: bool = False,
) -> tuple[Sink, RunRecord]:
    """Open a sink and read its record without importing anything; arguments are those of `read_recorded`.

    Raises:
        PlanError: there is no sink at this url.
    """
    options = pipeline.sink.storage_options if storage_options is None and pipeline else storage_options
    opened = Sink.open(sink, options)
    record = opened.existing_record()
    if isinstance(sink, str) and options is None and (recorded := _options(sink, record, pipeline, trust)):
        opened = Sink.open(sink, recorded)
    return opened, record


def check_same_source(sink: str, record: RunRecord, pipeline: Pipeline) -> None:
    """Raise if a pipeline carries over other columns than the recorded one; its labels are not compared.

    Raises:
        ChangedError: the columns differ; the message lists the differences.
    """
    ids: dict[str, JsonValue] = {"source.id": pipeline.source.id}
    old = {"source.id": record.parts.get("source.id", pipeline.source.id)}
    of_files = run_record.file_differences(record, file_parts(pipeline), to_json(pipeline))
    if changed := (*of_files, *run_record.differences(old, ids)):
        raise ChangedError(
            f"{sink}: its labels were made by another pipeline: {'; '.join(changed)}; give the pipeline that made them",
            changed,
        )


def refusal(sink: str, unused: Sequence[str]) -> TrustError:
    """Return the error that lists the unused values."""
    return TrustError(f"{sink}: {explain(unused)}", tuple(unused))


def explain(unused: Sequence[str]) -> str:
    """Return a text on why values of a record are not used, and the remedy."""
    more = f"; and {len(unused) - SHOWN_PARTS} more" if len(unused) > SHOWN_PARTS else ""
    return (
        f"its record names {'; '.join(unused[:SHOWN_PARTS])}{more}. A sink is untrusted data: none of this is used "
        "unless you give the pipeline file instead of the sink, or --trust (in Python: pipeline=, trust=True)"
    )


def untrusted_parts(record: RunRecord) -> tuple[str, ...]:
    """Return the untrusted values of a recorded pipeline; empty if this user ran it before and it imports no module."""
    parts = tuple(_foreign(record.pipeline, ""))
    imports = any(_is_import(part) for part in parts)
    return () if known.is_known(record.pipeline) and not imports else parts


def _is_import(part: str) -> bool:
    key = part.partition("=")[0]
    return key.rpartition(".")[2] in ("type", *_FUNCTIONS)


def _foreign(value: JsonValue, path: str) -> Iterator[str]:
    """Yield the places, options and modules outside the sink that a recorded value names."""
    if isinstance(value, dict):
        kind = value.get("type")
        if kind == "Env":
            yield _shown(path, f"Env({value.get('name')!r})")
            return
        if isinstance(kind, str) and ":" in kind:
            yield _shown(f"{path}.type".lstrip("."), repr(kind))
        for key, item in value.items():
            yield from _foreign(item, f"{path}.{key}".lstrip(".")) if key != "type" else ()
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _foreign(item, f"{path}.{index}")
    elif _is_foreign(value, path):
        yield _shown(path, repr(value))


def _is_foreign(value: JsonValue, path: str) -> bool:
    """Return whether a plain value refers to something outside the sink."""
    *parents, name = [part for part in path.split(".") if not part.isdigit()] or [""]
    if value is None or (path == "sink.url" and "storage_options" not in parents):
        return False
    if "storage_options" in parents or name in _PLACES:
        return True
    return isinstance(value, str) and (bool(scheme_of(value)) or (name in _FUNCTIONS and path.endswith(f".{name}")))


def _shown(path: str, value: str) -> str:
    return f"{path}={value if len(value) <= SHOWN_CHARACTERS else value[:SHOWN_CHARACTERS] + '...'}"


def _options(sink: str, record: RunRecord, pipeline: Pipeline | None, trust: bool) -> Mapping[str, object] | None:
    """Return the usable storage options of a sink; those of a known record are valid only at its recorded place."""
    if pipeline is not None:
        return pipeline.sink.storage_options
    recorded = record.pipeline.get("sink") if isinstance(record.pipeline, dict) else None
    if not isinstance(recorded, dict) or not (trust or not untrusted_parts(record)):
        return None
    url = recorded.get("url")
    if not trust and not (isinstance(url, str) and normalise(url) == normalise(sink)):
        return None
    return cast("Mapping[str, object]", from_json(recorded.get("storage_options", {})))


def _pipeline(sink: Sink, record: RunRecord) -> Pipeline:
    pipeline = from_json(record.pipeline)
    if type(pipeline) is not Pipeline:  # a record is data, and may hold anything
        raise PlanError(
            f"{sink.url}: its record holds a {type(pipeline).__name__}, expected a Pipeline; give the pipeline file"
        )
    return pipeline


def _roots(pipeline: Pipeline, record: RunRecord) -> tuple[str, ...]:
    places = [normalise(url) for url in pipeline.source.urls]
    roots = [split_glob(place)[0] if has_wildcard(place) else place for place in places]
    return (*roots, *([record.root] if record.root and known.is_known(record.root) else []))


def _is_plain(url: str) -> bool:
    return normalise(url) == url and ".." not in url.split("/")
