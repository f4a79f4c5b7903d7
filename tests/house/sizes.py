"""Counts of lines, imports, patches and words in a checkout, read from the source."""

import ast
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

CHECKOUT = Path(__file__).parents[2]
COLUMNS = ("files", "lines", "code", "docstring", "blank", "comment", "import", "functions", "classes")
LAYERS = {
    "by promise": ("by_promise", "cli", "evaluation", "labelling"),
    "exactness": ("backends", "device", "models", "published"),
    "golden": ("golden",),
    "protocol": ("clouds", "sink", "storage", "training/sink"),
    "pure units": ("audio", "checkpoints", "corpus", "ops", "page_parts", "specs", "text"),
    "training": ("training",),
    "drivers": ("cluster", "forked", "labelling/engine", "slurm"),
    "house, versions, cloud": ("benchmarks", "documents", "house", "kubernetes", "mutants", "versions"),
}
"""Layers of the tests, each with its folders. The longest folder that a file is in decides."""
HOUSE = "house, versions, cloud"
HELPERS = "helpers at the top"
DOOR = {"raysp", "raysp.cli", "raysp.models"}
"""Modules that tests import at the front door: public names, those of models, and `main` of the command line."""
PATCHING = {"setattr", "delattr", "setitem", "delitem", "patch", "object", "dict"}


def measure(text: str) -> tuple[int, ...]:
    """Return the figures of a file, in the order of COLUMNS without the first."""
    tree, lines = ast.parse(text), text.split("\n")
    nodes = list(ast.walk(tree))
    bodies = [node.body for node in nodes if isinstance(getattr(node, "body", None), list)]
    docstrings = _spans(child for body in bodies for child in body if _is_text(child))
    imports = _spans(node for node in nodes if isinstance(node, ast.Import | ast.ImportFrom)) - docstrings
    total = text.count("\n")
    blank = {i + 1 for i, line in enumerate(lines[:total]) if not line.strip()} - docstrings
    comments = {i + 1 for i, line in enumerate(lines[:total]) if line.strip().startswith("#")} - docstrings
    code = total - len(docstrings) - len(blank) - len(comments) - len(imports)
    functions = sum(isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) for node in nodes)
    classes = sum(isinstance(node, ast.ClassDef) for node in nodes)
    return total, code, len(docstrings), len(blank), len(comments), len(imports), functions, classes


def _is_text(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def _spans(nodes: Iterable[ast.stmt]) -> set[int]:
    return {line for node in nodes for line in range(node.lineno, (node.end_lineno or node.lineno) + 1)}


def rooms(package: Path) -> dict[str, list[int]]:
    """Return the figures of the rooms of a package and of all of it, the largest first."""
    found: dict[str, list[int]] = defaultdict(lambda: [0] * len(COLUMNS))
    for path in package.rglob("*.py"):
        parts = path.relative_to(package).parts
        for room in (parts[0] if len(parts) > 1 else ".", "all"):
            found[room] = [a + b for a, b in zip(found[room], (1, *measure(path.read_text())), strict=True)]
    return dict(sorted(found.items(), key=lambda item: -item[1][2]))


def layer_of(path: Path) -> str:
    """Return the layer of a file, whose path is relative to the folder of the tests."""
    places = {folder: layer for layer, folders in LAYERS.items() for folder in folders}
    for folder in path.parents:
        if layer := places.get(folder.as_posix()):
            return layer
    return HOUSE if path.name.startswith("test_") else HELPERS


def layers(tests: Path) -> dict[str, tuple[int, int]]:
    """Return files and lines by layer."""
    found = dict.fromkeys((*LAYERS, HELPERS), (0, 0))
    for path in tests.rglob("*.py"):
        files, lines = found[layer := layer_of(path.relative_to(tests))]
        found[layer] = (files + 1, lines + path.read_text().count("\n"))
    return found


def inside_imports(text: str, package: Path) -> set[str]:
    """Return the modules of raysp that a file imports past the front door, inside functions as well."""
    modules: set[str] = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            modules |= {f"{node.module}.{alias.name}" for alias in node.names if node.module == "raysp"}
            modules.add(node.module)
    return {name for name in modules if name.startswith("raysp.") and _is_module(name, package)} - DOOR


def _is_module(name: str, package: Path) -> bool:
    path = package.joinpath(*name.split(".")[1:])
    return path.is_dir() or path.with_suffix(".py").is_file()


def patches(text: str) -> tuple[int, int]:
    """Return the number of patches of a file (`monkeypatch.setattr`, `mock.patch`), and of those of raysp."""
    tree = ast.parse(text)
    names = {
        alias.asname or alias.name.partition(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
        if (getattr(node, "module", None) or alias.name).partition(".")[0] == "raysp"
    }
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and node.args and _is_patch(node.func)]
    return len(calls), sum(_root(call.args[0]) in {"raysp", *names} for call in calls)


def _is_patch(function: ast.expr) -> bool:
    words = ast.unparse(function).lower().rsplit(".", 1)
    return len(words) == 2 and words[1] in PATCHING and ("patch" in words[0] or "mock" in words[0])


def _root(target: ast.expr) -> str:
    """Return the first name of what is patched: `raysp` of "raysp.cli.main", `module` of `module.name`."""
    while isinstance(target, ast.Attribute | ast.Subscript | ast.Call):
        target = target.func if isinstance(target, ast.Call) else target.value
    if isinstance(target, ast.Constant):
        return str(target.value).partition(".")[0]
    return target.id if isinstance(target, ast.Name) else ""


def words(checkout: Path) -> dict[str, int]:
    """Return the words of the documentation by folder."""
    found: dict[str, int] = defaultdict(int)
    for path in (checkout / "README.md", *(checkout / "docs").rglob("*.md")):
        found[path.parent.relative_to(checkout).as_posix()] += len(path.read_text().split())
    return dict(sorted(found.items()))
