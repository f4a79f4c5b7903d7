"""Mutations of crossings: each call of TAKEN_AWAY is taken away, and a read is added beside each `number`.

`python -m tests.device.mutations` runs each mutant on the stand-in device and prints those that nothing notices. A
mutant is noticed if it raises, gives another result, or costs other waits and copies. It runs what executes its
function, in the process of the others: only the code of the function is exchanged. Other reads
and copies, such as `.cpu()` and `.to(device)`, are not mutated.
"""

import ast
import copy
import functools
import importlib
import inspect
import sys
import tempfile
import threading
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from raysp import models
from raysp.audio import decode
from raysp.ops import late_steps
from raysp.text import greedy_ctc as ctc
from tests.corpora import CHECKPOINT, DEMO
from tests.device import stand_in
from tests.device.class_cases import CASES as CLASSES
from tests.device.class_cases import make_checkpoint

stand_in.install()

from tests.device.output_cases import ARPA, labelling, with_files  # noqa: E402
from tests.device.output_cases import CASES as OUTPUTS  # noqa: E402
from tests.device.test_training import OBJECTIVES, STILL, steps_of, training_of  # noqa: E402
from tests.ops.test_labelling import block_of  # noqa: E402
from tests.training.conftest import small_model  # noqa: E402

PACKAGE = Path(importlib.import_module("raysp").__file__).parent
TAKEN_AWAY = {
    "fetch": "[*({args},)]",  # the tensors stay on the device
    "send": "[__import__('torch').from_numpy(one) for one in ({args},)[1:]]",  # the arrays stay on the host
    "sent": "({args},)[0]",
    "number": "(lambda value: (value.item(), value.item())[0])({args})",  # a second read
    "on_host": "({args},)[0]",
}
"""Crossings, and what stands there without them."""
HELD_BY_SOURCE = "raysp/crossing.py"
LEFT = {
    "raysp/models/decoder/sampling.py __init__": "a prompt with a mask",
    "raysp/models/decoder/sampling.py _drop_done": "texts of which half end early",
    "raysp/models/tokenizers/phonemes.py decode": "a checkpoint of phonemes",
    "raysp/ops/aligning.py _staged": "texts over windows of a block",
    "raysp/ops/searching.py _staged": "beams over windows of a block",
    "raysp/ops/writing.py _write": "a prompt of several tokens",
    "raysp/text/alignment.py _narrowed": "a text of thousands of tokens",
    "raysp/text/beams/decoder.py _aligned": "beams whose tokens differ from the greedy ones",
}
"""Functions with a mutant that no run here notices, with what would."""


@dataclass(frozen=True)
class Mutant:
    """A function with another code."""

    place: str
    what: str
    function: types.FunctionType
    code: types.CodeType


@dataclass
class Run:
    """Something that executes crossings, with its result."""

    name: str
    make: Callable[[], Callable[[], Any]]

    @functools.cached_property
    def expected(self) -> Any:
        return self.observed()

    def observed(self) -> Any:
        """Return the result, and what it costs."""
        run = self.make()
        with stand_in.counted() as counts:
            found = run()
        costs = [sum(one.values()) for one in (counts.waits, counts.copies_in, counts.blocking, counts.copies_out)]
        return found, costs


def runs(folder: Path) -> Iterator[Run]:
    """Yield what is run: each output, and two steps of each objective."""
    (folder / "lm.arpa").write_text(ARPA)
    waves, texts = _spoken()
    places = {"demo": CHECKPOINT}
    of_classes = {name: (name, outputs) for name, outputs in CLASSES.items() if name == "SEWDForCTC"}
    for name, (checkpoint, outputs) in {**OUTPUTS, **of_classes}.items():
        if checkpoint not in places:
            places[checkpoint] = folder / checkpoint
            make_checkpoint(checkpoint, places[checkpoint])
        given = [with_files(one, {"demo": CHECKPOINT}, str(folder / "lm.arpa")) for one in outputs]
        yield Run(name, functools.partial(_label, places[checkpoint], given, waves, texts))
    for name, place in places.items():
        yield Run(f"tokens: {name}", functools.partial(_tokens, place))
    yield Run("masks", _masks)
    yield Run("tokens of logits", _collapsed)
    make, targets = OBJECTIVES["pre-training"]
    yield Run("evaluation of pre-training", functools.partial(_evaluate, make(folder), targets))
    for name, (make, targets) in OBJECTIVES.items():
        (folder / name).mkdir()
        yield Run(f"training: {name}", functools.partial(_train, make(folder / name), targets))


def _spoken() -> tuple[list[Any], list[str]]:
    """Return recordings with their texts, the last one of several windows."""
    cells = pq.ParquetFile(min((DEMO / "audio").glob("*.parquet"))).read_row_group(0, ["audio", "text"]).to_pylist()
    waves = [decode(cell["audio"]["bytes"], sample_rate=16_000) for cell in cells[:6]]
    texts = [cell["text"] for cell in cells[:6]]
    return [*waves[:3], np.concatenate(waves)], [*texts[:3], " ".join(texts)]


def _masks() -> Any:
    fields = {"mask_time_prob": 0.3, "mask_feature_prob": 0.3, "mask_feature_length": 2, **STILL}
    model = small_model(models.Wav2Vec2Model, models.Wav2Vec2Config, **fields).to(stand_in.NAME).train()
    wave = torch.from_numpy(np.random.default_rng(0).standard_normal((2, 8000)).astype(np.float32))
    masks = torch.zeros(2, 24, dtype=torch.bool)
    masks[:, 3:9] = True

    def run() -> Any:
        np.random.seed(0)
        found = model(wave.to(stand_in.NAME), mask_time_indices=masks).last_hidden_state
        return _rounded(found.detach().cpu().tolist())

    return run


def _collapsed() -> Callable[[], Any]:
    logits = torch.from_numpy(np.random.default_rng(0).standard_normal((2, 20, 6)).astype(np.float32))
    frames, num_frames = ctc.best_frames(logits.to(stand_in.NAME)), torch.tensor([20, 11]).to(stand_in.NAME)
    return lambda: [
        _rounded(np.asarray(one).tolist()) for one in vars(ctc.collapse(frames, num_frames, blank=0)).values()
    ]


def _evaluate(objective: Any, targets: Any) -> Callable[[], Any]:
    there = copy.deepcopy(objective)
    there.model.to(stand_in.NAME)
    batch = steps_of(targets)[0][0]
    return lambda: _rounded(there.evaluate(batch).tolist())


def _tokens(place: Path) -> Callable[[], Any]:
    tokenizer = models.load_checkpoint(place).tokenizer
    ids = torch.tensor([[5, 6, 6, 7], [8, 9, 9, 9]]).to(stand_in.NAME)
    return lambda: [tokenizer.batch_decode(ids), tokenizer.decode(ids[0])]


def _label(place: Path, outputs: list[Any], waves: list[Any], texts: list[str]) -> Callable[[], Any]:
    op = labelling(place, outputs, stand_in.NAME, "float32")
    block = block_of(waves)
    for name in op.reads:
        block = block.append_column(late_steps.CARRIED + name, pa.array(texts))
    return lambda: _rounded(op(block)[0].to_pylist())


def _train(objective: Any, targets: Any) -> Callable[[], Any]:
    there = copy.deepcopy(objective)
    there.model.to(stand_in.NAME).tie_weights()
    training = training_of(there)

    def run() -> Any:
        losses = []
        for step, batches in enumerate(steps_of(targets)):
            losses.append(training.step(0, step, batches, learning_rate=1e-3).loss)
        return _rounded(losses)

    return run


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.3g}")
    if isinstance(value, list):
        return [_rounded(one) for one in value]
    return {key: _rounded(one) for key, one in value.items()} if isinstance(value, dict) else value


def mutants() -> Iterator[Mutant]:
    """Yield a mutant for each crossing taken away, and one with a read added at the end of each such function."""
    for path in sorted(PACKAGE.rglob("*.py")):
        source = path.read_text()
        place = f"raysp/{path.relative_to(PACKAGE)}"
        if "raysp.crossing import" not in source or place == HELD_BY_SOURCE:
            continue
        module = importlib.import_module(place.removesuffix(".py").replace("/", "."))
        tree = ast.parse(source)
        for owner, node in _functions(tree):
            calls = [one for one in ast.walk(node) if _crossing(one)]
            function = _found(module, owner, node.name)
            if not calls or function is None:
                continue
            for call in calls:
                taken = copy.deepcopy(tree)
                _exchange(taken, ast.dump(call), call.lineno, call.col_offset)
                code = _code(taken, path, owner, node.name, function)
                if code is not None:
                    yield Mutant(f"{place} {node.name}", f"{_crossing(call)} of line {call.lineno}", function, code)


def _functions(tree: ast.Module) -> Iterator[tuple[str, ast.FunctionDef]]:
    for node in tree.body:
        if isinstance(node, ast.FunctionDef):
            yield "", node
        elif isinstance(node, ast.ClassDef):
            yield from ((node.name, one) for one in node.body if isinstance(one, ast.FunctionDef))


def _crossing(node: ast.AST) -> str:
    is_call = isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in TAKEN_AWAY
    return node.func.id if is_call else ""


def _exchange(tree: ast.Module, dump: str, line: int, column: int) -> None:
    class Exchange(ast.NodeTransformer):
        def visit_Call(self, node: ast.Call) -> ast.AST:
            self.generic_visit(node)
            if (node.lineno, node.col_offset) == (line, column) and _crossing(node):
                args = ", ".join(ast.unparse(one) for one in node.args)
                without = TAKEN_AWAY[_crossing(node)].format(args=args)
                return ast.copy_location(ast.parse(without, mode="eval").body, node)
            return node

    ast.fix_missing_locations(Exchange().visit(tree))


def _found(module: types.ModuleType, owner: str, name: str) -> types.FunctionType | None:
    holder = getattr(module, owner) if owner else module
    found = inspect.unwrap(
        getattr(inspect.getattr_static(holder, name), "__func__", inspect.getattr_static(holder, name))
    )
    found = getattr(found, "fget", found)
    return found if isinstance(found, types.FunctionType) else None


def _code(tree: ast.Module, path: Path, owner: str, name: str, like: types.FunctionType) -> types.CodeType | None:
    wanted = [owner, name] if owner else [name]
    code = compile(tree, str(path), "exec", dont_inherit=True)
    for part in wanted:
        inner = (one for one in code.co_consts if isinstance(one, types.CodeType) and one.co_name == part)
        code = next(inner, None)  # type: ignore[assignment]
        if code is None:
            return None
    return code if code.co_freevars == like.__code__.co_freevars else None


def executed(run: Run) -> list[types.CodeType]:
    """Return the code of all functions of the package that a run executes."""
    found: dict[types.CodeType, None] = {}

    def note(frame: types.FrameType, event: str, _: Any) -> None:
        if event == "call":
            found[frame.f_code] = None

    threading.setprofile(note)
    sys.setprofile(note)
    try:
        run.make()()
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
    return [*found]


def noticed(mutant: Mutant, users: list[Run]) -> bool:
    """Return whether one of the runs that execute a function notices its mutant."""
    original = mutant.function.__code__
    for run in users:
        expected = run.expected
        _forget(mutant)
        mutant.function.__code__ = mutant.code
        try:
            if run.observed() != expected:
                return True
        except Exception:
            return True
        finally:
            mutant.function.__code__ = original
            _forget(mutant)
    return False


def _forget(mutant: Mutant) -> None:
    """Forget constants that a function has made."""
    held = getattr(sys.modules[mutant.function.__module__], mutant.function.__name__, None)
    getattr(held, "cache_clear", lambda: None)()


def survivors() -> tuple[int, list[str]]:
    """Return the number of mutants, and those that nothing notices, by file, function and line."""
    with tempfile.TemporaryDirectory() as folder:
        all_runs = [*runs(Path(folder))]
        users: dict[types.CodeType, list[Run]] = {}
        for run in all_runs:
            for code in executed(run):
                users.setdefault(code, []).append(run)
        found = [*mutants()]
        left = [
            f"{one.place} {one.what}" + ("" if users.get(one.function.__code__) else " (never run)")
            for one in found
            if not noticed(one, users.get(one.function.__code__, [])[::-1])
        ]
    return len(found), left


if __name__ == "__main__":
    number, left = survivors()
    sys.stdout.write(f"{number} mutants\n" + "".join(f"{one}\n" for one in left))
    sys.exit(any(not one.startswith(tuple(LEFT)) for one in left))
