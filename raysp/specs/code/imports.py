"""Imports of a Python file, found by static analysis, including conditional imports and those inside functions."""

import ast
from collections.abc import Iterator

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
