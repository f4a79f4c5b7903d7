"""Plan of a retry: error rows of committed label shards, to be labelled by the sink's recorded pipeline."""

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import cast

from raysp.errors import SpecError
from raysp.labelling.planning.carried import decode
from raysp.labelling.planning.fingerprints import check_recorded, hash_pipeline
from raysp.labelling.planning.measured_passes import with_measured
from raysp.labelling.planning.planned_checkpoint import pinned
from raysp.labelling.planning.run_plan import Corpus, Opened, Plan
from raysp.labelling.planning.settling import settle
from raysp.labelling.planning.trust import read_recorded, refusal
from raysp.sink.recommitting import find_error_rows
from raysp.specs.pipeline import Parquet, Pipeline, read_code
from raysp.specs.values import override
from raysp.specs.work_files import with_overrides
from raysp.storage.options import GivenOptions, options_of

SETTINGS = ("source.audio_root", "source.storage_options", "sink.storage_options", "steps.N.pool", "max_error_rate")
"""Settings that a retry may change: existing labels do not depend on them."""
_SETTABLE = re.compile("|".join(name.replace(".", r"\.").replace("N", r"\d+") for name in SETTINGS))


def recorded_pipeline(
    url: str,
    storage_options: GivenOptions | None = None,
    *,
    pipeline: Pipeline | None = None,
    trust: bool = False,
    settings: Sequence[str] = (),
) -> Pipeline:
    """Return the pipeline that labelled a sink, with the current place of the sink.

    Arguments are those of `read_recorded`; `settings` are values to change, as `PATH=VALUE`.

    Raises:
        PlanError: there is no sink at this url.
        TrustError: its record or its plan names untrusted values.
        SpecError: a step or function of it cannot be imported here, or a setting is not one of `SETTINGS`.
    """
    options = _with_sink_options(settings, storage_options, pipeline)
    recorded = read_recorded(url, options, pipeline=pipeline, trust=trust)
    made = with_overrides(recorded.trusted_pipeline(), settings)
    if outside := recorded.outside(recorded.sink.shards()):
        raise refusal(recorded.sink.url, [f"a shard at {one!r}" for one in outside])
    return made


def _with_sink_options(
    settings: Sequence[str], storage_options: GivenOptions | None, pipeline: Pipeline | None
) -> GivenOptions | None:
    """Return the storage options of a sink, with those of `settings`.

    Raises:
        SpecError: a setting is not one of `SETTINGS`.
    """
    options = pipeline.sink.storage_options if storage_options is None and pipeline else storage_options
    for setting in settings:
        path, _, text = setting.partition("=")
        field = _SETTABLE.match(path)
        if field is None or path[field.end() :][:1] not in ("", "."):
            raise SpecError(
                f"--set {path}: a retry accepts only {', '.join(SETTINGS)}, since existing labels do not change; "
                "to change labels use `raysp run PIPELINE --set ... --relabel`"
            )
        if path.startswith("sink."):
            sink = override(
                Parquet("sink", storage_options=options_of(options or {})), path.removeprefix("sink."), text
            )
            options = cast("Parquet", sink).storage_options
    return options


def plan_retry(opened: Opened) -> Plan:
    """Return the plan that redoes the error rows of all committed shards; the source is not listed.

    Raises:
        PlanError, ChangedError: there is no sink, or the pipeline does not fit the resources, or did not
            make the labels.
        CheckpointError: the checkpoint cannot be run.
    """
    pipeline, sink = pinned(opened.pipeline), opened.sink
    record = sink.existing_record()
    settings = settle(pipeline, opened.resources, record.resolved)
    code = read_code(pipeline)
    parts, fingerprint = hash_pipeline(pipeline, settings, code)
    if settings.measured is not None:
        settings = with_measured(settings, sink.store, parts)
    check_recorded(sink.url, record, pipeline, settings, parts, fingerprint)
    todo = tuple(find_error_rows(sink.store, sink.shards(), fingerprint))
    absent = sink.absent()
    unreadable = {one.name: one.reason for one in absent}
    corpus = Corpus(tuple(one.shard for one in todo), unreadable, absent=absent, carried=decode(record.columns))
    opened = replace(opened, pipeline=pipeline)
    return Plan(opened, settings, parts, fingerprint, corpus, frozenset(), todo, code=code)
