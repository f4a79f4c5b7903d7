"""Trust in a sink's record: a sink is data, and its record may come from another user.

The record names urls, options with environment variables and endpoints, and modules. These are used only if the user
declares the sink trusted. With the pipeline that made the labels, the values of the pipeline are used instead.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import cast

from raysp.corpus import sources
from raysp.corpus.shards import Shard
from raysp.errors import ChangedError, PlanError, TrustError
from raysp.labelling.planning.listing import of_commit
from raysp.labelling.planning.planned_checkpoint import as_recorded
from raysp.sink import run_record
from raysp.sink.run_record import RunRecord, field_of
from raysp.sink.sinks import Sink
from raysp.specs.pipeline import USUAL_ID, Pipeline, file_parts
from raysp.specs.values import JsonValue, from_json, to_json
from raysp.storage.options import options_of, split_glob
from raysp.storage.store import join_url, normalise, scheme_of
from raysp.work import SinkRequest

_NAMES = frozenset(("url", "root", "labels", "audio_root", "checkpoint", "lm", "where", "function"))
"""Fields whose values are places or functions."""
SHOWN_CHARACTERS = 200
SHOWN_PARTS = 20


@dataclass(frozen=True)
class Recorded:
    """A sink, its record, and the pipeline that may be used."""

    sink: Sink
    record: RunRecord
    pipeline: Pipeline | None
    """Pipeline that made the labels, with the current place of the sink; None: the recorded one may not be used."""
    trust: bool = False
    """Whether the sink's plan may name shards outside the pipeline's source."""

    def trusted_pipeline(self, shards: Iterable[Shard]) -> Pipeline:
        """Return the pipeline, to read shards of the sink's plan.

        Raises:
            TrustError: only the recorded one is available, or shards are outside its source.
        """
        unused = self.unused(shards)
        if self.pipeline is None or unused:
            raise TrustError(f"{self.sink.url}: {explain(unused)}", unused)
        return self.pipeline

    def unused(self, shards: Iterable[Shard]) -> tuple[str, ...]:
        """Return the values of the record that may not be used, as `source.url='...'`, or else the shards outside."""
        if self.pipeline is None:
            parts = [*_parts(self.record.pipeline, "")] or [("pipeline", repr(self.record.pipeline))]
            most = SHOWN_CHARACTERS
            return tuple(f"{path}={value if len(value) <= most else value[:most] + '...'}" for path, value in parts)
        return tuple(f"a shard at {url!r}" for url in self.outside(shards))

    def outside(self, shards: Iterable[Shard]) -> tuple[str, ...]:
        """Return the urls of planned shards outside the pipeline's source, which only the sink's plan names."""
        if self.pipeline is None or self.trust:
            return ()
        source, shards = self.pipeline.source, tuple(shards)
        urls = (*source.urls, *([source.root] if source.root else []))
        outside = {*_outside(urls, (shard.url for shard in shards))}
        recordings = (url for shard in shards if shard.url in outside for url in _recordings(shard))
        return (
            *_outside(urls, recordings),
            *_outside([source.labels] if source.labels else [], (shard.labels for shard in shards)),
        )


def _recordings(shard: Shard) -> list[str]:
    """Return the urls of the recordings of a folder, of which a source may name some; of another shard its own url."""
    if not sources.kind_named(shard.kind).is_folder:
        return [shard.url]
    paths = (path for piece in shard.pieces for path in sources.read_paths(shard, piece, "audio"))
    return [join_url(shard.url, path or "") for path in paths]


def _outside(places: Iterable[str], urls: Iterable[str]) -> Iterator[str]:
    """Yield the urls outside of some places, which may have wildcards; empty urls name nothing."""
    normal = [normalise(place) for place in places]
    roots = {split_glob(place)[0] for place in normal}
    folders = tuple(f"{root.rstrip('/')}/" for root in roots)
    for url in filter(None, dict.fromkeys(urls)):
        is_inside = url.startswith(folders) and normalise(url) == url and ".." not in url.split("/")
        if url not in roots and not is_inside:
            yield url


def read_recorded(request: SinkRequest) -> Recorded:
    """Open a sink and read its record, with the pipeline of the request, or with `trust` the recorded one.

    Raises:
        PlanError: there is no sink at this place.
    """
    opened, record = open_recorded(request)
    pipeline, trust, options = request.pipeline, request.trust, request.storage_options
    if pipeline is None and not trust:
        return Recorded(opened, record, None)
    if pipeline is None:
        made = from_json(record.pipeline)
        if type(made) is not Pipeline:  # a record is data, and may hold anything
            raise PlanError(
                f"{opened.url}: its record holds a {type(made).__name__}, expected a Pipeline; give the pipeline file"
            )
    else:  # with the choices of the sink's first plan for values that it leaves open
        made = as_recorded(of_commit(pipeline, record), record)
        if made.source.id == USUAL_ID and record.parts.get("source.id", USUAL_ID) is None:  # there was no such column
            made = replace(made, source=replace(made.source, id=None))
    options = made.sink.storage_options if options is None else options
    url = request.place if isinstance(request.place, str) else opened.url
    made = replace(made, sink=replace(made.sink, url=url, storage_options=options_of(options)))
    return Recorded(opened, record, made, trust)


def open_recorded(request: SinkRequest) -> tuple[Sink, RunRecord]:
    """Open a sink and read its record without importing anything.

    Raises:
        PlanError: there is no sink at this place.
    """
    options = request.storage_options
    if options is None and request.pipeline is not None:
        options = request.pipeline.sink.storage_options
    opened = Sink.open(request.place, options)
    record = opened.existing_record()
    if request.trust and isinstance(request.place, str) and options is None:
        named = from_json(field_of(record.pipeline, "sink", "storage_options"))
        opened = Sink.open(request.place, cast("Mapping[str, object] | None", named))
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


def explain(unused: Sequence[str]) -> str:
    """Explain why values of a record are not used, with the remedy."""
    more = f"; and {len(unused) - SHOWN_PARTS} more" if len(unused) > SHOWN_PARTS else ""
    return (
        f"its record names {'; '.join(unused[:SHOWN_PARTS])}{more}. A sink is untrusted data: none of this is used "
        "unless you give the pipeline file instead of the sink, or --trust (in Python: pipeline=, trust=True)"
    )


def _parts(value: JsonValue, path: str) -> Iterator[tuple[str, str]]:
    """Yield the places, options and modules outside the sink that a record names."""
    *parents, name = [part for part in path.split(".") if not part.isdigit()] or [""]
    if isinstance(value, dict) and value.get("type") == "Env":
        yield path, f"Env({value.get('name')!r})"
    elif isinstance(value, dict | list):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _parts(item, f"{path}.{key}".lstrip("."))
    elif name == "type":
        is_module = ":" in str(value)
        yield from [(path, repr(value))] if is_module else []
    elif value is not None and path != "sink.url":
        is_url = isinstance(value, str) and bool(scheme_of(value))
        yield from [(path, repr(value))] if is_url or name in _NAMES or "storage_options" in parents else []
