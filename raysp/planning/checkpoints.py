"""Local folder of a pipeline's checkpoint, and its digest."""

from dataclasses import replace
from pathlib import Path

from raysp.checkpoints import locating
from raysp.checkpoints.fetching import digest_files
from raysp.errors import CheckpointError
from raysp.specs.pipeline import Pipeline
from raysp.storage.store import scheme_of


def checkpoint_folder(pipeline: Pipeline) -> Path:
    """Return the local folder of the pipeline's checkpoint.

    A step has no storage options of its own. Those of the source are used if both urls have the same scheme,
    otherwise the environment and the profile.

    Raises:
        CheckpointError, StoreError: as `locate`.
    """
    url, source = pipeline.label.checkpoint, pipeline.source
    scheme = scheme_of(url)
    return locating.locate(url, source.storage_options if scheme and scheme_of(source.urls[0]) == scheme else {})


def pinned(pipeline: Pipeline) -> Pipeline:
    """Return the pipeline with the hub id of its checkpoint resolved to a commit, so that all machines read the same.

    Raises:
        CheckpointError: the hub has no such id, or cannot be reached.
    """
    label = pipeline.label
    if (checkpoint := locating.pinned(label.checkpoint)) == label.checkpoint:
        return pipeline
    of_commit = replace(label, checkpoint=checkpoint)
    return replace(pipeline, steps=[of_commit if step is label else step for step in pipeline.steps])


def check_digest(url: str, folder: Path, planned: str) -> None:
    """Raise if a checkpoint on this machine differs from the planned one.

    Raises:
        CheckpointError: with both digests.
    """
    if (found := digest_of(folder)) != planned:
        raise CheckpointError(
            f"checkpoint {url!r}: its digest was {planned} when the run was planned, here it is {found}; do not "
            "change a checkpoint during a run, and give workers the same files"
        )


def digest_of(folder: Path) -> str:
    """Return the digest of the files of a checkpoint that labels depend on."""
    from raysp.models.checking import checkpoint_files

    return digest_files(folder, checkpoint_files(folder))
