"""Mutants of raysp: small changes of its source, drawn by a seed and independent of the tests."""

import ast
import itertools
import random
from collections import defaultdict
from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

COMPARISONS = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
ARITHMETIC = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.FloorDiv,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.FloorDiv,
    ast.Pow: ast.Mult,
    ast.LShift: ast.RShift,
    ast.RShift: ast.LShift,
}
LOGGERS = {"log", "logger", "logging", "_log", "_logger", "warnings"}
NOT_MUTATED = (ast.JoinedStr, ast.Assert, ast.Import, ast.ImportFrom, ast.Global, ast.Nonlocal)
"""Positions inside an f-string are unknown to `ast` before Python 3.12, and asserts narrow types."""


@dataclass(frozen=True)
class Mutant:
    """A change of one place of one file."""

    file: str
    """Path relative to the checkout."""
    line: int
    """First line of the place, from 1."""
    column: int
    """First byte of the place in its line, from 0, as in `ast`."""
    end_line: int
    end_column: int
    kind: str
    before: str
    after: str

    def apply(self, text: str) -> str:
        """Return the text of the file with the change."""
        lines = [line.encode() for line in text.splitlines(keepends=True)]
        head = b"".join(lines[: self.line - 1]) + lines[self.line - 1][: self.column]
        tail = lines[self.end_line - 1][self.end_column :] + b"".join(lines[self.end_line :])
        return (head + self.after.encode() + tail).decode()


def draw(checkout: Path, seed: int, number: int) -> list[Mutant]:
    """Draw mutants of `raysp` in a checkout: each line that has any is equally likely, and drawn at most once."""
    by_line: dict[tuple[str, int], list[Mutant]] = defaultdict(list)
    for path in sorted((checkout / "raysp").rglob("*.py")):
        for mutant in mutants_of(path.read_text(), path.relative_to(checkout).as_posix()):
            by_line[mutant.file, mutant.line].append(mutant)
    chance = random.Random(seed)
    lines = sorted(by_line)
    chance.shuffle(lines)
    drawn = (_drawn(by_line[line], chance, (checkout / line[0]).read_text()) for line in lines)
    return [*itertools.islice((mutant for mutant in drawn if mutant is not None), number)]


def _drawn(mutants: Sequence[Mutant], chance: random.Random, text: str) -> Mutant | None:
    turns = chance.sample(mutants, len(mutants))
    return next((mutant for mutant in turns if is_valid(mutant.apply(text))), None)


def mutants_of(text: str, file: str) -> Iterator[Mutant]:
    """Yield all mutants of a file; a few are no valid Python (see `is_valid`)."""
    lines = [line.encode() for line in text.splitlines(keepends=True)]
    for node, kind, after in _changes(ast.parse(text)):
        if node.end_lineno is not None and node.end_col_offset is not None:
            place = (node.lineno, node.col_offset, node.end_lineno, node.end_col_offset)
            yield Mutant(file, *place, kind, _segment(lines, *place), after)


def _segment(lines: Sequence[bytes], line: int, column: int, end_line: int, end_column: int) -> str:
    spanned = [*lines[line - 1 : end_line]]
    spanned[-1] = spanned[-1][:end_column]
    spanned[0] = spanned[0][column:]
    return b"".join(spanned).decode()


def is_valid(text: str) -> bool:
    """Return whether a text is Python."""
    try:
        compile(text, "mutant", "exec", dont_inherit=True)
    except (SyntaxError, ValueError):
        return False
    return True


def _changes(node: ast.AST) -> Iterator[tuple[ast.expr | ast.stmt, str, str]]:
    """Yield node, kind and new text of the changes of a tree."""
    for child in _children(node):
        if isinstance(child, ast.expr | ast.stmt) and not _is_left_out(child):
            yield from _of_statement(child) if isinstance(child, ast.stmt) else _of_expression(child)
            yield from _changes(child)
        elif not isinstance(child, ast.expr | ast.stmt):
            yield from _changes(child)


def _children(node: ast.AST) -> Iterator[ast.AST]:
    """Yield the children of a node without annotations, decorators, types of `isinstance` and type-checking blocks."""
    for name, value in ast.iter_fields(node):
        if name in ("annotation", "returns", "decorator_list", "bases", "op", "ops", "ctx"):
            continue
        if isinstance(node, ast.If) and name in ("test", "body") and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        children = value if isinstance(value, list) else [value]
        if isinstance(node, ast.Call) and name == "args" and ast.unparse(node.func) in ("isinstance", "issubclass"):
            children = children[:1]
        yield from (child for child in children if isinstance(child, ast.AST))


def _is_left_out(node: ast.expr | ast.stmt) -> bool:
    if isinstance(node, NOT_MUTATED):
        return True
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        return any(ast.unparse(one).endswith("overload") for one in node.decorator_list)
    if isinstance(node, ast.Assign | ast.AnnAssign):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        return any(isinstance(one, ast.Name) and one.id in ("__all__", "__slots__") for one in targets)
    if isinstance(node, ast.Expr):
        return isinstance(node.value, ast.Constant) or _is_log(node.value)
    return False


def _is_log(node: ast.expr) -> bool:
    called = node.func if isinstance(node, ast.Call) else None
    return isinstance(called, ast.Attribute) and ast.unparse(called.value).rpartition(".")[2] in LOGGERS


def _of_statement(node: ast.stmt) -> Iterator[tuple[ast.expr | ast.stmt, str, str]]:
    match node:
        case ast.If() | ast.While() if "TYPE_CHECKING" not in ast.unparse(node.test):
            yield node.test, "negated condition", f"(not ({ast.unparse(node.test)}))"
        case ast.Return(value=ast.expr() as value) if ast.unparse(value) != "None":
            yield node, "returned nothing", "return None"
        case ast.Expr(value=ast.Call() | ast.Await()) | ast.AugAssign() | ast.Raise() | ast.Delete():
            yield node, "removed statement", "pass"
        case ast.Continue() | ast.Break():
            yield node, "removed statement", "pass"
        case ast.Assign(targets=[ast.Attribute() | ast.Subscript()]):
            yield node, "removed statement", "pass"


def _of_expression(node: ast.expr) -> Iterator[tuple[ast.expr | ast.stmt, str, str]]:
    match node:
        case ast.Compare():
            for place, op in enumerate(node.ops):
                changed = deepcopy(node)
                changed.ops[place] = COMPARISONS[type(op)]()
                yield node, "comparison", f"({ast.unparse(changed)})"
        case ast.BinOp() if type(node.op) in ARITHMETIC and not _is_text(node):
            yield node, "arithmetic", _unparsed(node, op=ARITHMETIC[type(node.op)]())
        case ast.BoolOp():
            yield node, "and/or", _unparsed(node, op=ast.And() if isinstance(node.op, ast.Or) else ast.Or())
        case ast.UnaryOp(op=ast.Not()):
            yield node, "removed not", f"({ast.unparse(node.operand)})"
        case ast.IfExp():
            yield node.test, "negated condition", f"(not ({ast.unparse(node.test)}))"
        case ast.Constant(value=bool(value)):
            yield node, "constant", str(not value)
        case ast.Constant(value=int() | float() as value):
            for step in (1, -1):
                yield node, "constant", f"({value + step!r})"
        case ast.Call(args=[first, second, *rest]) if not any(isinstance(one, ast.Starred) for one in node.args):
            if ast.unparse(first) != ast.unparse(second) and ast.unparse(node.func) not in ("isinstance", "issubclass"):
                yield node, "swapped arguments", _unparsed(node, args=[second, first, *rest])


def _is_text(node: ast.BinOp) -> bool:
    return any(
        isinstance(one, ast.JoinedStr) or (isinstance(one, ast.Constant) and isinstance(one.value, str | bytes))
        for one in (node.left, node.right)
    )


def _unparsed(node: ast.expr, **fields: ast.AST | Sequence[ast.AST]) -> str:
    changed = deepcopy(node)
    for name, value in fields.items():
        setattr(changed, name, value)
    return f"({ast.unparse(changed)})"
