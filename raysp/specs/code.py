"""A user's code: the files of a pipeline's functions and spec classes, and neighbouring modules that they import.

Each file is read once, on the driver. Its content is hashed, and workers import that content. Modules that are imported
by name (`import_module(name)`) and data files are not covered.
"""

import ast
import hashlib
import importlib.abc
import importlib.machinery
import importlib.metadata
import importlib.util
import inspect
import os
import sys
import tempfile
import threading
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType

from raysp.errors import RunError, SpecError
from raysp.tracebacks import is_installed_path

MAX_BYTES = 64_000_000
"""Largest size of all code sent to workers."""
_MAIN = "__main__"
_SUFFIXES = (*importlib.machinery.EXTENSION_SUFFIXES, *importlib.machinery.SOURCE_SUFFIXES)
_PROCESS = uuid.uuid4().hex
"""Id of this process: the process that has read the code has its modules already loaded."""


@dataclass(frozen=True)
class CodeFile:
    """One module: its name, the path it was read from, and its content."""

    module: str
    path: str
    content: bytes

    @property
    def is_package(self) -> bool:
        """Whether it is the `__init__` of a package."""
        return Path(self.path).name.startswith("__init__.")

    @property
    def name(self) -> str:
        """Path relative to the import folder, which does not depend on the location of that folder."""
        suffix = Path(self.path).suffix or ".py"
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
    """Versions of installed packages, which are not shipped."""
    process: str = field(default=_PROCESS, compare=False)

    def __bool__(self) -> bool:
        """Return whether a pipeline has any."""
        return bool(self.files or self.versions)

    def parts(self) -> dict[str, str]:
        """Return the parts of the fingerprint: a digest per file, a version per installed package."""
        return {
            **{f"code.{file.name}": file.digest for file in self.files},
            **{f"code.{package}": f"version {version}" for package, version in sorted(self.versions.items())},
        }

    def install(self) -> None:
        """Make this process import these files, regardless of those on its disk. No effect in the reading process.

        The code of the previous job is replaced, and its modules are unloaded.

        Raises:
            RunError: an installed package has another version here.
        """
        if self.process == _PROCESS:
            return
        for package, version in self.versions.items():
            if (here := _installed_version(package)) != version:
                raise RunError(
                    f"the package {package!r} had version {version} when the run was planned, on this worker it is "
                    f"{here or 'not installed'}; install the same version"
                )
        with _lock:
            if any(finder.code == self for finder in _installed):
                return
            codes = [self, *(finder.code for finder in _installed)]
            tops = {file.module.partition(".")[0] for code in codes for file in code.files} - {_MAIN}
            for name in [name for name in sys.modules if name.partition(".")[0] in tops]:
                del sys.modules[name]
            installed = _Finder(self)
            sys.meta_path[:] = [installed, *(finder for finder in sys.meta_path if finder not in _installed)]
            _installed[:] = [installed]
            importlib.invalidate_caches()


def read(classes: Iterable[type], functions: Mapping[str, object]) -> UserCode:
    """Read all code of a pipeline from outside raysp.

    An installed package counts by its version. For other code, imported modules in the same folder or package count
    too, recursively.

    Args:
        classes: classes of all specs of the pipeline.
        functions: functions by names such as `module:function`.

    Raises:
        SpecError: a function or class is not defined in a Python file, a file is ambiguous with another module of its
            name, an installed package has no version, or the code is too large.
    """
    users: dict[str, str] = {}
    for cls in classes:
        for base in cls.__mro__:
            is_spec = any(ancestor.__module__.partition(".")[0] == "raysp" for ancestor in base.__mro__)
            if _is_outside(base.__module__) and (is_spec or not _is_installed(base.__module__)):
                users[base.__module__] = f"{cls.__module__}:{cls.__qualname__}"
    for name, function in functions.items():
        module = name.partition(":")[0]
        if not _is_outside(module):
            raise _without_file(repr(function))
        users[module] = name
        if inspect.isfunction(function) and _is_outside(function.__module__):
            users[function.__module__] = name  # the named module may only import it
    importlib.invalidate_caches()
    files: dict[str, CodeFile] = {}
    versions: dict[str, str] = {}
    for module, user in users.items():
        package = module.partition(".")[0]
        if not _is_installed(module):
            files |= {file.module: file for file in _with_imported(module, user)}
        elif version := _installed_version(package):
            versions[package] = version
        else:
            raise SpecError(
                f"{user}: the installed package {package!r} has no version; wrap its use in a function of the pipeline "
                "file"
            )
    if (num_bytes := sum(len(file.content) for file in files.values())) > MAX_BYTES:
        raise SpecError(
            f"{', '.join(sorted(users))}: the code to ship to workers comes to {num_bytes:,} bytes, more than "
            f"the limit of {MAX_BYTES:,}; install large modules as a package"
        )
    return UserCode(tuple(files[name] for name in sorted(files)), versions)


def _is_outside(module: str) -> bool:
    """Return whether a module belongs neither to raysp nor to Python."""
    top = module.partition(".")[0]
    return top != "raysp" and (top not in sys.stdlib_module_names or top == _MAIN)


def _is_installed(module: str) -> bool:
    path = _file_of(module)
    return path is not None and is_installed_path(path)


def _installed_version(package: str) -> str | None:
    """Return the distributions of a top-level package with their versions; None if unknown."""
    owners = importlib.metadata.packages_distributions().get(package, [])
    return ", ".join(f"{owner} {importlib.metadata.version(owner)}" for owner in sorted(set(owners))) or None


def _file_of(module: str) -> Path | None:
    """Return the file of a loaded module."""
    path = getattr(sys.modules.get(module), "__file__", None)
    # Links are not resolved: neighbouring modules stand next to the link.
    return Path(os.path.abspath(path)) if path and Path(path).is_file() else None  # noqa: PTH100


def _without_file(subject: str) -> SpecError:
    return SpecError(
        f"{subject} is not in a Python file, so changes to it cannot be detected; put it into a file, or wrap "
        "it in a function of the pipeline file; raysp.Labeller takes it as it is"
    )


def _with_imported(module: str, user: str) -> Iterator[CodeFile]:
    """Yield the file of a loaded module and the files in its folder or package that it imports, recursively."""
    path = _file_of(module)
    if path is None or not path.name.endswith(_SUFFIXES):
        raise _without_file(user)
    own = module
    if module == _MAIN:  # relative imports refer to the name in its spec
        definition = sys.modules[module].__spec__
        own = definition.name if definition else path.stem.replace(".", "_")
    try:
        file = CodeFile(module, str(path), path.read_bytes())
    except OSError as error:
        raise SpecError(f"{user}: {path}: its code cannot be read ({error.strerror})") from error
    yield file
    folder = path.parents[own.count(".") + file.is_package]
    seen = {own, ""}
    waiting = [own.rpartition(".")[0], *_imported(own, file)]
    while waiting:
        if (name := waiting.pop()) not in seen:
            seen.add(name)
            waiting.append(name.rpartition(".")[0])
            if path := _module_file(folder, name):
                file = CodeFile(name, str(path), path.read_bytes())
                yield file
                waiting += _imported(name, file)


def _imported(name: str, file: CodeFile) -> Iterator[str]:
    """Yield the absolute names that a module may import: for `from a import b` both `a` and `a.b`."""
    try:
        tree = ast.parse(file.content) if file.path.endswith(".py") else ast.Module([], [])
    except (SyntaxError, ValueError, RecursionError):
        return
    package = name if file.is_package else name.rpartition(".")[0]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            try:
                parent = importlib.util.resolve_name("." * node.level + (node.module or ""), package)
            except ImportError:  # it leaves the package
                continue
            yield parent
            yield from (f"{parent}.{alias.name}" for alias in node.names)


def _module_file(folder: Path, name: str) -> Path | None:
    """Return the file of a module if Python finds it in a folder."""
    if name.partition(".")[0] == "raysp":
        return None
    spec, places = None, [str(folder), *sys.path]
    for part in name.split("."):
        # The name of a part alone: for the whole one, the parents of a namespace package would have to be loaded.
        spec = importlib.machinery.PathFinder.find_spec(part, places)
        if spec is None:
            return None
        places = [*(spec.submodule_search_locations or ())]
    path = Path(spec.origin) if spec and spec.origin and spec.origin.endswith(_SUFFIXES) else None
    if path is None or not path.is_relative_to(folder) or is_installed_path(path):
        return None
    if name.partition(".")[0] in sys.stdlib_module_names:
        raise SpecError(f"{path}: there is a module of Python named {name!r}, so this one is not found; rename it")
    loaded = _file_of(name)
    if loaded is not None and not loaded.samefile(path):
        raise SpecError(
            f"{path}: the module {name!r} is imported from {loaded} here, and workers would take the one beside it; "
            "rename one of them"
        )
    return path


_lock = threading.Lock()
_installed: list["_Finder"] = []


class _Finder(importlib.abc.MetaPathFinder):
    """Import hook that finds shipped modules before all others."""

    def __init__(self, code: UserCode) -> None:
        self.code = code
        self.files = {file.module: file for file in code.files if file.module != _MAIN}
        self.namespaces: dict[str, str] = {}
        for file in self.files.values():
            parent, folder = file.module.rpartition(".")[0], Path(file.path).parents[file.is_package]
            while parent:
                self.namespaces[parent] = str(folder)
                parent, folder = parent.rpartition(".")[0], folder.parent

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Return the import spec of a shipped module or of a package that has one; None for other modules."""
        file, folder = self.files.get(name), self.namespaces.get(name)
        if file is None and folder is None:
            return None
        # This machine's folders of a package have its files that are not shipped, such as data files.
        here = importlib.machinery.PathFinder.find_spec(name, path)
        here_too = [*(here.submodule_search_locations or ())] if here else []
        if file is None:
            spec = importlib.machinery.ModuleSpec(name, None, is_package=True)
            spec.submodule_search_locations = [str(folder), *here_too]
            return spec
        places = [str(Path(file.path).parent), *here_too] if file.is_package else None
        if file.path.endswith(".py"):
            loader = _Loader(file)
            return importlib.util.spec_from_file_location(
                name, file.path, loader=loader, submodule_search_locations=places
            )
        copy = Path(tempfile.mkdtemp(prefix="raysp-code-")) / Path(file.path).name
        copy.write_bytes(file.content)
        return importlib.util.spec_from_file_location(name, copy, submodule_search_locations=places)


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
