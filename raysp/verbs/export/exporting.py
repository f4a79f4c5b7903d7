"""Export of a sink: the options are checked, then its label shards are written."""

import hashlib
import shutil
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, cast

from raysp.checkpoints.fetching import cache_folder
from raysp.cluster.addresses import is_named
from raysp.cluster.spreading import Spread
from raysp.corpus.shards import Shard
from raysp.errors import PlanError, RunError, SpecError, StoreError, refuse_unused
from raysp.labelling.finished.finished_labels import Labelling, identity_of, refuse_overlap
from raysp.labelling.planning.trust import open_recorded
from raysp.specs.code import UserCode
from raysp.specs.pipeline import Pipeline, read_code
from raysp.specs.values import JsonValue, to_json
from raysp.storage.options import GivenOptions, options_of
from raysp.storage.store import HOME, Store, join_url, scheme_of
from raysp.storage.stores import open_store
from raysp.verbs.export.destination import WHOLE, Destination, Tally
from raysp.verbs.export.export_result import Export
from raysp.verbs.export.formats import Format, format_of
from raysp.verbs.export.naming import ID
from raysp.verbs.export.shard_export import Exported, ShardExport, Todo, Writer
from raysp.verbs.export.source_audio import Source
from raysp.words import listed
from raysp.work import SinkRequest

WRITER_VERSION = 4
"""Version of the content that formats write; a higher one makes exports of earlier versions other exports."""


def export(
    sink: str,
    to: str | Format,
    dest: str | Store | None = None,
    storage_options: GivenOptions | None = None,
    *,
    beside: bool = False,
    dest_options: GivenOptions | None = None,
    pipeline: Pipeline | None = None,
    trust: bool = False,
    restart: bool = False,
    processes: int = 1,
    address: str | None = None,
    on_shard: Callable[[int, int], None] | None = None,
) -> Export:
    """Write the finished label shards of a sink in a format that other tools read.

    Rows that are not ok are left out and counted. The same call again goes on: label shards that are there completely,
    made from the same labels with the same options, are skipped, and a killed export writes the same files.

    Args:
        sink: url of the sink.
        to: the format, such as `raysp.Srt(max_chars=32)`, or its name, such as "srt", for its default options.
        dest: url of a new or empty folder, or of an earlier export; or a data set of the Hugging Face hub,
            "hf://datasets/owner/name", to which the files are committed at once when all are written.
        storage_options: options to reach the sink; None: options of `pipeline`, or with `trust` the recorded ones.
        beside: for srt and vtt, instead of `dest`: write `talk.srt` next to `talk.mp4` in the folder of recordings that
            is the source. Files that no export wrote, or that were edited since, are kept and counted.
        dest_options: options to reach `dest`; None: options of the sink if both urls have the same scheme.
        pipeline: pipeline that made the labels, from whose source recordings are read.
        trust: use the recorded pipeline and storage options.
        restart: remove another export that `dest` holds, but for files of rows that were edited.
        processes: processes of this machine that write label shards. The files do not depend on their number.
        address: address of a Ray cluster whose tasks write label shards, in place of this machine.
        on_shard: called after each label shard with the number of finished shards, and of all.

    Raises:
        SpecError: an option is invalid for any data.
        PlanError: there is no sink with finished label shards, it lacks a column, or `dest` holds something else.
        TrustError: recordings are needed, without `pipeline` or `trust`, or shards are outside the pipeline's source.
        ShardError: a shard changed since it was labelled, or cannot be read.
        StoreError: a folder cannot be read or written, before any file is.
        RunError: the same during the export; finished files are kept.
    """
    spec = format_of(to)
    _check_processes(processes, address)
    if not beside and dest is None:
        raise SpecError(
            "export: found no destination; give DEST (dest=), or for subtitles beside the recordings --beside "
            "(beside=True)"
        )
    if beside:
        _check_beside(spec)
        refuse_unused({"dest": dest, "dest_options": dest_options}, "beside=True writes beside the recordings")
    request = SinkRequest(sink, storage_options, pipeline, trust)
    if isinstance(dest, str) and scheme_of(dest) == "hf":
        refuse_unused({"address": address}, f"{dest} is uploaded to from this machine; leave it out")
        of_sink = storage_options if scheme_of(sink) == "hf" else None
        to_folder = partial(export, sink, spec, storage_options=storage_options, pipeline=pipeline, trust=trust)
        to_folder = partial(to_folder, restart=restart, processes=processes, on_shard=on_shard)
        return _to_hub(to_folder, dest, of_sink if dest_options is None else dest_options)
    opened, record = open_recorded(request)
    labelling = Labelling.of(opened, record)
    if not labelling.done:
        reason = listed([*labelling.foreign.values()], 1) or "`raysp status` shows its progress"
        raise PlanError(f"{labelling.url}: has no finished label shard; {reason}")
    source = Source(labelling, request, beside)
    recordings = _folder_of_recordings(source, spec.NAME) if beside else None
    writing = spec.writing(source)
    reached_by = pipeline.sink.storage_options if storage_options is None and pipeline else storage_options
    destination = recordings or _destination(labelling, cast("str | Store", dest), dest_options, reached_by)
    destination.begin(_record(labelling, spec, writing), restart=restart)
    try:
        shard_export = ShardExport(writing, destination)
        code = _code(source, spec) if processes > 1 or address is not None else UserCode()
        spread = Spread(shard_export, shard_export.elsewhere, code, "exports label shards")
        if address is not None:
            write = partial(spread.by_tasks, address=address)
        else:
            write = partial(spread.in_processes, processes=processes)
        return _run(labelling, spec, shard_export, write, on_shard)
    except StoreError as error:
        raise RunError(f"{error}; finished files are kept: run the same export again to go on") from error


def recordings_folder(sink: str, pipeline: Pipeline) -> str | None:
    """Return the url of the folder of recordings that is the whole source of a sink; None if it is something else."""
    request = SinkRequest(sink, pipeline=pipeline)
    return Source(Labelling.of(*open_recorded(request)), request, is_beside=True).only_folder()


def _to_hub(write: Callable[[str], Export], dest: str, options: GivenOptions | None) -> Export:
    """Write an export to a folder of the cache, upload it to a data set of the hub, and remove the folder.

    Args:
        write: writes the export to a folder.
        dest: url of the data set.
        options: options to reach it.
    """
    from raysp.storage.hub_uploads import HubDataset  # imports huggingface_hub

    dataset = HubDataset.of(dest, options_of(options or {}))
    dataset.create()
    folder = cache_folder() / "exports" / hashlib.sha256(dest.encode()).hexdigest()[:32]
    result = write(str(folder))
    try:
        dataset.upload(folder)
    except StoreError as error:
        raise RunError(f"{error}; finished files are kept in {folder}: run the same export again to go on") from error
    shutil.rmtree(folder)
    return replace(result, dest=dest)


def _check_beside(spec: Format) -> None:
    """Raise SpecError unless files of a format can stand next to recordings, named after them."""
    if not getattr(spec, "BESIDE", False):
        raise SpecError(f"export: beside=True does not apply to {spec.NAME}; it is an option of srt, vtt")
    if getattr(spec, "names", None) == ID:
        raise SpecError("export: names='id' and beside=True; files beside recordings have their names: leave out one")


def _folder_of_recordings(source: Source, to: str) -> Destination:
    """Open the folder of a source's recordings as a destination, where no other file is replaced."""
    options = source.pipeline.source.storage_options
    if (folder := source.only_folder()) is None:
        raise PlanError(
            f"{source.labelling.url}: beside=True needs a source that is one folder of recordings, found "
            f"{', '.join(source.pipeline.source.urls)}; give a destination instead"
        )
    if not scheme_of(folder) and not Path(folder).is_dir():
        raise PlanError(f"{folder}: the folder of the recordings is no longer there; run the pipeline on its new path")
    records = open_store(join_url(folder, f"{HOME}beside/{to}"), options)
    return Destination(records, open_store(folder, options))


def _destination(
    labelling: Labelling, dest: str | Store, dest_options: GivenOptions | None, sink_options: GivenOptions | None
) -> Destination:
    """Open a folder of its own as a destination."""
    if isinstance(dest, str):
        is_same = scheme_of(dest) == scheme_of(labelling.url)
        store = open_store(dest, sink_options if dest_options is None and is_same else dest_options)
    else:
        refuse_unused({"dest_options": dest_options}, "dest is an open store; leave them out")
        store = dest
    refuse_overlap(labelling.store, store)
    return Destination(store)


def _record(labelling: Labelling, spec: Format, writing: Writer) -> dict[str, JsonValue]:
    """Return the identity of an export."""
    names = {"names": writing.named.kind} if writing.named else {}
    return {
        "to": spec.NAME,
        "options": {**cast("dict[str, JsonValue]", to_json(spec)), **names},
        "sink": labelling.url,
        "fingerprint": labelling.record.fingerprint,
        "writer_version": WRITER_VERSION,
    }


def _check_processes(processes: int, address: str | None) -> None:
    """Raise SpecError for a number of processes, or an address, that cannot be."""
    if processes < 1:
        raise SpecError(f"export: found processes={processes}, expected a number of processes from 1 on")
    if address is not None:
        refuse_unused({"processes": processes if processes > 1 else None}, "the cluster at address has its own")
        if not is_named(address):
            raise SpecError(
                f"export: found address={address!r}, expected the address of a cluster; processes=N uses this machine"
            )


def _code(source: Source, spec: Format) -> UserCode:
    """Return the user's code that other processes of an export need."""
    pipeline = source.request.pipeline
    if pipeline is None and source.request.trust:
        with suppress(PlanError):  # a format that reads no source does without it
            pipeline = source.pipeline
    return read_code(pipeline, spec)


def _packs(shards: Iterable[Shard], spec: Format, writing: Writer) -> Iterator[list[Shard]]:
    """Yield the label shards of the plan that are written together, finished or not: one, or small neighbours."""
    most = getattr(spec, "shard_bytes", None) or 0
    pack, num_bytes = list[Shard](), 0.0
    for shard in shards:
        expected = writing.expected_bytes(shard) if most else 0.0
        if pack and num_bytes + expected >= most:
            yield pack
            pack, num_bytes = [], 0.0
        pack.append(shard)
        num_bytes += expected
    if pack:
        yield pack


def _run(
    labelling: Labelling,
    spec: Format,
    export: ShardExport,
    write: Callable[[Sequence[Todo]], Generator[tuple[Todo, Exported]]],
    on_shard: Callable[[int, int], None] | None,
) -> Export:
    """Write the label shards that the destination lacks."""
    versions = {entry.path: entry for entry in labelling.store.list() if entry.path in labelling.done}
    writing, destination = export.writing, export.destination
    done: dict[str, Exported] = {}
    todos: list[Todo] = []
    names, named, finished = list[str](), writing.named, 0

    def add(todo: Todo, exported: Exported) -> None:
        nonlocal finished
        done[todo.name] = exported
        finished += len(todo.shards)
        if on_shard:
            on_shard(finished, len(versions))

    for pack in _packs(labelling.shards.values(), spec, writing):
        names.append(pack[0].name)
        shards = tuple(shard for shard in pack if shard.name in versions)
        parts: list[object] = []
        for shard, labels in ((shard, versions[shard.name]) for shard in shards):
            digest = named.names.digest(shard) if named else ""
            parts += [shard.input_id, labels.num_bytes, labels.version, *([digest] if digest else [])]
        todo = Todo(names[-1], shards, identity_of(*parts))
        if shards and (mark := destination.done(todo.name, todo.identity)):
            add(todo, Exported(mark))
        elif shards:
            todos.append(todo)
    before = finished
    with closing(write(todos)) as written:
        for todo, exported in written:
            add(todo, exported)
    if len(names) < len(labelling.shards):  # neighbours may have changed
        destination.keep_only([*names, WHOLE])
    in_order = [done[name] for name in names if name in done]
    destination.lost += [path for exported in in_order for path in exported.lost]
    marks = [exported.mark for exported in in_order]
    total = sum((mark.tally for mark in marks), Tally())
    total.files += writing.finish(destination, total)
    kept = [*destination.kept, *(path for mark in marks for path in mark.kept)]
    counts: dict[str, Any] = {
        **{name: value for name, value in vars(total).items() if name != "split_bytes"},
        "seconds": round(total.seconds, 3),
        "left_out": dict(total.left_out.most_common()),
        "splits": dict(total.splits),
        "clips": total.clips if spec.NAME == "clips" else None,
        "utterances": total.clips if spec.NAME == "utterances" else None,
        "audio_root": getattr(writing, "audio_root", ""),
    }
    return Export(
        sink=labelling.url,
        dest=destination.folder.url,
        to=spec.NAME,
        shards=finished,
        shards_before=before,
        unfinished=labelling.unfinished,
        foreign=labelling.foreign,
        **counts,
        names=named.kind if named else None,
        not_by_path=named.not_by_path if named else "",
        kept=len(kept),
        first_kept=next(iter(kept), ""),
        rewritten=len(destination.lost),
        first_rewritten=next(iter(destination.lost), ""),
    )
