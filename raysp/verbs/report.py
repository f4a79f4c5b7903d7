"""Reports of sinks: one HTML file without scripts or links."""

from collections.abc import Sequence
from pathlib import Path

from raysp.pages.rendering import save
from raysp.sink.layout import REPORT
from raysp.specs.pipeline import Pipeline
from raysp.specs.text_rules import Text
from raysp.storage.options import GivenOptions
from raysp.storage.store import Store, join_url
from raysp.work import SinkRequest, kind_of_sink


def report(
    sink: str | Store,
    out: str | Path | None = None,
    storage_options: GivenOptions | None = None,
    *,
    by: Sequence[str] | None = None,
    normalise: str | Text | None = None,
    pipeline: Pipeline | None = None,
    trust: bool = False,
) -> str:
    """Write the report of a sink, of label shards or of a training, as one HTML file, and return its place.

    Of label shards, the columns that it shows are read completely; memory does not grow with their rows.

    Args:
        sink: url or store of the sink.
        out: local file; None: `.raysp/report.html` in the sink.
        storage_options: options to reach the sink; None: options of `pipeline`, or with `trust` the recorded ones; of
            a training, environment and profile.
        by: columns of the label shards; error rates are also computed for the rows of each of their values. None: up to
            three columns of texts with few values, which the sink keeps.
        normalise: normalisation of the texts that are compared, as of `evaluate`; None: "letters".
        pipeline: pipeline that made the labels; only its storage options are used.
        trust: use the recorded storage options.

    Raises:
        SpecError: `by` or `normalise` for the sink of a training, or no such normalisation.
        PlanError: there is no sink at this url, no such column, or no reference texts to normalise.
        StoreError: a label shard cannot be read, or the file cannot be written.
    """
    request = SinkRequest(sink, storage_options, pipeline, trust, normalise)
    store, page = kind_of_sink(request).page(request, by)
    if out is not None:
        return save(page, out)
    store.replace(REPORT, page.encode())
    return join_url(store.url, REPORT)
