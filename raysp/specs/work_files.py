"""Files of users that define work: pipelines, recipes and functions."""

import importlib.machinery
import importlib.util
import sys
from collections.abc import Mapping, Sequence
from dataclasses import is_dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, TypeVar, cast

from raysp import tracebacks
from raysp.errors import SpecError
from raysp.public_names import resolved
from raysp.specs.pipeline import Pipeline
from raysp.specs.values import arguments_of, override

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Loaded = TypeVar("Loaded")


def load_pipeline(target: str) -> Pipeline:
    """Load a pipeline from `file.py` (its only one, or the one named `pipeline`) or `file.py:name`.

    Raises:
        SpecError: as `load_value`.
    """
    return cast("Pipeline", load_value(target, {"pipeline": "raysp.specs.pipeline:Pipeline"}))


def load_value(target: str, kinds: Mapping[str, str]) -> object:
    """Load a spec from `file.py` (its only one, or the one with the usual name) or `file.py:name`.

    The file is executed as a module under its own name, so that its functions can be imported by that name.

    Args:
        target: the file, and possibly a name.
        kinds: usual names of the accepted classes, such as {"pipeline": "raysp.specs.pipeline:Pipeline"}. No module is
            imported that the file does not import.

    Raises:
        SpecError: there is no such file or name, no spec or several; or the file raises an error.
    """
    path, _, name = target.partition(":")
    expected = " or ".join(f"raysp.{place.partition(':')[2]}" for place in kinds.values())
    values = vars(_module(Path(path), expected))
    classes = tuple(cast("type", resolved(place)) for place in kinds.values() if place.partition(":")[0] in sys.modules)
    specs = {key: value for key, value in values.items() if isinstance(value, classes)}
    if name:
        if name not in specs:
            raise SpecError(f"{path} has no {' or '.join(kinds)} named {name!r}; found {sorted(specs) or 'none'}")
        return specs[name]
    usual = [specs[name] for name in kinds if name in specs]
    if len(usual) == 1:
        return usual[0]
    if len({id(value) for value in specs.values()}) != 1:
        if not specs:
            raise SpecError(f"{path}: expected one {expected}, found {_other_work(values, path)}")
        raise SpecError(f"{path}: expected one {expected}, found {', '.join(sorted(specs))}; choose one by {path}:NAME")
    return next(iter(specs.values()))


def _other_work(values: Mapping[str, object], path: str) -> str:
    """Return the other spec that a file defines, with the command that takes it."""
    classes = {type(value) for value in values.values() if type(value).__module__.startswith("raysp.")}
    verbs = ((kind.__name__, getattr(kind, "VERB", "")) for kind in classes)
    works = {name: verb for name, verb in verbs if verb}
    first = min(works, default=None)
    return "none" if first is None else f"a raysp.{first}, which `raysp {works[first]} {path}` takes"


def file_of(pipeline: Pipeline) -> str:
    """Return the Python file that defines a pipeline of specs of raysp."""

    def shown(value: object) -> str:
        if not isinstance(value, tuple):
            return code_of(value)
        lines = [f"        {code_of(step)},\n" for step in value]
        return f"[\n{''.join(lines)}    ]"

    source, *others = arguments_of(pipeline, shown)
    arguments = "".join(f"    {argument},\n" for argument in (f"source={source}", *others))
    return f"import raysp\n\npipeline = raysp.Pipeline(\n{arguments})\n"


def code_of(value: object) -> str:
    """Return the Python expression of a spec of raysp, or of a value of its fields."""
    if isinstance(value, str):
        text = repr(value)
        return text if '"' in text else f'"{text[1:-1]}"'
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{code_of(key)}: {code_of(item)}' for key, item in value.items())}}}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(code_of, value))}]"
    if not is_dataclass(value):
        return repr(value)
    return f"raysp.{type(value).__name__}({', '.join(arguments_of(cast('DataclassInstance', value), code_of))})"


def is_pipeline_file(target: str) -> bool:
    """Return whether a target of the command line is `file.py` or `file.py:name`, not a sink."""
    path = target.partition(":")[0]
    return path.endswith(".py") and not Path(path).is_dir()


def _module(path: Path, expected: str) -> ModuleType:
    if not path.is_file():
        problem = "a folder" if path.is_dir() else "no such file"
        raise SpecError(f"{path}: {problem}; expected a Python file that defines a {expected}")
    installed = [place for place in sys.path if Path(place).name in ("site-packages", "dist-packages")]
    is_reserved = path.stem in sys.stdlib_module_names or path.stem == "raysp"
    if is_reserved or importlib.machinery.PathFinder.find_spec(path.stem, installed):  # the module would shadow it
        raise SpecError(f"{path}: Python or an installed package has a module named {path.stem!r}; rename the file")
    folder = str(path.resolve().parent)
    if folder not in sys.path:
        sys.path.insert(0, folder)
    definition = importlib.util.spec_from_file_location(path.stem, path)
    if definition is None or definition.loader is None:
        raise SpecError(f"{path}: expected a Python file, named *.py")
    module = importlib.util.module_from_spec(definition)
    sys.modules[path.stem] = module
    try:
        definition.loader.exec_module(module)
    except SpecError as error:
        raise SpecError(f"{path}: {error}") from error
    except BaseException as error:
        tracebacks.raise_if_stopped(error)
        where = tracebacks.place(error)
        at = f", at {where}" if where else ""
        raise SpecError(f"{path} raised {tracebacks.named(error)}{at}") from error
    return module


def with_overrides(work: Loaded, settings: Sequence[str]) -> Loaded:
    """Return a pipeline or recipe with `PATH=VALUE` settings of the command line applied.

    Raises:
        SpecError: a path does not exist, or a value is invalid.
    """
    for setting in settings:
        path, equals, text = setting.partition("=")
        if not equals:
            raise SpecError(f"--set {setting!r}: expected PATH=VALUE, such as sink.url=out")
        work = cast("Loaded", override(work, path, text))
    return work
