"""A user's code as a value: the content of its files, and an import hook with which workers import exactly these."""

import hashlib
import importlib.abc
import importlib.machinery
import importlib.metadata
import importlib.util
import sys
import tempfile
import threading
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType

from raysp.errors import RunError

MAIN = "__main__"
_PROCESS = uuid.uuid4().hex
"""Id of this process: the process that has read the code has its modules already loaded."""


@dataclass(frozen=True)
class CodeFile:
    """One module: its name, its content, and the path it was read from."""

    module: str
    path: str
    is_package: bool
    content: bytes

    @property
    def name(self) -> str:
        """Path relative to the import folder, which does not depend on the location of that folder."""
        suffix = "".join(Path(self.path).suffixes[-1:]) or ".py"
        return self.module.replace(".", "/") + ("/__init__" if self.is_package else "") + suffix

    @property
    def digest(self) -> str:
        """Hash of the content."""
        return hashlib.sha256(self.content).hexdigest()[:16]


@dataclass(frozen=True)
class UserCode:
    """All code of a pipeline from outside raysp."""

    files: tuple[CodeFile, ...] = ()
    """Files, sorted by module."""
    versions: Mapping[str, str] = field(default_factory=dict)
    """Versions of installed packages that are too large to read, or compiled; these packages are not shipped."""
    process: str = field(default=_PROCESS, compare=False)

    def __bool__(self) -> bool:
        """Return whether there is any code."""
        return bool(self.files or self.versions)

    def parts(self) -> dict[str, str]:
        """Return the parts of the fingerprint: a digest per file, a version per package that is not shipped."""
        return {
            **{f"code.{file.name}": file.digest for file in self.files},
            **{f"code.{package}": f"version {version}" for package, version in sorted(self.versions.items())},
        }

    def install(self) -> None:
        """Make this process import these files, regardless of those on its disk. No effect in the reading process.

        Raises:
            RunError: a package identified by its version has another version here.
        """
        if self.process == _PROCESS:
            return
        for package, version in self.versions.items():
            if (found := installed_version(package)) != version:
                raise RunError(
                    f"the package {package!r} had version {version} when the run was planned, on this worker it is "
                    f"{found or 'not installed'}; install the same version"
                )
        _install(self)


def installed_version(package: str) -> str | None:
    """Return the distributions of a top-level package with their versions; None if unknown."""
    owners = importlib.metadata.packages_distributions().get(package, [])
    return ", ".join(f"{owner} {importlib.metadata.version(owner)}" for owner in sorted(set(owners))) or None


_lock = threading.Lock()
_installed: list["_Finder"] = []


def _install(code: UserCode) -> None:
    """Replace the code of the previous job, and unload its modules."""
    with _lock:
        if any(one.code == code for one in _installed):
            return
        old = _installed.pop() if _installed else None
        if old:
            sys.meta_path.remove(old)
        new = _Finder(code)
        for name in [*sys.modules]:
            if new.owns(name) or (old and old.owns(name)):
                del sys.modules[name]
        _installed.append(new)
        sys.meta_path.insert(0, new)
        importlib.invalidate_caches()


class _Finder(importlib.abc.MetaPathFinder):
    """Import hook that finds shipped modules before all others."""

    def __init__(self, code: UserCode) -> None:
        self.code = code
        self.files = {file.module: file for file in code.files if file.module != MAIN}
        self.namespaces = _namespaces(self.files)

    def owns(self, name: str) -> bool:
        """Return whether a module is shipped, or is in a shipped package."""
        parents = (name.rsplit(".", depth)[0] for depth in range(name.count(".") + 1))
        return any(parent in self.files or parent in self.namespaces for parent in parents)

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Return the import spec of a shipped module; None for other modules."""
        if (file := self.files.get(name)) is not None:
            return _spec_of(file, path)
        if (folder := self.namespaces.get(name)) is not None:
            spec = importlib.machinery.ModuleSpec(name, None, is_package=True)
            spec.submodule_search_locations = [folder, *_places_here(name, path)]
            return spec
        return None


def _namespaces(files: Mapping[str, CodeFile]) -> dict[str, str]:
    """Return namespace packages with their folders."""
    found: dict[str, str] = {}
    for file in files.values():
        folder = Path(file.path).parent if not file.is_package else Path(file.path).parent.parent
        parent = file.module.rpartition(".")[0]
        while parent:
            if parent not in files:
                found[parent] = str(folder)
            folder, parent = folder.parent, parent.rpartition(".")[0]
    return found


def _spec_of(file: CodeFile, path: Sequence[str] | None) -> importlib.machinery.ModuleSpec | None:
    places = [str(Path(file.path).parent), *_places_here(file.module, path)] if file.is_package else None
    if Path(file.path).suffix != ".py":
        copy = Path(tempfile.mkdtemp(prefix="raysp-code-")) / Path(file.path).name
        copy.write_bytes(file.content)
        return importlib.util.spec_from_file_location(file.module, copy, submodule_search_locations=places)
    return importlib.util.spec_from_file_location(
        file.module, file.path, loader=_Loader(file), submodule_search_locations=places
    )


def _places_here(name: str, path: Sequence[str] | None) -> list[str]:
    """Return this machine's folders of a package, for its files that are not shipped, such as data files."""
    here = importlib.machinery.PathFinder.find_spec(name, path)
    return list(here.submodule_search_locations or ()) if here else []


class _Loader(importlib.abc.SourceLoader):
    """Loader of one module from its shipped content, which tracebacks show too."""

    def __init__(self, file: CodeFile) -> None:
        self.file = file

    def get_filename(self, fullname: str) -> str:
        """Return the path on the driver's machine."""
        return self.file.path

    def get_data(self, path: str | bytes) -> bytes:
        """Return the shipped content; other files, such as data next to the module, are read from this machine."""
        return self.file.content if path == self.file.path else Path(str(path)).read_bytes()
