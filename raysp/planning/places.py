"""Places in a pipeline, in the same form on every machine: local paths are absolute."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from raysp.errors import PlanError, StoreError
from raysp.specs.pipeline import Pipeline
from raysp.storage.store import normalise, scheme_of


def with_absolute_paths(pipeline: Pipeline) -> Pipeline:
    """Return the pipeline with its local paths made absolute, relative to this process's working directory.

    Workers have another working directory. Urls are unchanged, and so is a checkpoint that is not a local folder: it
    may be an id of the Hugging Face hub.

    Raises:
        PlanError: the scheme of a url is unknown.
    """
    source, sink, label = pipeline.source, pipeline.sink, pipeline.label
    url: str | Sequence[str] = source.url  # with a split, the id of a data set
    if source.split is None:
        url = _absolute(source.url) if isinstance(source.url, str) else [_absolute(one) for one in source.url]
    root = None if source.root is None else _absolute(source.root)
    audio_root = None if source.audio_root is None else _absolute(source.audio_root)
    checkpoint = _absolute(label.checkpoint)
    if not scheme_of(label.checkpoint) and not Path(checkpoint).is_dir():
        checkpoint = label.checkpoint
    return replace(
        pipeline,
        source=replace(source, url=url, root=root, audio_root=audio_root),
        steps=[replace(label, checkpoint=checkpoint) if step is label else step for step in pipeline.steps],
        sink=replace(sink, url=_absolute(sink.url)),
    )


def _absolute(url: str) -> str:
    try:
        return url if scheme_of(url) else normalise(url)
    except StoreError as error:
        raise PlanError(str(error)) from error
