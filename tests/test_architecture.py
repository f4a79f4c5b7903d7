"""The arrows between packages: who may import whom, read from the source, imports inside functions included."""

import ast
import functools
import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import NamedTuple

import pytest

pytestmark = pytest.mark.slow  # `make check` runs this file
PACKAGE = Path(__file__).parents[1] / "raysp"

# What every feature uses, from the lowest layer up: a part may import those of the lines before its own.
SHARED = (
    {"bounds", "capabilities", "columns", "errors", "public_names", "tracebacks", "words"},
    {"devices"},
    {"crossing"},
    {"audio", "text", "storage"},
    {"corpus", "checkpoints", "evaluation"},
    {"models"},
    {"backends"},
    {"ops"},
    {"specs"},
    {"sink"},
    {"pages", "work"},
)
# Rooms of features, by the longest name that a module begins with: besides what is shared, each may use those named.
LABELLING = {"cluster", "labelling.planning", "labelling.assembly", "labelling.finished"}
ENGINE = "labelling.engine"
"""It imports Ray, so only what runs reaches it."""
# The rooms of training from the lowest up; each may use those before it, and `training`, its verbs, all of them.
TRAINING = (
    *("training.specs", "training.sink", "training.planning", "training.data"),
    *("training.objectives", "training.preparing", "training.loop", "training.estimates"),
    *("training.reading", "training.on_ray"),
)
RUNS = {ENGINE, "training", *TRAINING}
FEATURES: dict[str, set[str]] = {
    "cluster": set(),
    "labelling.planning": {"cluster"},
    "labelling.assembly": {"labelling.planning"},
    "labelling.finished": {"labelling.planning"},
    ENGINE: LABELLING,
    "labelling.reports": LABELLING,
    "labelling.estimates": {*LABELLING, ENGINE},
    "labelling": {*LABELLING, "labelling.reports", "labelling.estimates"},
    "cluster.submitting": {"cluster"},
    "verbs": set(),
    "verbs.forgetting": LABELLING,
    "verbs.verify": {*LABELLING, "verbs"},
    "verbs.export": {*LABELLING, "verbs"},
    "verbs.merge": LABELLING,
    "evaluation.diff": LABELLING,
    "evaluation.evaluate": {*LABELLING, ENGINE},
    **{room: {*LABELLING, *TRAINING[:place]} for place, room in enumerate(TRAINING)},
    "training.on_ray": {*LABELLING, ENGINE, *TRAINING[:-1]},
    "training": {*LABELLING, ENGINE, *TRAINING},
}
_LOWER = {part: frozenset().union(*SHARED[:number]) for number, parts in enumerate(SHARED) for part in parts}
_ALL_SHARED = frozenset().union(*SHARED)
BELOW = {
    **_LOWER,
    **{room: _ALL_SHARED | others for room, others in FEATURES.items()},
    "cli": _ALL_SHARED | set(FEATURES),
    "__main__": frozenset({"cli"}),
}
# A pipeline is made and checked without pyarrow or torch: specs import the rest only inside functions.
EAGER = {**BELOW, "specs": SHARED[0]}
# Public names are reached by users' own modules and for the version, inside functions.
MAY_USE_PUBLIC_NAMES = {"specs", "cli", "cluster", "cluster.submitting"}

# Folders of what architectures share; each may use those before it. Architectures and what finds them may use all.
MODELS_FOLDERS = ("base", "tokenizers", "features", "encoder", "decoder")
MODELS_MAY_USE = {"torch", "numpy"}
MODELS_MAY_USE_OF_RAYSP = {
    "bounds",
    "capabilities",
    "crossing",
    "devices",
    "errors",
    "public_names",
    "words",
    "checkpoints",
}
FOLDERS_MAY_USE = {"base": {"safetensors", "yaml"}, "tokenizers": {"tokenizers"}, "flax": {"jax", "flax"}}
# Sisters of the architectures in JAX may use all of models; nothing else may use them.
SISTERS = "flax"


# All parts but the lowest read data from outside: corpora, checkpoints, sinks, exports, records of jobs.
UNBOUNDED = {
    *("json.load", "json.loads", "zlib.decompress", "zlib.decompressobj", "zipfile.ZipFile", "tarfile.open"),
    *("gzip.open", "gzip.decompress", "gzip.GzipFile", "bz2.open", "bz2.decompress", "lzma.open", "lzma.decompress"),
}
# What these parse is written by this machine: by a process of raysp, its user, or into the user's cache.
READ_OWN_DATA = {
    *("corpus/surveys.py", "corpus/survey_process.py", "checkpoints/fetching.py", "text/beams/arpa.py"),
    *("audio/child.py", "audio/isolation.py", "cluster/submitting/head.py", "specs/values.py"),
    "training/sink/step_log.py",
}
# Archives are opened over `bounds.HeaderReader` or after a look at their members.
OPEN_ARCHIVES = {"corpus/archive.py", "models/base/nemo_archives.py", "models/base/pickle_process.py"}


MOST_FILES, MOST_LINES = 25, 600
"""Files of a folder, and lines of a file."""
MOST_PROMISES = 80
"""Files of tests/by_promise, which is a list: a file for each promise of a verb."""


class Import(NamedTuple):
    """One import statement's target."""

    module: str
    """Absolute; of `from a import b`, `a.b`."""
    line: int
    lazy: bool
    """Inside a function."""
    typing: bool
    """Under `if TYPE_CHECKING`: never run."""


def imports_of(path: Path) -> tuple[Import, ...]:
    return _imports_in(path.read_text())


@functools.cache
def tree_of(source: str) -> ast.Module:
    return ast.parse(source)


@functools.cache
def _imports_in(source: str) -> tuple[Import, ...]:
    """Return the imports of a source. Expressions are looked at where one may be a call of `import_module`."""
    looked_at = ast.AST if "import_module" in source else ast.stmt | ast.excepthandler | ast.match_case
    found, left = list[Import](), [(tree_of(source), False, False)]
    while left:
        node, lazy, typing = left.pop()
        for child in ast.iter_child_nodes(node):
            if isinstance(child, looked_at):
                found += _imported(child, lazy=lazy, typing=typing)
                inside = lazy or isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
                checked = typing or (isinstance(child, ast.If) and dotted(child.test).endswith("TYPE_CHECKING"))
                left.append((child, inside, checked))
    return tuple(found)


def _imported(node: ast.AST, *, lazy: bool, typing: bool) -> Iterator[Import]:
    if isinstance(node, ast.Import):
        yield from (Import(alias.name, node.lineno, lazy, typing) for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        assert node.level == 0, f"line {node.lineno}: a relative import"
        yield from (Import(f"{node.module}.{alias.name}", node.lineno, lazy, typing) for alias in node.names)
    elif isinstance(node, ast.Call) and dotted(node.func) in ("import_module", "importlib.import_module"):
        argument = node.args[0]
        if isinstance(argument, ast.Constant):
            yield Import(str(argument.value), node.lineno, True, typing)
        elif isinstance(argument, ast.JoinedStr) and isinstance(argument.values[0], ast.Constant):
            yield Import(f"{argument.values[0].value}*", node.lineno, True, typing)


def dotted(node: ast.AST) -> str:
    """Return the name that stands there, such as `sys.stdout.write`; of anything else, what follows its last dot."""
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}".removeprefix(".")
    return node.id if isinstance(node, ast.Name) else ""


def sources(package: Path) -> list[Path]:
    return sorted(package.rglob("*.py"))


def part_of(path: Path, package: Path) -> str:
    return _room(path.relative_to(package).with_suffix("").parts)


def target_of(module: str) -> str:
    """Name the part of raysp that a module of raysp belongs to; `raysp` itself for its lazy public names."""
    room = _room(module.split(".")[1:])
    return room if room in BELOW else "raysp"


def _room(names: Sequence[str]) -> str:
    """Return the drawing's longest name for a module: `labelling.planning`, `sink`."""
    longer = ".".join(names[:2])
    return longer if longer in BELOW else next(iter(names), "")


def wrong_arrows(package: Path) -> list[str]:
    wrong = []
    for path in sources(package):
        part = part_of(path, package)
        if part == "__init__" or (path.name == "__init__.py" and not imports_of(path)):
            continue
        if part not in BELOW:
            wrong.append(f"{path.relative_to(package)}: a part that the drawing does not know")
            continue
        for found in imports_of(path):
            if found.module.partition(".")[0] != "raysp":
                continue
            target = target_of(found.module)
            allowed = BELOW[part] if found.lazy or found.typing else EAGER[part]
            public = target == "raysp" and part in MAY_USE_PUBLIC_NAMES and (found.lazy or found.typing)
            if target != part and target not in allowed and not public:
                wrong.append(f"{path.relative_to(package)}:{found.line}: {part} imports {found.module}")
    return wrong


def foreign_imports(package: Path, name: str, allowed: set[str]) -> list[str]:
    """Find imports of the package `name` outside the parts that may have it."""
    return [
        f"{path.relative_to(package)}:{found.line}: {found.module}"
        for path in sources(package)
        if part_of(path, package) not in allowed
        for found in imports_of(path)
        if found.module.partition(".")[0] == name
    ]


def impure_models(package: Path) -> list[str]:
    """Find imports of models that the drawing of their folders does not have."""
    import sys

    root = package / "models"
    wrong = []
    for path in sources(root):
        folder = path.relative_to(root).parts[0]
        above = MODELS_FOLDERS[MODELS_FOLDERS.index(folder) + 1 :] if folder in MODELS_FOLDERS else ()
        libraries = sys.stdlib_module_names | MODELS_MAY_USE | FOLDERS_MAY_USE.get(folder, set())
        for found in imports_of(path):
            top, *rest = found.module.split(".")
            if top != "raysp":
                fine = top in libraries
            elif rest[:1] != ["models"]:
                fine = "".join(rest[:1]) in MODELS_MAY_USE_OF_RAYSP
            else:
                fine = folder not in MODELS_FOLDERS or (rest[1] in MODELS_FOLDERS and rest[1] not in above)
                fine = fine and (SISTERS not in rest[1:2] or folder == SISTERS)
            if not fine:
                wrong.append(f"{path.relative_to(root)}:{found.line}: {found.module}")
    return wrong


def full_folders(folder: Path) -> list[str]:
    """Find folders with more files than can be taken in at a look."""
    counts = Counter(path.parent for path in folder.rglob("*") if path.is_file() and path.suffix != ".pyc")
    return [
        f"{place.relative_to(folder)}: {number} files"
        for place, number in counts.items()
        if number > (MOST_PROMISES if place.name == "by_promise" else MOST_FILES)
    ]


def long_files(folder: Path) -> list[str]:
    counts = {path: path.read_text().count("\n") for path in sources(folder)}
    return [f"{path.relative_to(folder)}: {number} lines" for path, number in counts.items() if number > MOST_LINES]


def calls_in(path: Path, words: str) -> list[ast.Call]:
    """Return the calls in a file; none if the file has no match of a pattern, which takes less time to tell."""
    text = path.read_text()
    nodes = ast.walk(tree_of(text)) if re.search(words, text) else ()
    return [node for node in nodes if isinstance(node, ast.Call)]


def prints(package: Path) -> list[str]:
    return [
        f"{path.relative_to(package)}:{call.lineno}"
        for path in sources(package)
        if part_of(path, package) != "cli"
        for call in calls_in(path, r"\bprint\b|\bstd(out|err)\b")
        if dotted(call.func) in ("print", "sys.stdout.write", "sys.stderr.write")
    ]


def unbounded_readers(package: Path) -> list[str]:
    """Find calls that decompress or parse data from outside without the bounds of `raysp.bounds`."""
    return [
        f"{path.relative_to(package)}:{call.lineno}: {dotted(call.func)}"
        for path in sources(package)
        if str(path.relative_to(package)) not in {"bounds.py", *READ_OWN_DATA, *OPEN_ARCHIVES}
        for call in calls_in(path, "|".join({name.partition(".")[0] for name in UNBOUNDED}))
        if dotted(call.func) in UNBOUNDED
    ]


def test_data_from_outside_is_read_within_the_bounds_alone():
    assert unbounded_readers(PACKAGE) == []
    libraries = {"gzip", "bz2", "lzma"}
    assert [place for name in libraries for place in foreign_imports(PACKAGE, name, {"bounds"})] == []


def test_every_import_follows_the_arrows():
    assert wrong_arrows(PACKAGE) == []


LIBRARIES = {
    "torchaudio": (set(), ()),
    "librosa": (set(), ()),
    "transformers": (set(), ("backends/hugging_face/", "backends/hf_installed.py")),
    "jax": (set(), ("models/flax/",)),
    "flax": (set(), ("models/flax/",)),
    "datasets": (set(), ("corpus/hub_data.py",)),
    "huggingface_hub": (
        {"checkpoints"},
        ("corpus/hub_data.py", "storage/hub_answers.py", "storage/hub_uploads.py"),
    ),
    "torch": ({"backends", "crossing", "devices", "models", "ops", "text", "cluster", *RUNS}, ()),
    "ray": ({ENGINE, "training.on_ray", "cluster", "cluster.submitting"}, ()),
}
"""Parts, and files or folders by the beginnings of their paths, that may import a library."""
ON_RAY = {"ray_actor.py", "ray_commits.py", "ray_metrics.py", "ray_pool.py", "datasets"}
"""Files of the engine that import Ray."""


@pytest.mark.parametrize("name", LIBRARIES)
def test_a_library_is_imported_where_it_is_used_alone(name):
    parts, places = LIBRARIES[name]
    assert [one for one in foreign_imports(PACKAGE, name, parts) if not one.startswith(places or ("-",))] == []


def test_only_some_files_of_the_engine_import_ray_and_only_datasets_its_data():
    engine = PACKAGE / "labelling" / "engine"
    imports = {(path, one.module) for path in sources(PACKAGE) for one in imports_of(path)}
    on_ray = {path for path, module in imports if module.partition(".")[0] == "ray"}
    assert {path.relative_to(engine).parts[0] for path in on_ray if path.is_relative_to(engine)} == ON_RAY
    assert {path.parent for path, module in imports if module.startswith("ray.data")} == {engine / "datasets"}


def test_models_follow_the_drawing_of_their_folders():
    assert impure_models(PACKAGE) == []
    folders = {path.parent.name for path in (PACKAGE / "models").glob("*/__init__.py")}
    assert folders == {*MODELS_FOLDERS, SISTERS}


def kinds_told_apart(package: Path) -> list[str]:
    """Find places outside the rooms of trainings that ask whether work is a pipeline or a recipe."""
    works = r"\b(Pipeline|Finetune)\b"
    return [
        f"{path.relative_to(package)}:{call.lineno}"
        for path in sources(package)
        if not part_of(path, package).startswith("training")
        for call in calls_in(path, works)
        if dotted(call.func) in ("isinstance", "issubclass")
        if re.search(works, ast.unparse(call.args[1]))
    ]


def spellings_of_the_folder(package: Path) -> list[str]:
    """Find strings besides docstrings that begin with the folder of a sink that is not for readers of its labels."""
    found = []
    for path in sources(package):
        if ".raysp" not in (text := path.read_text()):
            continue
        tree = tree_of(text)
        documents = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        texts = (node for node in ast.walk(tree) if isinstance(node, ast.Constant) and id(node) not in documents)
        found += [str(path.relative_to(package)) for node in texts if str(node.value).startswith(".raysp")]
    return found


def test_each_thing_is_done_at_its_place_alone():
    assert kinds_told_apart(PACKAGE) == []
    assert spellings_of_the_folder(PACKAGE) == ["storage/store.py"]
    assert prints(PACKAGE) == []
    know_paths = {
        part_of(path, PACKAGE)
        for path in sources(PACKAGE)
        if any(one.module.startswith("raysp.sink.layout") for one in imports_of(path))
    }
    assert know_paths <= {"sink", "work", "verbs", "cli", "cluster", "cluster.submitting", *RUNS}


def test_importing_the_package_imports_of_its_own_modules_only_the_one_that_finds_the_others():
    def eager(file: str) -> list[str]:
        found = imports_of(PACKAGE / file)
        return [one.module for one in found if not one.lazy and not one.typing and "raysp" in one.module]

    assert eager("__init__.py") == ["raysp.public_names.lazily"]
    assert eager("public_names.py") == []


def circle(package: Path) -> list[str]:
    """Find modules that import each other, in functions and for type checking too."""
    names = {path: ".".join(path.relative_to(package.parent).with_suffix("").parts) for path in sources(package)}
    modules = {name.removesuffix(".__init__"): path for path, name in names.items()}
    graph = {name: {found.module for found in imports_of(path)} for name, path in modules.items()}
    try:
        TopologicalSorter({name: _modules(found, modules) - {name} for name, found in graph.items()}).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def _modules(imported: Iterable[str], modules: Collection[str]) -> set[str]:
    """Return the modules that imports run: `a.b.c` is a name in the module `a.b` where it is no module."""
    paths = ((".".join(name.split(".")[:end]) for end in range(name.count(".") + 1, 0, -1)) for name in imported)
    return {next((path for path in candidates if path in modules), "") for candidates in paths} - {""}


@pytest.mark.parametrize("folder", [PACKAGE, PACKAGE.parent / "tests"], ids=["raysp", "tests"])
def test_no_folder_has_more_than_25_files_and_no_file_more_than_600_lines(folder):
    assert full_folders(folder) == []
    assert long_files(folder) == []


def test_no_modules_import_each_other():
    assert circle(PACKAGE) == []


@pytest.mark.parametrize(
    ("file", "code", "check"),
    [
        ("storage/store.py", "import raysp.labelling.planning", wrong_arrows),
        ("ops/x.py", "def f():\n    from raysp.sink.stage import stage", wrong_arrows),
        ("ops/a.py", "import importlib\nimportlib.import_module(f'raysp.labelling.engine.{x}')", wrong_arrows),
        ("helpers/a.py", "", wrong_arrows),
        ("sink/a.py", "def f():\n    import ray.data", lambda package: foreign_imports(package, "ray", {"cluster"})),
        ("models/base/a.py", "from raysp.models.encoder.heads import X", impure_models),
        ("corpus/a.py", "import json\njson.loads(b'1')", unbounded_readers),
        ("ops/a.py", "print('x')", prints),
        ("verbs/a.py", "isinstance(work, Pipeline | Plan)", kinds_told_apart),
    ],
)
def test_a_planted_fault_is_found_and_what_is_allowed_is_not(tmp_path, file, code, check):
    path = tmp_path / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(code)
    assert [line for line in check(tmp_path) if file.partition("/")[2] in line]
    path.write_text("import math\n" if file.partition("/")[0] in BELOW else "")
    assert file.startswith("helpers") or check(tmp_path) == []
