"""Models of other packages, which offer them by entry points: `[project.entry-points."raysp.models"]`.

The name of an entry point is the model type in config.json; its value is a class or function that is called without
arguments and returns a `Backend`. Workers have the same package installed, which is checked.
"""

import contextlib
import functools
import hashlib
import importlib.util
import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import cast

from raysp.backends.backend import Backend, WritingBackend
from raysp.errors import CheckpointError, RayspError
from raysp.models.labelled_passes import CheckpointSummary, LabellingModel

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
    """Return the package that offers a model type; None if no package does.

    Raises:
        CheckpointError: several packages do.
    """
    found = [
        Package(one.dist.name, one.dist.version, one)
        for one in _offered(tuple((folder, _changed(folder)) for folder in sys.path))
        if one.name == model_type and one.dist is not None
    ]
    if len(found) > 1:
        raise CheckpointError(
            f"model type {model_type!r}: found models of "
            f"{' and '.join(map(str, found))}, expected those of one package; uninstall the others"
        )
    return found[0] if found else None


@functools.lru_cache(maxsize=4)
def _offered(folders: tuple[tuple[str, int | None], ...]) -> metadata.EntryPoints:
    """Return the entry points of all packages, which are read again when a folder of `sys.path` changes."""
    return metadata.entry_points(group=GROUP)


def _changed(folder: str) -> int | None:
    """Return when the entries of a folder changed; None if it cannot be read."""
    try:
        return os.stat(folder or ".").st_mtime_ns  # noqa: PTH116 - a Path takes longer to make
    except OSError:
        return None


def _digest(module: str) -> str:
    """Hash the source of a module, or of all modules of its package, to 16 hexadecimal digits."""
    top = importlib.util.find_spec(module.partition(".")[0])
    folders = [Path(one) for one in (top.submodule_search_locations if top else None) or ()]
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
        with _errors_of(self.package, folder, "describe"):
            found = self._backend().describe(folder)
        if not isinstance(found, CheckpointSummary):
            raise self._wrong("describe", found, "a CheckpointSummary")
        return replace(found, path=folder, backend=self.package.name)

    def load(self, folder: Path, *, dtype: str, device: str) -> LabellingModel:
        """Load a checkpoint by the package.

        Raises:
            CheckpointError: the package refuses it, or fails.
        """
        with _errors_of(self.package, folder, "load"):
            found = self._backend().load(folder, dtype=dtype, device=device)
        for name in ("summary", "device", "dtype", "run"):
            if not hasattr(found, name):
                raise self._wrong("load", found, f"a model with summary, device, dtype and run; it has no {name}")
        return found

    def check_writing(
        self, checkpoint: CheckpointSummary, options: Mapping[str, object], *, language: str | None, task: str | None
    ) -> None:
        """Check the options of a transcript by the package.

        Raises:
            CheckpointError: the package refuses one, or fails.
        """
        with _errors_of(self.package, checkpoint.path, "check_writing"):
            backend = cast("WritingBackend", self._backend())
            backend.check_writing(checkpoint, options, language=language, task=task)

    def _backend(self) -> Backend:
        return cast("Backend", self.package.entry_point.load()())

    def _wrong(self, method: str, found: object, expected: str) -> CheckpointError:
        return CheckpointError(
            f"package {self.package}, {self.package.entry_point.value}: {method} returned {found!r}, expected "
            f"{expected}"
        )


@contextlib.contextmanager
def _errors_of(package: Package, folder: Path, method: str) -> Iterator[None]:
    """Raise errors of a package as a CheckpointError that names it; those of raysp pass."""
    try:
        yield
    except RayspError:
        raise
    except Exception as error:  # any, of code that raysp does not know
        raise CheckpointError(
            f"{folder}: package {package}, {package.entry_point.value}: {method} failed with {type(error).__name__}: "
            f"{error}"
        ) from error
