"""Choice of the backend of a checkpoint: by its name, or the package that offers its model type."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata, util
from pathlib import Path
from typing import cast

from raysp.backends import hf_installed, packages
from raysp.backends.backend import Backend
from raysp.backends.packages import Package, PackagedModels
from raysp.checkpoints.hub import CHECKPOINT_FILES, OTHER_WEIGHTS
from raysp.errors import CheckpointError
from raysp.models.base.configuration import checkpoint_files, read_json, weight_files
from raysp.models.labelled_passes import OWN, CheckpointSummary
from raysp.public_names import resolved

HUGGING_FACE = "transformers"
CTRANSLATE2 = "ctranslate2"
BACKENDS = {
    OWN: "raysp.backends.own:OwnModels",
    HUGGING_FACE: "raysp.backends.hugging_face.transformers_backend:HuggingFaceModels",
    CTRANSLATE2: "raysp.backends.on_ctranslate2.ctranslate2_backend:CTranslate2Models",
}
"""Classes of backends by their names, as `module:name`; their modules import the libraries."""
NAMED = (*BACKENDS,)
OTHER_FILES = ("*.json", "*.txt", "*.model")
"""Patterns of files besides the weights, of checkpoints that raysp does not read itself."""


@dataclass(frozen=True)
class Choice:
    """Backend chosen for a checkpoint."""

    name: str
    """Name of the backend; of the distribution, for a model of a package."""
    package: Package | None = None

    @property
    def library(self) -> str:
        """Name and version of the library to install on all machines; empty for the models of raysp."""
        if self.package is not None:
            return self.package.identity
        if self.name == CTRANSLATE2:
            return ctranslate2_version()
        return f"transformers {hf_installed.version()}" if self.name == HUGGING_FACE else ""

    def require(self) -> None:
        """Raise unless the library is installed.

        Raises:
            CheckpointError: the library is missing; the message has the command that installs it.
        """
        if self.name == HUGGING_FACE:
            hf_installed.require()
        if self.name == CTRANSLATE2 and not ctranslate2_version():
            raise CheckpointError(
                "backend='ctranslate2': the package ctranslate2 is not installed; pip install 'raysp[ctranslate2]'"
            )

    def open(self) -> Backend:
        """Return the backend, which imports its library.

        Raises:
            CheckpointError: it is not installed.
        """
        self.require()
        if self.package is not None:
            return PackagedModels(self.package)
        return cast("Callable[[], Backend]", resolved(BACKENDS[self.name]))()


def ctranslate2_version() -> str:
    """Return name and version of the package ctranslate2; empty if it is not installed."""
    return f"ctranslate2 {metadata.version(CTRANSLATE2)}" if util.find_spec(CTRANSLATE2) else ""


def choose(folder: Path, backend: str) -> Choice:
    """Return the backend of a checkpoint folder, by the `backend` of its `Label` step.

    A package is chosen for a model type that the models of raysp do not read.

    Raises:
        CheckpointError: several packages offer the model type.
    """
    if backend != OWN:
        return Choice(backend)
    config = folder / "config.json"
    model_type = read_json(config).get("model_type") if config.is_file() else None
    package = packages.find(model_type) if isinstance(model_type, str) else None
    return Choice(OWN) if package is None or _is_own(package.entry_point.name) else Choice(package.name, package)


def _is_own(model_type: str) -> bool:
    from raysp.models.registry import MODULES

    return model_type in MODULES


def choice_of(checkpoint: CheckpointSummary) -> Choice:
    """Return the backend of a described checkpoint.

    Raises:
        CheckpointError: the package that described it is not installed here.
    """
    if checkpoint.backend in NAMED:
        return Choice(checkpoint.backend)
    package = packages.find(checkpoint.model_type)
    if package is None or package.name != checkpoint.backend:
        raise CheckpointError(
            f"{checkpoint.path}: the package {checkpoint.backend}, which offers the model type "
            f"{checkpoint.model_type!r}, is not installed here; install it on all machines"
        )
    return Choice(package.name, package)


def check_library(checkpoint: CheckpointSummary, planned: str) -> None:
    """Raise if the library that runs a checkpoint is not the one of the plan.

    Args:
        checkpoint: the checkpoint.
        planned: `Choice.library` when the run was planned.

    Raises:
        CheckpointError: it is another version, or is not installed.
    """
    if (found := choice_of(checkpoint).library) != planned:
        raise CheckpointError(
            f"{checkpoint.path}: the run was planned with {planned}, and here is {found}; install the same on all "
            "machines"
        )


def files_of(backend: str) -> tuple[str, ...]:
    """Return names and patterns of the files to fetch from the hub for a backend."""
    if backend == CTRANSLATE2:
        return (*CHECKPOINT_FILES, *OTHER_FILES, *OTHER_WEIGHTS)
    return CHECKPOINT_FILES if backend == OWN else (*CHECKPOINT_FILES, *OTHER_FILES)


def label_files(folder: Path, backend: str) -> list[Path]:
    """Return the files of a checkpoint that affect labels.

    Raises:
        CheckpointError: it has no weights.
    """
    if backend == OWN:
        return checkpoint_files(folder)
    theirs = [folder / name for name in OTHER_WEIGHTS if backend == CTRANSLATE2 and (folder / name).is_file()]
    weights = theirs or weight_files(folder)
    return sorted({*weights, *(file for pattern in OTHER_FILES for file in folder.glob(pattern))})
