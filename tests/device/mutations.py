"""Mutations of crossings: each one taken away, and a read added to each function that returns a tensor of the device.

`python -m tests.device.mutations` runs each mutant on the stand-in device, prints those that nothing notices, and ends
with 1 if they are not those of `LEFT`; with `2/4` it runs the second of four parts. A mutant is noticed if a run
that executes its function raises, warns, gives another result, or costs other waits and copies; `test_outputs.py`,
`test_figures.py`, `test_crossing_cases.py`, `test_training.py`, `test_finetuning.py` and `test_transformers.py` hold
results and costs of these runs. All is done in one process: only the code of a function is exchanged.
"""

import ast
import copy
import functools
import importlib
import inspect
import logging
import sys
import tempfile
import time
import types
import warnings
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from tests.device import added_reads, stand_in

stand_in.install()

from tests.corpora import CHECKPOINT  # noqa: E402
from tests.device.mutated_runs import runs  # noqa: E402

PACKAGE = Path(importlib.import_module("raysp").__file__).parent
CPU = "__import__('torch').device('cpu')"
TAKEN_AWAY = {
    "fetch": "[*({args},)]",  # the tensors stay on the device
    "send": "[__import__('torch').from_numpy(one) for one in ({args},)[1:]]",  # the arrays stay on the host
    "sent": "({args},)[0]",
    "constant": f"__import__('raysp.crossing').crossing.constant(({{args}},)[0], {CPU})",
    "Sending": f"__import__('raysp.crossing').crossing.Sending({CPU}, *({{args}},)[1:])",
    "number": "(lambda value: (value.item(), value.item())[0])({args})",  # a second read
    "on_host": "({args},)[0]",
}
"""Crossings by name, and what stands there without them. Of methods `.to(device)` and `.cpu()` are taken away."""
ADDED = ("models", "ops", "text", "backends", "crossing.py")
"""Parts of the package whose functions get reads added."""
LEFT: dict[tuple[str, str, str], str] = {
    ("ops/labelling.py", "Labelling._steps", "read by cpu"): "tensors are those that its output yields through it: "
    "what it returns itself are columns of the host",
    ("ops/transcripts/transducer_texts.py", "Transducing.steps", "read by item"): "the same: tensors are those that "
    "`_found` yields through it",
    ("ops/speakers/frame_turning.py", "FrameTurning.steps", "read by tolist"): "the same: tensors are those that "
    "`_scores` yields through it",
}
"""Mutants that nothing can notice: file, function and source text, with the reason."""


@dataclass(frozen=True)
class Mutant:
    """A function with another code."""

    file: str
    name: str
    what: str
    function: types.FunctionType
    code: types.CodeType

    @property
    def key(self) -> tuple[str, str, str]:
        return self.file, self.name, self.what


@dataclass
class Executed:
    """What a run executes, and the time that it takes."""

    run: "functools.partial[Callable[[], Any]]"
    name: str
    codes: set[types.CodeType] = field(default_factory=set)
    returning: set[types.CodeType] = field(default_factory=set)
    """Code of functions that return a tensor of the device."""
    seconds: float = 0.0

    @functools.cached_property
    def expected(self) -> Any:
        return self.observed()

    def observed(self) -> Any:
        """Return the result, what it costs, and of what it warns; constants are made anew."""
        forget_constants()
        run = self.run()
        with stand_in.counted() as counts, warnings_kept() as warned:
            found = run()
        kinds = (counts.waits, counts.copies_in, counts.blocking, counts.copies_out, counts.pageable_out)
        return _rounded(found), [sum(one.values()) for one in kinds], warned

    def profile(self) -> None:
        """Note what is executed."""
        import threading

        def note(frame: types.FrameType, event: str, value: Any) -> None:
            if event == "call":
                self.codes.add(frame.f_code)
            elif event == "return" and frame.f_code not in self.returning and added_reads.first(value) is not None:
                self.returning.add(frame.f_code)

        started = time.process_time()
        forget_constants()
        threading.setprofile(note)
        sys.setprofile(note)
        try:
            self.run()()
        finally:
            sys.setprofile(None)
            threading.setprofile(None)  # type: ignore[arg-type]
        self.seconds = time.process_time() - started


@contextmanager
def warnings_kept() -> Iterator[list[str]]:
    """Yield the names of the modules of raysp that warn within the block, once for each warning."""
    handler, names = logging.Handler(logging.WARNING), []
    handler.emit = lambda record: names.append(record.name)  # type: ignore[method-assign]
    logging.getLogger("raysp").addHandler(handler)
    try:
        yield names
    finally:
        logging.getLogger("raysp").removeHandler(handler)


def forget_constants() -> None:
    """Forget constants that functions keep, so that a run costs the same each time."""
    for name, module in [*sys.modules.items()]:
        if name.startswith(("raysp.models", "raysp.ops", "raysp.text", "raysp.backends", "raysp.crossing")):
            for value in [*vars(module).values()]:
                if clear := getattr(value, "cache_clear", None):
                    clear()


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.3g}")
    if isinstance(value, list | tuple):
        return [_rounded(one) for one in value]
    return {key: _rounded(one) for key, one in value.items()} if isinstance(value, dict) else value


def functions() -> Iterator[tuple[str, ast.Module, str, ast.FunctionDef, types.FunctionType | None]]:
    """Yield file, its tree, the class, and each function of the package, with itself; None if it is not found."""
    for path in sorted(PACKAGE.rglob("*.py")):
        file = str(path.relative_to(PACKAGE))
        module = sys.modules.get(f"raysp.{file.removesuffix('.py').replace('/', '.')}".removesuffix(".__init__"))
        if module is None:
            continue
        tree = ast.parse(path.read_text())
        for owner, node in _defined(tree):
            found = _found(module, owner, node.name)
            lines = {node.lineno, *(one.lineno for one in node.decorator_list)}
            is_it = found is not None and found.__code__.co_firstlineno in lines  # not an overload for types
            yield file, tree, owner, node, found if is_it else None


def _defined(tree: ast.Module) -> Iterator[tuple[str, ast.FunctionDef]]:
    for node in tree.body:
        if isinstance(node, ast.FunctionDef):
            yield "", node
        elif isinstance(node, ast.ClassDef):
            yield from ((node.name, one) for one in node.body if isinstance(one, ast.FunctionDef))


def _found(module: types.ModuleType, owner: str, name: str) -> types.FunctionType | None:
    found = inspect.getattr_static(getattr(module, owner) if owner else module, name, None)
    for part in ("__func__", "fget", "func"):
        found = getattr(found, part, found)
    found = inspect.unwrap(found) if callable(found) else found
    return found if isinstance(found, types.FunctionType) else None


def crossings_of(tree: ast.Module) -> set[str]:
    """Return the names of crossings that a module imports or defines."""
    imported = {
        alias.name for node in tree.body if isinstance(node, ast.ImportFrom) and node.module == "raysp.crossing"
        for alias in node.names
    }  # fmt: skip
    defined = {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    return {*TAKEN_AWAY} & (imported | (defined if {*TAKEN_AWAY} <= defined else set()))


def taken_away(node: ast.AST, names: set[str]) -> ast.expr | None:
    """Return what stands in place of a crossing; None if the node is none."""
    if not isinstance(node, ast.Call):
        return None
    if isinstance(node.func, ast.Name) and node.func.id in names:
        args = ", ".join(ast.unparse(one) for one in node.args)
        return ast.parse(TAKEN_AWAY[node.func.id].format(args=args), mode="eval").body
    if not isinstance(node.func, ast.Attribute):
        return None
    if node.func.attr == "cpu" and not node.args:
        return node.func.value
    places = [one for one in (*node.args, *node.keywords) if _names_a_place(one)]
    if node.func.attr != "to" or not places:
        return None
    args = [one for one in node.args if one not in places]
    keywords = [one for one in node.keywords if one not in places]
    return ast.Call(node.func, args, keywords) if args or keywords else node.func.value


def _names_a_place(node: ast.expr | ast.keyword) -> bool:
    source = ast.unparse(node.value if isinstance(node, ast.keyword) else node)
    is_type = isinstance(node, ast.keyword) and node.arg in ("dtype", "copy", "non_blocking")
    return not is_type and (
        source.endswith(("device", "one_device(device, device_map)")) or source in ("'cpu'", "like")
    )


def mutants(executed: set[types.CodeType], returning: set[types.CodeType]) -> Iterator[Mutant | tuple[str, str, str]]:
    """Yield a mutant for each crossing, and one with a read for each function of `returning`.

    Those that cannot be made, and those of functions that no run executes, are yielded as their keys.
    """
    kinds = [*added_reads.KINDS]
    for file, tree, owner, node, function in functions():
        name = f"{owner}.{node.name}" if owner else node.name
        names = crossings_of(tree)
        for call in (one for one in ast.walk(node) if taken_away(one, names) is not None):
            what = ast.unparse(call)
            is_run = function is not None and function.__code__ in executed
            yield (is_run and _mutant(file, tree, owner, node, function, call, what)) or (file, name, what)
        if function is not None and function.__code__ in returning and file.startswith(ADDED):
            kind = kinds[zlib.crc32(f"{file} {name}".encode()) % len(kinds)]
            yield _mutant(file, tree, owner, node, function, kind, f"read by {kind}") or (file, name, f"read by {kind}")


def _mutant(
    file: str, tree: ast.Module, owner: str, node: ast.FunctionDef, function: Any, change: ast.AST | str, what: str
) -> Mutant | None:
    """Return a function without one call, or with a read of what it returns; None if its code cannot be exchanged."""
    changed = copy.deepcopy(tree)
    [inside] = [one for where, one in _defined(changed) if (where, one.lineno) == (owner, node.lineno)]
    (_Returning(change) if isinstance(change, str) else _Without(change, crossings_of(tree))).visit(inside)
    ast.fix_missing_locations(changed)
    code = compile(changed, str(PACKAGE / file), "exec", dont_inherit=True)
    for part in [owner, node.name] if owner else [node.name]:
        inner = [one for one in code.co_consts if isinstance(one, types.CodeType) and one.co_name == part]
        code = next(
            (one for one in inner if part == owner or one.co_firstlineno == function.__code__.co_firstlineno), code
        )
    if code.co_name != node.name or code.co_freevars != function.__code__.co_freevars:
        return None
    return Mutant(file, f"{owner}.{node.name}" if owner else node.name, what, function, code)


class _Without(ast.NodeTransformer):
    """Takes away the call at the place of another one."""

    def __init__(self, call: ast.AST, names: set[str]) -> None:
        self.names = names
        self.place = (call.lineno, call.col_offset, call.end_lineno, call.end_col_offset)  # type: ignore[attr-defined]

    def visit_Call(self, node: ast.Call) -> ast.AST:
        is_it = (node.lineno, node.col_offset, node.end_lineno, node.end_col_offset) == self.place
        self.generic_visit(node)
        without = taken_away(node, self.names) if is_it else None
        return node if without is None else ast.copy_location(without, node)


class _Returning(ast.NodeTransformer):
    """Adds a read to what a function returns or yields, not to what functions within it return."""

    def __init__(self, kind: str) -> None:
        self.read = f"__import__('tests.device.added_reads', fromlist=['read']).read({kind!r}, 0)"
        self.depth = 0

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        self.depth += 1
        if self.depth == 1:
            self.generic_visit(node)
        self.depth -= 1
        return node

    def visit_Lambda(self, node: ast.Lambda) -> ast.AST:
        return node

    def visit_Return(self, node: ast.Return) -> ast.AST:
        self.generic_visit(node)
        return self._read(node)

    def visit_Yield(self, node: ast.Yield) -> ast.AST:
        self.generic_visit(node)
        return self._read(node)

    def _read(self, node: ast.Return | ast.Yield) -> ast.AST:
        if node.value is not None:
            call = ast.parse(self.read, mode="eval").body
            assert isinstance(call, ast.Call)
            call.args[1] = node.value
            node.value = call
        return node


def is_noticed(mutant: Mutant, users: list[Executed]) -> bool:
    """Return whether one of the runs that execute a function notices its mutant."""
    original = mutant.function.__code__
    for run in users:
        expected = run.expected
        mutant.function.__code__ = mutant.code
        try:
            if run.observed() != expected:
                return True
        except Exception:
            return True
        finally:
            mutant.function.__code__ = original
    return False


def survivors(part: int = 1, parts: int = 1) -> tuple[int, list[tuple[str, str, str]]]:
    """Return the number of mutants of a part, and those that nothing notices, by file, function and source."""
    with ExitStack() as open_:
        folder = Path(open_.enter_context(tempfile.TemporaryDirectory()))
        open_.enter_context(stand_in.lstm_of_products())
        found = [Executed(run, name) for name, run in runs(folder, CHECKPOINT)]
        for run in found:
            run.profile()
        found.sort(key=lambda one: one.seconds)
        executed, returning = (
            functools.reduce(set.union, (getattr(one, name) for one in found)) for name in ("codes", "returning")
        )
        made = [*mutants(executed, returning)][part - 1 :: parts]
        left = []
        for place, one in enumerate(made):
            if not place % 20:
                sys.stderr.write(f"{place} of {len(made)}, {time.process_time():.0f} s, {left[-3:]}\n")
            if not isinstance(one, Mutant):
                left.append(one)
                continue
            is_read = one.what.startswith("read by ")
            users = [run for run in found if one.function.__code__ in (run.returning if is_read else run.codes)]
            if not is_noticed(one, users):
                left.append(one.key)
    return len(made), left


if __name__ == "__main__":
    logging.getLogger().addHandler(logging.NullHandler())  # prints no warnings
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    part, parts = map(int, (sys.argv[1:] or ["1/1"])[0].split("/"))
    total, unnoticed = survivors(part, parts)
    sys.stdout.write(f"{total} mutants\n" + "".join(f"{' | '.join(one)}\n" for one in unnoticed))
    sys.exit(not {*unnoticed} <= {*LEFT} or (parts == 1 and {*LEFT} > {*unnoticed}))
