"""Names that benchmarks and pipelines import exist, in functions too: mypy does not check them all."""

import ast
import functools
from collections.abc import Iterable
from pathlib import Path

import pytest

from tests.test_architecture import imports_of, sources, tree_of

pytestmark = pytest.mark.slow  # `make check` runs this file
ROOT = Path(__file__).parents[2]


def unbound_names(root: Path, folders: Iterable[str]) -> list[str]:
    """Names that files of some folders import, in functions too, from modules below `root` that do not bind them."""
    paths = [path for folder in folders for path in sources(root / folder)]
    return [
        f"{path.relative_to(root)}:{one.line}: {one.module}"
        for path in paths
        for one in imports_of(path)
        if (root / one.module.split(".")[0]).is_dir() and not _is_bound(root, one.module)
    ]


def _is_bound(root: Path, module: str) -> bool:
    path, (*parents, name) = root / module.replace(".", "/").rstrip("*"), module.split(".")
    if path.is_dir() or path.with_suffix(".py").exists() or name.endswith("*"):
        return True
    stem = root.joinpath(*parents)
    holder = stem / "__init__.py" if stem.is_dir() else stem.with_suffix(".py")
    bound = _names_bound(holder.read_text()) if holder.exists() else set()
    return name in bound or "__getattr__" in bound


@functools.cache
def _names_bound(source: str) -> set[str]:
    nodes = [node for node in ast.walk(tree_of(source)) if not isinstance(node, ast.expr) or isinstance(node, ast.Name)]
    named = {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    defined = {node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    imported = {
        (alias.asname or alias.name).split(".")[0]
        for node in nodes
        for alias in getattr(node, "names", ())
        if isinstance(alias, ast.alias)
    }
    return named | defined | imported


def test_every_imported_name_exists():
    assert unbound_names(ROOT, ("benchmarks", "pipelines")) == []
