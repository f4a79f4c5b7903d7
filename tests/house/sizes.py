"""Counts of lines, imports, patches and words in a checkout, read from the source."""

import ast
import re
from collections import defaultdict
from pathlib import Path

CHECKOUT = Path(__file__).parents[2]
LEFT_OUT = (ast.Import, ast.ImportFrom)
LAYERS = {
    "by promise": ("by_promise", "cli", "evaluation", "labelling"),
    "exactness": ("backends", "device", "models", "published"),
    "golden": ("golden",),
    "protocol": ("clouds", "sink", "storage", "training/sink"),
    "pure units": ("audio", "checkpoints", "corpus", "ops", "page_parts", "specs", "text"),
    "training": ("training",),
    "drivers": ("cluster", "forked", "labelling/engine", "slurm"),
    "house, versions, cloud": ("benchmarks", "documents", "house", "kubernetes", "versions"),
}
"""Layers of the tests, each with its folders. The longest folder that a file is in decides."""
HOUSE = "house, versions, cloud"
HELPERS = "helpers at the top"
DOOR = {"raysp", "raysp.cli", "raysp.models"}
"""Modules that tests import at the front door: public names, those of models, and `main` of the command line."""
PATCHING = {"setattr", "delattr", "setitem", "delitem", "patch", "object", "dict"}


def code_lines(text: str) -> int:
    """Return the lines of a file that are no docstring, import, comment or blank."""
    nodes = [node for node in ast.walk(ast.parse(text)) if isinstance(node, LEFT_OUT) or _is_text(node)]
    left_out = {line for node in nodes for line in range(node.lineno, (node.end_lineno or node.lineno) + 1)}
    lines = enumerate(map(str.strip, text.split("\n")), 1)
    return sum(bool(line) and line[0] != "#" and number not in left_out for number, line in lines)


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def rooms(package: Path) -> dict[str, tuple[int, int, int]]:
    """Return files, lines and lines of code of the rooms of a package and of all of it, the largest first."""
    found: dict[str, tuple[int, int, int]] = defaultdict(lambda: (0, 0, 0))
    for path in package.rglob("*.py"):
        parts, text = path.relative_to(package).parts, path.read_text()
        for room in (parts[0] if len(parts) > 1 else ".", "all"):
            files, lines, code = found[room]
            found[room] = files + 1, lines + text.count("\n"), code + code_lines(text)
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
    for node in ast.walk(ast.parse(text)) if "raysp" in text else ():
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
    if not re.search("patch|mock", text, re.IGNORECASE):  # most files, in less time
        return 0, 0
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
