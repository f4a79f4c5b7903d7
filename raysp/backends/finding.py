"""Choice of the backend of a checkpoint: by its name, or the package that offers its model type.

Other packages offer models by entry points, `[project.entry-points."raysp.models"]`. The name of an entry point is the
model type in config.json; its value is a class or function that is called without arguments and returns a `Backend`.
Workers have the same package installed, which is checked.
"""

import hashlib
import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any, Protocol, cast

from packaging.version import Version

from raysp.backends import hf_installed
from raysp.checkpoints.hub import CHECKPOINT_FILES, OTHER_WEIGHTS
from raysp.errors import CheckpointError, RayspError
from raysp.models.base.configuration import checkpoint_files, read_json, weight_files
from raysp.models.labelled_passes import OWN, CheckpointSummary, LabellingModel
from raysp.public_names import resolved


class Backend(Protocol):
    """Reader of the checkpoints of a library, or of one model type."""

    def describe(self, folder: Path) -> CheckpointSummary:
        """Check a checkpoint without reading its weights, and return its description.

        Raises:
            CheckpointError: files are missing, damaged, unsafe or inconsistent.
        """
        ...

    def load(self, folder: Path, *, dtype: str, device: str) -> LabellingModel:
        """Load a checkpoint.

        Args:
            folder: the model folder.
            dtype: dtype of weights and arithmetic, such as "float32".
            device: name of a torch device.

        Raises:
            CheckpointError: its weights do not fit.
        """
        ...


class WritingBackend(Backend, Protocol):
    """Backend of checkpoints with a text decoder."""

    def check_writing(
        self,
        checkpoint: CheckpointSummary,
        options: Mapping[str, object],
        *,
        language: str | None,
        task: str | None,
        **request: Any,  # noqa: ANN401 - prompt and keywords
    ) -> None:
        """Check the options of a transcript, without the weights; arguments as for `WritingModel.writer`.

        `prompt` and `keywords` are passed only if they are set.

        Raises:
            CheckpointError: the checkpoint does not support one of them.
        """
        ...


GROUP = "raysp.models"


@dataclass(frozen=True)
class Package:
    """A package that offers a model of one type."""

    name: str
    """Name of the distribution."""
    version: str
    entry_point: metadata.EntryPoint

    @property
    def identity(self) -> str:
        """Name and version of the distribution, with the hash of the source of its module."""
        return f"{self.name} {self.version} {_digest(self.entry_point.module)}"

    def __str__(self) -> str:
        """Return name and version."""
        return f"{self.name} {self.version}"


def find(model_type: str) -> Package | None:
    """Return the package that offers a model type; None if no package does, or raysp reads it itself.

    Raises:
        CheckpointError: several packages do.
    """
    packages = [
        Package(entry_point.dist.name, entry_point.dist.version, entry_point)
        for entry_point in metadata.entry_points(group=GROUP)
        if entry_point.name == model_type and entry_point.dist is not None
    ]
    if len(packages) > 1:
        raise CheckpointError(
            f"model type {model_type!r}: found models of "
            f"{' and '.join(map(str, packages))}, expected those of one package; uninstall the others"
        )
    if packages:
        from raysp.models.registry import MODULES  # imports torch

        return None if model_type in MODULES else packages[0]
    return None


def _digest(module: str) -> str:
    """Hash the source of a module, or of all modules of its package, to 16 hexadecimal digits."""
    top = importlib.util.find_spec(module.partition(".")[0])
    folders = [Path(place) for place in (top.submodule_search_locations if top else None) or ()]
    files = sorted(path for folder in folders for path in folder.rglob("*.py"))
    if not files and top and top.origin:
        files = [Path(top.origin)]
    whole = hashlib.sha256()
    for file in files:
        whole.update(file.name.encode() + b"\0" + hashlib.sha256(file.read_bytes()).digest())
    return whole.hexdigest()[:16]


class PackagedModels:
    """Backend of a package, whose errors name the package."""

    def __init__(self, package: Package) -> None:
        self.package = package

    def describe(self, folder: Path) -> CheckpointSummary:
        """Return the description of a checkpoint by the package.

        Raises:
            CheckpointError: the package refuses it, or fails.
        """
        summary = self._called("describe", folder, folder)
        if not isinstance(summary, CheckpointSummary):
            raise self._wrong("describe", summary, "a CheckpointSummary")
        return replace(summary, path=folder, backend=self.package.name)

    def load(self, folder: Path, *, dtype: str, device: str) -> LabellingModel:
        """Load a checkpoint by the package.

        Raises:
            CheckpointError: the package refuses it, or fails.
        """
        loaded = self._called("load", folder, folder, dtype=dtype, device=device)
        for name in ("summary", "device", "dtype", "run"):
            if not hasattr(loaded, name):
                raise self._wrong("load", loaded, f"a model with summary, device, dtype and run; it has no {name}")
        return cast("LabellingModel", loaded)

    def check_writing(
        self,
        checkpoint: CheckpointSummary,
        options: Mapping[str, object],
        **request: Any,  # noqa: ANN401 - language, task, prompt and keywords
    ) -> None:
        """Check the options of a transcript by the package.

        Raises:
            CheckpointError: the package refuses one, or fails.
        """
        self._called("check_writing", checkpoint.path, checkpoint, options, **request)

    def _called(self, method: str, folder: Path, *arguments: object, **options: object) -> object:
        """Return the result of a method of the package's backend; errors but those of raysp name the package."""
        try:
            return getattr(self.package.entry_point.load()(), method)(*arguments, **options)
        except RayspError:
            raise
        except Exception as error:  # any, of code that raysp does not know
            raise CheckpointError(
                f"{folder}: package {self.package}, {self.package.entry_point.value}: {method} failed with "
                f"{type(error).__name__}: {error}"
            ) from error

    def _wrong(self, method: str, returned: object, expected: str) -> CheckpointError:
        return CheckpointError(
            f"package {self.package}, {self.package.entry_point.value}: {method} returned {returned!r}, expected "
            f"{expected}"
        )


HUGGING_FACE = "transformers"
CTRANSLATE2 = "ctranslate2"
VLLM = "vllm"
BACKENDS = {
    OWN: "raysp.backends.own:OwnModels",
    HUGGING_FACE: "raysp.backends.hugging_face.transformers_backend:HuggingFaceModels",
    CTRANSLATE2: "raysp.backends.on_ctranslate2.ctranslate2_backend:CTranslate2Models",
    VLLM: "raysp.backends.on_vllm.vllm_backend:VllmModels",
}
"""Classes of backends by their names, as `module:name`; their modules import the libraries."""
NAMED = (*BACKENDS,)
OTHER_FILES = ("*.json", "*.txt", "*.model", "*.jinja", "speech-lora/*")
"""Patterns of files besides the weights, of checkpoints that raysp does not read itself."""
LEAST_VERSIONS = {
    HUGGING_FACE: ("5", ""),
    VLLM: ("0.22", ", which has VLLM_BATCH_INVARIANT and runs with transformers 5"),
}
"""First versions of libraries that backends are written for, with the reason."""


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
        return " with ".join(map(package_version, self._libraries))

    def require(self) -> None:
        """Raise unless the library is installed.

        Raises:
            CheckpointError: the library is missing; the message has the command that installs it.
        """
        for library in self._libraries:
            installed = hf_installed.version(library)
            command = f"pip install 'raysp[{self.name}]'"
            if not installed:
                raise CheckpointError(f"backend={self.name!r}: the package {library} is not installed; {command}")
            least, reason = LEAST_VERSIONS.get(library, ("0", ""))
            if Version(installed) < Version(least):
                raise CheckpointError(
                    f"backend={self.name!r}: {library} {installed} is installed, expected {least} or later{reason}; "
                    f"{command}"
                )

    @property
    def _libraries(self) -> tuple[str, ...]:
        """Packages that the backend needs."""
        if self.package is not None or self.name == OWN:
            return ()
        return (VLLM, HUGGING_FACE) if self.name == VLLM else (self.name,)

    def open(self) -> Backend:
        """Return the backend, which imports its library.

        Raises:
            CheckpointError: it is not installed.
        """
        self.require()
        if self.package is not None:
            return PackagedModels(self.package)
        return cast("Callable[[], Backend]", resolved(BACKENDS[self.name]))()


def package_version(name: str) -> str:
    """Return name and version of a package; empty if it is not installed."""
    version = hf_installed.version(name)
    return f"{name} {version}" if version else ""


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
    package = find(model_type) if isinstance(model_type, str) else None
    return Choice(OWN) if package is None else Choice(package.name, package)


def choice_of(checkpoint: CheckpointSummary) -> Choice:
    """Return the backend of a described checkpoint.

    Raises:
        CheckpointError: the package that described it is not installed here.
    """
    if checkpoint.backend in NAMED:
        return Choice(checkpoint.backend)
    package = find(checkpoint.model_type)
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
    if (installed := choice_of(checkpoint).library) != planned:
        raise CheckpointError(
            f"{checkpoint.path}: the run was planned with {planned}, and here is {installed}; install the same on all "
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
