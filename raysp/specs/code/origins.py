"""Modules that a function or class comes from, including decorators, wrapped functions and base classes."""

import functools
import sys
from collections.abc import Iterator
from pathlib import Path
from types import CellType, FunctionType, MethodType

from raysp.tracebacks import is_installed_path, is_standard_path

MAX_OBJECTS = 1000
"""Largest number of objects visited per function: a closure may reach a whole library."""


def modules_of_function(name: str, function: object) -> set[str]:
    """Return the modules of a function named `module:function`, of its decorators, and of the function they wrap.

    Decorators of an installed package count only if the function itself is from that package: others are libraries.
    """
    return {name.partition(":")[0], *_without_libraries(set(_modules_behind(function)))}


def modules_of_class(cls: type) -> set[str]:
    """Return the modules of a spec class, of its bases outside raysp, and of its methods' decorators."""
    bases = [base for base in cls.__mro__ if is_outside(base.__module__)]
    own = {base.__module__ for base in bases if not is_installed(base.__module__) or _is_spec(base)}
    methods = {module for base in bases for value in [*vars(base).values()] for module in _modules_of_method(value)}
    return own | {module for module in methods if not is_installed(module) or _top(module) in {*map(_top, own)}}


def is_outside(module: str) -> bool:
    """Return whether a module belongs neither to raysp nor to Python."""
    top = _top(module)
    if top == "raysp" or (top in sys.stdlib_module_names and top != "__main__"):
        return False
    file = getattr(sys.modules.get(module), "__file__", None)
    return not (file and is_standard_path(Path(file)))


def is_installed(module: str) -> bool:
    """Return whether a module belongs to an installed package, by the path of its file."""
    file = getattr(sys.modules.get(module), "__file__", None)
    return bool(file) and is_installed_path(Path(str(file)))


def _top(module: str) -> str:
    return module.partition(".")[0]


def _is_spec(cls: type) -> bool:
    """Return whether a class inherits from a class of raysp."""
    return any(_top(base.__module__) == "raysp" for base in cls.__mro__)


def _without_libraries(modules: set[str]) -> set[str]:
    own = {module for module in modules if not is_installed(module)}
    return own or modules


def _modules_of_method(value: object) -> Iterator[str]:
    if isinstance(value, FunctionType | staticmethod | classmethod | property | functools.cached_property):
        yield from _modules_behind(value)


def _modules_behind(function: object) -> Iterator[str]:
    """Yield the modules outside raysp of a function and of the functions and classes that it holds."""
    waiting, seen = [function], set[int]()
    while waiting and len(seen) < MAX_OBJECTS:
        one = waiting.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        module = _module_of(one)
        if _top(module) == "raysp":
            continue  # such as the constructor of a spec
        if is_outside(module) and module in sys.modules:
            yield module
        waiting += _behind(one)


def _module_of(one: object) -> str:
    if isinstance(one, FunctionType):  # `functools.wraps` replaces a wrapper's `__module__`
        return str(one.__globals__.get("__name__", one.__module__))
    return str((one if isinstance(one, type) else type(one)).__module__)


def _behind(one: object) -> Iterator[object]:
    """Yield the functions and classes that one function, class or callable object directly holds."""
    if isinstance(one, type):
        yield from (base for base in one.__mro__ if is_outside(base.__module__))
        return
    if isinstance(one, FunctionType):
        cells = [content for cell in one.__closure__ or () for content in _contents(cell)]
        held = [*cells, *(one.__defaults__ or ()), *(one.__kwdefaults__ or {}).values()]
        yield from (value for value in held if callable(value))
    elif isinstance(one, functools.partial):
        yield from (value for value in (one.func, *one.args, *one.keywords.values()) if callable(value))
    elif isinstance(one, property):
        yield from (value for value in (one.fget, one.fset) if value)
    elif isinstance(one, functools.cached_property):
        yield one.func
    elif isinstance(one, MethodType):
        yield from (one.__func__, one.__self__)
    elif isinstance(one, staticmethod | classmethod):
        yield one.__func__
    else:
        yield from type(one).__mro__
        yield from (value for value in getattr(one, "__dict__", {}).values() if callable(value))
    if (wrapped := getattr(one, "__wrapped__", None)) is not None:
        yield wrapped


def _contents(cell: CellType) -> list[object]:
    try:
        return [cell.cell_contents]
    except ValueError:  # an empty cell
        return []
