"""Files of a pipeline's functions and classes: their modules, and the neighbouring modules that these import.

Imports are found by static analysis, conditional ones and those inside functions included.
"""

import ast
import importlib.machinery
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

from raysp.errors import SpecError
from raysp.specs.code.origins import is_outside, modules_of_class, modules_of_function
from raysp.specs.code.user_code import MAIN, CodeFile, UserCode, installed_version
from raysp.tracebacks import is_installed_path

MAX_PACKAGE_FILES = 256
"""Largest number of files read from an installed package; a larger package is identified by its version."""
MAX_BYTES = 64_000_000
"""Largest size of all code sent to workers."""
_SUFFIXES = (*importlib.machinery.EXTENSION_SUFFIXES, *importlib.machinery.SOURCE_SUFFIXES)


class _Found(NamedTuple):
    """A module found in a folder; a namespace package has no path."""

    path: Path | None
    is_package: bool


@dataclass(frozen=True)
class _Beginning:
    """A module that a pipeline's function or class comes from."""

    module: str
    """Name of the module on workers."""
    name: str
    """Name to which its relative imports refer."""
    file: CodeFile
    folder: Path
    """Folder in which absolute imports of its neighbours are found."""
    is_installed: bool


def read(classes: Iterable[type], functions: Mapping[str, object]) -> UserCode:
    """Read all code of a pipeline from outside raysp.

    For an installed package, only its own files count, or its version if they are many or compiled. For other code,
    imported modules in the same folder or package count too, recursively.

    Args:
        classes: classes of all specs of the pipeline.
        functions: functions by names such as `module:function`.

    Raises:
        SpecError: a function or class is not defined in a Python file, a file is ambiguous with another module of its
            name, or the code is too large.
    """
    modules: dict[str, str] = {}
    for cls in classes:
        modules |= dict.fromkeys(modules_of_class(cls), f"{cls.__module__}:{cls.__qualname__}")
    for name, function in functions.items():
        found = modules_of_function(name, function)
        if not any(is_outside(module) for module in found):
            raise _without_file(repr(function))
        modules |= dict.fromkeys(found, name)
    files: dict[str, CodeFile] = {}
    versions: dict[str, str] = {}
    for module in sorted(modules):
        if is_outside(module):
            _read_module(module, modules[module], files, versions)
    if (num_bytes := sum(len(file.content) for file in files.values())) > MAX_BYTES:
        raise SpecError(
            f"{', '.join(sorted(modules))}: the code to ship to workers comes to {num_bytes:,} bytes, the limit is "
            f"{MAX_BYTES:,}; install large modules as a package"
        )
    return UserCode(tuple(files[name] for name in sorted(files)), versions)


def _read_module(module: str, user: str, files: dict[str, CodeFile], versions: dict[str, str]) -> None:
    beginning = _beginning(module, user)
    if not beginning.is_installed:
        files |= {file.module: file for file in _beside(beginning)}
        return
    own: dict[str, CodeFile] = {}
    for file in _beside(beginning):
        own[file.module] = file
        if len(own) > MAX_PACKAGE_FILES or not file.path.endswith(".py"):
            break
    else:
        files |= own
        return
    package = module.partition(".")[0]
    if (version := installed_version(package)) is None:
        raise SpecError(
            f"{user}: the package {package!r} is too large to ship or compiled, and has no version; wrap its use in "
            "a function of the pipeline file"
        )
    versions[package] = version


def _beginning(module: str, user: str) -> _Beginning:
    loaded = sys.modules.get(module)
    path = _file_of(loaded)
    if loaded is None or path is None:
        raise _without_file(user)
    name = (loaded.__spec__.name if loaded.__spec__ else path.stem.replace(".", "_")) if module == MAIN else module
    is_package = path.stem == "__init__"
    folder = path.parents[name.count(".") + is_package]
    try:
        file = CodeFile(module, str(path), is_package, path.read_bytes())
    except OSError as error:
        raise SpecError(f"{user}: {path}: its code cannot be read ({error.strerror})") from error
    return _Beginning(module, name, file, folder, is_installed_path(path))


def _file_of(module: ModuleType | None) -> Path | None:
    path = getattr(module, "__file__", None)
    if not path or not path.endswith(_SUFFIXES) or not Path(path).is_file():
        return None
    return Path(os.path.abspath(path))  # noqa: PTH100 - links are not resolved: neighbours are those of the link


def _without_file(what: str) -> SpecError:
    return SpecError(
        f"{what} is not in a Python file, so changes to it cannot be detected; put it into a file, or wrap "
        "it in a function of the pipeline file; raysp.Labeller takes it as it is"
    )


def _beside(beginning: _Beginning) -> Iterator[CodeFile]:
    """Yield a module's file and the neighbouring files that it imports, recursively, each once."""
    folder, top = beginning.folder, beginning.name.partition(".")[0]
    waiting, seen = [(beginning.name, beginning.file)], {beginning.module}
    names = [*_parents(beginning.name)]
    while waiting or names:
        for name in names:
            if name in seen or (beginning.is_installed and name.partition(".")[0] != top):
                continue
            seen.add(name)
            if (file := _read_beside(folder, name)) is not None:
                waiting.append((name, file))
        names = []
        if not waiting:
            return
        name, file = waiting.pop()
        yield file
        if file.path.endswith(".py"):
            imported = sorted(set(imported_names(file.content, name, is_package=file.is_package)))
            names = [part for one in imported for part in _with_parents(folder, one)]


def _parents(name: str) -> Iterator[str]:
    parts = name.split(".")
    yield from (".".join(parts[:count]) for count in range(1, len(parts)))


def _with_parents(folder: Path, name: str) -> list[str]:
    """Return a module and its parent packages; for `package.*` all modules of the package."""
    if name.endswith(".*"):
        package = name.removesuffix(".*")
        inside = {path.name for path in folder.joinpath(*package.split(".")).glob("*") if path.name.endswith(_SUFFIXES)}
        return [f"{package}.{one.partition('.')[0]}" for one in sorted(inside) if not one.startswith("__init__.")]
    return [*_parents(name), name]


def _read_beside(folder: Path, name: str) -> CodeFile | None:
    """Return a module of a folder; None if the folder does not have it, or it is a namespace package.

    Raises:
        SpecError: another module of that name is imported in its place.
    """
    if not all(part.isidentifier() for part in name.split(".")) or name.partition(".")[0] == "raysp":
        return None
    found = _find(folder, name)
    if found is None or found.path is None or _is_elsewhere(folder, name.partition(".")[0]):
        return None
    if name.partition(".")[0] in sys.stdlib_module_names:
        raise SpecError(
            f"{found.path}: there is a module of Python named {name!r}, so this one is not found; rename it"
        )
    loaded = _file_of(sys.modules.get(name))
    if loaded is not None and not loaded.samefile(found.path):
        raise SpecError(
            f"{found.path}: the module {name!r} is imported from {loaded} here, and workers would take the one beside "
            "it; rename one of them"
        )
    return CodeFile(name, str(found.path), found.is_package, found.path.read_bytes())


def _is_elsewhere(folder: Path, top: str) -> bool:
    """Return whether Python finds another module of that name before the one in the folder."""
    if top in sys.stdlib_module_names or (spec := importlib.machinery.PathFinder.find_spec(top)) is None:
        return False
    places = [spec.origin] if spec.origin else [*(spec.submodule_search_locations or ())]
    return not any(Path(place).resolve().is_relative_to(folder.resolve()) for place in places)


def _find(folder: Path, name: str) -> _Found | None:
    """Find a module in the order of Python: packages before modules, compiled before source, namespaces last."""
    place = folder
    for part in name.split(".")[:-1]:
        place = place / part
    last = name.rpartition(".")[2]
    for suffix in _SUFFIXES:
        if (path := place / last / f"__init__{suffix}").is_file():
            return _Found(path, True)
    for suffix in _SUFFIXES:
        if (path := place / f"{last}{suffix}").is_file():
            return _Found(path, False)
    return _Found(None, True) if (place / last).is_dir() else None


_BY_NAME = ("import_module", "__import__")


def imported_names(source: bytes, module: str, *, is_package: bool) -> Iterator[str]:
    """Yield absolute names that a file may import: for `from a import b` both `a` and `a.b`, for `*` `a.*`.

    Args:
        source: content of the file; if it cannot be parsed, no name is yielded.
        module: name of the module, to which relative imports refer.
        is_package: whether it is a package's `__init__`.
    """
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError):
        return
    package = module if is_package else module.rpartition(".")[0]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and (beginning := _from(node, package)):
            yield beginning
            yield from (f"{beginning}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and node.args and _called(node.func) in _BY_NAME:
            yield from _constant(node.args, package)


def _from(node: ast.ImportFrom, package: str) -> str:
    """Return the module of a `from` import; empty if a relative import leaves the package."""
    if not node.level:
        return node.module or ""
    return _absolute("." * node.level + (node.module or ""), package)


def _called(function: ast.expr) -> str:
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")


def _constant(arguments: list[ast.expr], package: str) -> Iterator[str]:
    if isinstance(arguments[0], ast.Constant) and isinstance(name := arguments[0].value, str):
        yield _absolute(name, package) if name.startswith(".") else name


def _absolute(name: str, package: str) -> str:
    relative = name.lstrip(".")
    parents = package.split(".") if package else []
    levels = len(name) - len(relative)
    if levels > len(parents):
        return ""
    return ".".join([*parents[: len(parents) - levels + 1], *([relative] if relative else [])])
