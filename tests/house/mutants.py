"""Share of mutants of raysp that live through the tests: `python -m tests.house.mutants draw|cover|run|report`.

A mutant is a small change of one line, such as `<` to `<=`. It lives if every test that runs its line passes.

    python -m tests.house.mutants draw 400 20261128           # number and seed
    python -m tests.house.mutants cover tests/text tests/audio
    python -m tests.house.mutants run 1200                    # seconds; call it again until all have a result
    python -m tests.house.mutants report
"""

import ast
import itertools
import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from copy import copy
from functools import partial
from pathlib import Path

import coverage
import pytest

CHECKOUT = Path(__file__).parents[2]
BUILD = CHECKOUT / "build" / "mutants"
TREE, DRAWN, RESULTS, SECONDS = (BUILD / name for name in ("tree", "drawn.jsonl", "results.jsonl", "seconds.json"))
TEST_SECONDS, HANGING_SECONDS = 120.0, 300.0
"""Seconds of the tests of a mutant, the quickest of those that run its line, and beyond four times what these took."""
SWAPPED = {
    **{ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq},
    **{ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In, ast.And: ast.Or, ast.Or: ast.And},
    **{ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.FloorDiv, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult},
    **{ast.Mod: ast.FloorDiv, ast.Pow: ast.Mult, ast.LShift: ast.RShift, ast.RShift: ast.LShift},
}
"""Operators, and what stands in their place."""
PASSED_OVER = {"annotation", "returns", "decorator_list", "bases", "op", "ops", "ctx"}
LEFT_OUT = (ast.Assert, ast.Import, ast.ImportFrom, ast.JoinedStr)
"""What no test could notice, and texts for people."""
Change = tuple[int, str, Callable[[], None]]


def changes(node: ast.AST) -> Iterator[Change]:
    """Yield line, kind and function of each change of a tree; a function changes this tree."""
    for name, value in ast.iter_fields(node):
        many = value if isinstance(value, list) else [value]
        for place, child in enumerate(many):
            if name in PASSED_OVER or not isinstance(child, ast.AST) or _is_left_out(child):
                continue
            for kind, new in _replacements(child):
                put = partial(many.__setitem__, place) if many is value else partial(setattr, node, name)
                yield child.lineno, kind, partial(put, new)
            yield from changes(child)


def _is_left_out(node: ast.AST) -> bool:
    if isinstance(node, ast.Expr):
        of = node.value.func if isinstance(node.value, ast.Call) else node.value
        return isinstance(of, ast.Constant) or "log" in ast.unparse(of).rpartition(".")[0]
    text = ast.unparse(node.test) if isinstance(node, ast.If) else ""
    return isinstance(node, LEFT_OUT) or text.endswith("TYPE_CHECKING")


def _replacements(node: ast.AST) -> Iterator[tuple[str, ast.AST]]:
    match node:
        case ast.Compare(ops=ops):
            for place, op in enumerate(ops):
                yield "comparison", _with(node, ops=[*ops[:place], SWAPPED[type(op)](), *ops[place + 1 :]])
        case ast.BinOp(op=op) if type(op) in SWAPPED:
            yield "arithmetic", _with(node, op=SWAPPED[type(op)]())
        case ast.BoolOp(op=op):
            yield "and/or", _with(node, op=SWAPPED[type(op)]())
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            yield "removed not", operand
        case ast.If(test=test) | ast.While(test=test) | ast.IfExp(test=test):
            yield "negated condition", _with(node, test=ast.UnaryOp(ast.Not(), test))
        case ast.Constant(value=bool(value)):
            yield "constant", _with(node, value=not value)
        case ast.Constant(value=int() | float() as value):
            yield from (("constant", _with(node, value=value + step)) for step in (1, -1))
        case ast.Call(func=function, args=[first, second, *rest]) if ast.unparse(function) != "isinstance":
            yield "swapped arguments", _with(node, args=[second, first, *rest])
        case ast.Return(value=ast.expr()):
            yield "returned nothing", _with(node, value=None)
        case ast.Expr() | ast.AugAssign() | ast.Raise() | ast.Delete() | ast.Continue() | ast.Break():
            yield "removed statement", ast.copy_location(ast.Pass(), node)
        case ast.Assign(targets=[ast.Attribute() | ast.Subscript()]):
            yield "removed statement", ast.copy_location(ast.Pass(), node)


def _with(node: ast.AST, **fields: object) -> ast.AST:
    changed = copy(node)
    for name, value in fields.items():
        setattr(changed, name, value)
    return changed


def mutated(text: str, number: int) -> str:
    """Return a source with the change of a number, without comments."""
    tree = ast.parse(text)
    [*changes(tree)][number][2]()
    return ast.unparse(ast.fix_missing_locations(tree)) + "\n"


def draw(checkout: Path, number: int, seed: int) -> list[dict[str, object]]:
    """Draw mutants: each line of raysp that has any is equally likely, and drawn at most once."""
    lines = defaultdict(list)
    for path in sorted((checkout / "raysp").rglob("*.py")):
        name = path.relative_to(checkout).as_posix()
        for place, (line, kind, _) in enumerate(changes(ast.parse(path.read_text()))):
            lines[name, line].append({"file": name, "line": line, "kind": kind, "number": place})
    chance = random.Random(seed)
    return [chance.choice(lines[line]) for line in chance.sample(sorted(lines), min(number, len(lines)))]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Measure a test of `cover`, fixtures included, as a context of the coverage."""
    coverage.Coverage.current().switch_context(item.nodeid)
    began = time.perf_counter()
    try:
        return (yield)
    finally:
        _seconds[item.nodeid] = time.perf_counter() - began


_seconds: dict[str, float] = {}


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Leave out tests that fail or are skipped without any mutant, and those named by paths of the checkout."""
    if not report.passed or str(CHECKOUT) in report.nodeid:
        _failed.add(report.nodeid)


_failed: set[str] = set()


def pytest_sessionfinish() -> None:
    """Write the seconds of the tests that passed."""
    SECONDS.write_text(json.dumps({name: value for name, value in _seconds.items() if name not in _failed}))


def cover(*places: str) -> None:
    """Record which tests of some folders or files run which lines, in place of what was recorded before."""
    pytests = ["-m", "pytest", "-q", "-p", __spec__.name, "-m", "not soak and not drivers", *places]
    measure = ["-m", "coverage", "run", "--source=raysp", f"--data-file={BUILD / 'coverage'}"]
    subprocess.run([sys.executable, *measure, *pytests], cwd=CHECKOUT, check=False)


def run(seconds: float) -> None:
    """Run the tests of the mutants that have no result, until the time is over, in a copy of the checkout."""
    shutil.rmtree(TREE, ignore_errors=True)
    shutil.copytree(CHECKOUT, TREE, ignore=shutil.ignore_patterns(".*", "build", "__pycache__"))
    data, took, ends = coverage.CoverageData(str(BUILD / "coverage")), json.loads(SECONDS.read_text()), time.time()
    data.read()
    for mutant in _lines(DRAWN)[len(_lines(RESULTS)) :]:
        if time.time() > ends + seconds:
            return
        contexts = data.contexts_by_lineno(str(CHECKOUT / mutant["file"]))
        found = took.keys() & {*contexts.get(mutant["line"], ())}
        if not found and mutant["line"] in contexts:  # a line that runs at import
            found = took.keys() & {*itertools.chain(*contexts.values())}
        tests = sorted(found, key=took.get)
        result = {**mutant, **_tested(mutant, tests, took)}
        with RESULTS.open("a") as file:
            sys.stdout.write(f"{json.dumps(result)}\n")
            file.write(f"{json.dumps(result)}\n")


def _lines(file: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in file.read_text().splitlines()] if file.is_file() else []


def _tested(mutant: dict[str, object], tests: Sequence[str], took: dict[str, float]) -> dict[str, str]:
    chosen, total = [], 0.0
    for name in tests:
        total += took[name]
        if total < TEST_SECONDS or not chosen:
            chosen.append(name)
    if not chosen:
        return {"outcome": "uncovered"}
    path = TREE / mutant["file"]
    original = path.read_text()
    environment = {**os.environ, "PYTHONPATH": str(TREE), "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"}
    environment["RAYSP_SHARED"] = os.environ.get("RAYSP_SHARED", str(CHECKOUT.parent / "shared"))
    (BUILD / "tests.txt").write_text("\n".join(chosen))
    command = [sys.executable, "-m", "pytest", "-q", "-x", "--tb=no", "-p", "no:cacheprovider"]
    path.write_text(mutated(original, mutant["number"]))
    tested = subprocess.Popen(
        [*command, f"@{BUILD / 'tests.txt'}"], cwd=TREE, env=environment, stdout=subprocess.PIPE, start_new_session=True
    )
    try:
        said = tested.communicate(timeout=4 * total + HANGING_SECONDS)[0].decode()
    except subprocess.TimeoutExpired:
        os.killpg(tested.pid, 9)
        return {"outcome": "hung"}
    finally:
        path.write_text(original)
    failed = [line for line in said.splitlines() if line.startswith(("FAILED", "ERROR"))]
    return {"outcome": "killed" if tested.returncode else "lives", "by": (failed or [""])[0][:200]}


def report() -> None:
    """Print the share that lives, and each that does."""
    results = _lines(RESULTS)
    alive = [one for one in results if one["outcome"] in ("lives", "uncovered")]
    share = len(alive) / max(len(results), 1)
    error = (share * (1 - share) / max(len(results), 1)) ** 0.5
    found = "".join(f"{one['file']}:{one['line']}: {one['kind']}, {one['outcome']}\n" for one in alive)
    outcomes = dict(Counter(one["outcome"] for one in results))
    sys.stdout.write(f"{found}{len(results)} mutants: {outcomes}, {share:.1%} live (standard error {error:.1%})\n")


if __name__ == "__main__":
    step, *values = sys.argv[1:]
    BUILD.mkdir(parents=True, exist_ok=True)
    if step == "draw":
        RESULTS.unlink(missing_ok=True)
        DRAWN.write_text("".join(f"{json.dumps(one)}\n" for one in draw(CHECKOUT, *map(int, values))))
    elif step == "cover":
        cover(*values)
    elif step == "run":
        run(float(values[0]))
    else:
        report()
