"""Plan of a retry: error rows of committed label shards, or whole shards, by the pipeline that labelled them."""

from collections.abc import Sequence
from dataclasses import replace
from fnmatch import fnmatchcase

from raysp.corpus import sources
from raysp.errors import PlanError
from raysp.labelling.planning.carried import carried_types, decode
from raysp.labelling.planning.listing import Listed, check_root, list_corpus
from raysp.labelling.planning.opening import without_work
from raysp.labelling.planning.planned_checkpoint import pinned, with_backends
from raysp.labelling.planning.run_plan import Corpus, Opened, Plan
from raysp.labelling.planning.settling import piece_size
from raysp.labelling.planning.surveying import refuse_without_recordings, survey
from raysp.sink.recommitting import find_error_rows, retry_whole
from raysp.sink.run_record import RunRecord
from raysp.words import listed


def plan_retry(opened: Opened, shards: Sequence[str] = ()) -> Plan:
    """Return the plan that redoes the error rows of all committed shards, without a listing; or some shards, whole.

    Args:
        opened: the recorded pipeline, its sink, and the resources that the run may use.
        shards: names of shards to label again, also with other content than was planned, or patterns of such names.

    Raises:
        PlanError, ChangedError: there is no sink, or no such shard in it or in the source, or the pipeline does not fit
            the resources, or did not make the labels.
        CheckpointError: the checkpoint cannot be run.
    """
    sink = opened.sink
    record = sink.existing_record()
    pipeline, chosen = with_backends(pinned(opened.pipeline), record)
    plan = without_work(replace(opened, pipeline=pipeline, chosen=chosen), record)
    if shards:
        corpus = _chosen(replace(opened, pipeline=plan.pipeline), record, shards)
        todo = tuple(retry_whole(sink.store, shard) for shard in corpus.shards)
        refuse_without_recordings(corpus, todo, plan.pipeline)
    else:
        damaged: dict[str, str] = {}
        todo = tuple(find_error_rows(sink.store, sink.shards(), plan.fingerprint, damaged))
        absent = sink.absent()
        unreadable = {**{one.name: one.reason for one in absent}, **damaged}
        carried = decode(sink.url, record.columns)
        corpus = Corpus(tuple(one.shard for one in todo), unreadable, absent=absent, carried=carried)
    return replace(plan, corpus=corpus, todo=todo)


def _chosen(opened: Opened, record: RunRecord, patterns: Sequence[str]) -> Corpus:
    """Return the shards of some names, with their current content."""
    pipeline, sink = opened.pipeline, opened.sink
    recorded = {shard.name: shard for shard in sink.shards()}
    before = {one.name: one for one in sink.absent()}
    planned = {**{name: one.shard for name, one in before.items()}, **recorded}
    names = _matching(patterns, sorted(planned), sink.url)
    listing = list_corpus(pipeline.source, planned, recut=True)
    check_root(sink.url, record.root, listing.root, listing.found, recorded)
    present = {one.name: one for one in listing.found}
    for name in names:
        if name not in present:
            raise PlanError(f"{sink.url}: {name} is no longer in the source; its labels are kept as they are")
    # The other slices of a manifest may begin elsewhere now.
    sliced = {present[name].url for name in names if sources.kind_named(present[name].kind).is_sliced}
    found = tuple(one for one in listing.found if one.name in names or (one.name in recorded and one.url in sliced))
    types = carried_types(pipeline, sink, record if recorded.keys() - names else None)
    size = piece_size(pipeline, opened.resources, record.resolved)
    listing = replace(listing, found=found)
    corpus = survey(listing, recorded, pipeline, size=size, may_change=names, carried=types)
    others = tuple(one for one in before.values() if one.name not in names)
    shards = tuple(one for one in corpus.shards if one.name in names)
    # Without the listing, in which shards that left the source would count as found.
    return replace(corpus, shards=shards, absent=(*others, *corpus.absent), vanished=(), listed=Listed())


def _matching(patterns: Sequence[str], names: Sequence[str], url: str) -> frozenset[str]:
    """Return the names that match patterns.

    Raises:
        PlanError: a pattern matches none.
    """
    found: set[str] = set()
    for pattern in patterns:
        matching = [name for name in names if name == pattern or fnmatchcase(name, pattern)]
        if not matching:
            raise PlanError(f"{url}: no shard is named {pattern!r}; expected names such as {listed(names, 3)}")
        found.update(matching)
    return frozenset(found)
