"""Names that are imported at their first use: public names of a package, and entries of tables of kinds."""

import ast
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path


def lazily(package: str, file: str) -> tuple[Callable[[str], object], Callable[[], list[str]], list[str]]:
    """Return `__getattr__`, `__dir__` and `__all__` of a package whose names are listed in its .pyi file.

    Args:
        package: `__name__` of the package.
        file: `__file__` of the package; next to it, `__init__.pyi` has one relative import for each name.
    """
    tree = ast.parse(Path(file).with_suffix(".pyi").read_text(encoding="utf-8"))
    modules = {
        alias.asname or alias.name: "." * node.level + (node.module or "")
        for node in tree.body
        if isinstance(node, ast.ImportFrom) and node.level
        for alias in node.names
    }
    names = sorted(modules)

    def get(name: str) -> object:
        """Import the module that defines a public name."""
        if name not in modules:
            raise AttributeError(f"No {package} attribute {name}")
        attribute = getattr(import_module(modules[name], package), name)
        setattr(sys.modules[package], name, attribute)  # the next use does not come here
        return attribute

    return get, lambda: list(names), list(names)


def resolved(place: str) -> object:
    """Import an entry of a table, `module:name`."""
    module, _, name = place.partition(":")
    return getattr(import_module(module), name)
