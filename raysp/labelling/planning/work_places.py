"""Places in a pipeline, in the same form on every machine: local paths are absolute."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from raysp.errors import PlanError, StoreError
from raysp.labelling.planning.planned_checkpoint import with_checkpoints as with_label_checkpoints
from raysp.labelling.planning.planned_checkpoint import with_files
from raysp.specs.pipeline import Pipeline, Shards
from raysp.storage.store import normalise, scheme_of
from raysp.training.specs.augmentations import OfSounds
from raysp.training.specs.objectives import with_checkpoints
from raysp.training.specs.recipe import Finetune

JOB_PACKAGES = "/runtime_resources/working_dir_files/"
"""Part of the path of a folder into which Ray unpacks the package of a job."""
REMEDY = "Give an object store (s3://...), or an absolute path on a file system that all machines of the cluster mount"


def with_absolute_paths(pipeline: Pipeline) -> Pipeline:
    """Return the pipeline with its local paths made absolute, relative to this process's working directory.

    Workers have another working directory. Urls are unchanged, and so is a checkpoint that is not a local folder: it
    may be an id of the Hugging Face hub.

    Raises:
        PlanError: the scheme of a url is unknown, or a place is in the package of a Ray job.
    """
    absolute = replace(
        with_files(with_label_checkpoints(pipeline, _absolute_checkpoint), _absolute),
        source=_absolute_source(pipeline.source),
        sink=replace(pipeline.sink, url=_absolute(pipeline.sink.url)),
    )
    _refuse_job_packages(pipeline, absolute)
    return absolute


def recipe_with_absolute_paths(recipe: Finetune) -> Finetune:
    """Return the recipe with its local paths made absolute, as `with_absolute_paths` does.

    Raises:
        PlanError: as `with_absolute_paths`.
    """
    objective, evaluation = recipe.objective, recipe.evaluation
    absolute = replace(
        recipe,
        source=_absolute_source(recipe.source),
        augment=[
            replace(one, source=_absolute_source(one.source)) if isinstance(one, OfSounds) else one
            for one in recipe.augment
        ],
        evaluation=evaluation and replace(evaluation, source=_absolute_source(evaluation.source)),
        objective=with_checkpoints(objective, _absolute_checkpoint),
        sink=replace(recipe.sink, url=_absolute(recipe.sink.url)),
    )
    _refuse_job_packages(recipe, absolute)
    return absolute


def _absolute_source(source: Shards) -> Shards:
    url: str | Sequence[str] = source.url  # with a split, the id of a data set
    if source.split is None:
        url = _absolute(source.url) if isinstance(source.url, str) else [_absolute(one) for one in source.url]
    root = None if source.root is None else _absolute(source.root)
    audio_root = None if source.audio_root is None else _absolute(source.audio_root)
    labels = None if source.labels is None else _absolute(source.labels)
    return replace(source, url=url, root=root, audio_root=audio_root, labels=labels)


def _absolute_checkpoint(given: str) -> str:
    """Return the absolute path of a local folder; other names unchanged, which may be ids of the hub."""
    checkpoint = _absolute(given)
    return checkpoint if scheme_of(given) or Path(checkpoint).is_dir() else given


def data_places(work: Pipeline | Finetune) -> Iterator[tuple[str, str]]:
    """Yield the field names and values of the places of recordings and results, without ids of the hub."""
    for field, source in _sources(work):
        if source.split is None:
            yield from ((f"{field}.url", url) for url in source.urls)
        names = ("root", "audio_root", "labels")
        yield from ((f"{field}.{name}", url) for name in names if (url := getattr(source, name)))
    yield "sink.url", work.sink.url


def _sources(work: Pipeline | Finetune) -> Iterator[tuple[str, Shards]]:
    """Yield the sources with the names of their fields."""
    yield "source", work.source
    if isinstance(work, Pipeline):
        return
    if work.evaluation is not None:
        yield "evaluation.source", work.evaluation.source
    sounds = ((place, one) for place, one in enumerate(work.augment) if isinstance(one, OfSounds))
    yield from ((f"augment.{place}.source", one.source) for place, one in sounds)


def _refuse_job_packages(given: Pipeline | Finetune, absolute: Pipeline | Finetune) -> None:
    """Raise PlanError for recordings or labels in the package of a job, which Ray removes after the job.

    A checkpoint may be there: Ray unpacks the package on every machine that runs a worker, and checkpoints are only
    read.
    """
    for (name, before), (_, place) in zip(data_places(given), data_places(absolute), strict=True):
        if JOB_PACKAGES in place:
            raise PlanError(
                f"{name}: {before!r} is the place {place!r} in this Ray job: the folder of its package, which Ray "
                f"removes after the job. {REMEDY}"
            )


def _absolute(url: str) -> str:
    try:
        return url if scheme_of(url) else normalise(url)
    except StoreError as error:
        raise PlanError(str(error)) from error
