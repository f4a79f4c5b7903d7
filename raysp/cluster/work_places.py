"""Places in a pipeline, in the same form on every machine: local paths are absolute."""

from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

from raysp.errors import PlanError, StoreError
from raysp.specs.pipeline import SHARD_PLACES, Work
from raysp.storage.store import normalise, scheme_of

JOB_PACKAGES = "/runtime_resources/working_dir_files/"
"""Part of the path of a folder into which Ray unpacks the package of a job."""
REMEDY = "Give an object store (s3://...), or an absolute path on a file system that all machines of the cluster mount"


AnyWork = TypeVar("AnyWork", bound=Work)


def with_absolute_paths(work: AnyWork) -> AnyWork:
    """Return a pipeline or recipe with its local paths made absolute, relative to this process's working directory.

    Workers have another working directory. Urls are unchanged, and so is a checkpoint that is not a local folder: it
    may be an id of the Hugging Face hub.

    Raises:
        PlanError: the scheme of a url is unknown, or a place is in the package of a Ray job.
    """
    absolute = work.with_places(_absolute, _absolute_checkpoint)
    for (name, before), (_, place) in zip(data_places(work), data_places(absolute), strict=True):
        # A checkpoint may be there: Ray unpacks the package on every machine that runs a worker.
        if JOB_PACKAGES in place:
            raise PlanError(
                f"{name}: {before!r} is the place {place!r} in this Ray job: the folder of its package, which Ray "
                f"removes after the job. {REMEDY}"
            )
    return absolute


def _absolute_checkpoint(given: str) -> str:
    """Return the absolute path of a local folder; other names unchanged, which may be ids of the hub."""
    checkpoint = _absolute(given)
    return checkpoint if scheme_of(given) or Path(checkpoint).is_dir() else given


def data_places(work: Work) -> Iterator[tuple[str, str]]:
    """Yield the field names and values of the places of recordings and results, without ids of the hub."""
    for field, source in work.sources.items():
        if source.split is None:
            yield from ((f"{field}.url", url) for url in source.urls)
        yield from ((f"{field}.{name}", url) for name in SHARD_PLACES if (url := getattr(source, name)))
    yield "sink.url", work.sink.url


def _absolute(url: str) -> str:
    try:
        return url if scheme_of(url) else normalise(url)
    except StoreError as error:
        raise PlanError(str(error)) from error
