"""Folders of a user's modules, and what raysp reads of them."""

import importlib
import shutil
import sys
import tempfile
from pathlib import Path

import raysp
from tests.corpora import a_pipeline, write_shard


class Project:
    """A folder of modules."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def write(self, **files: str) -> None:
        """Write modules; `__` in a name is a folder: `pack__rules` is `pack/rules.py`, `pack__` its `__init__`."""
        for name, text in files.items():
            path = self.folder / f"{name.replace('__', '/')}.py"
            path = path.with_name("__init__.py") if name.endswith("__") else path
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        # Of a module that is written twice in a second, in one size, the bytecode of the first would be taken.
        for folder in self.folder.rglob("__pycache__"):
            shutil.rmtree(folder)
        importlib.invalidate_caches()

    def forget(self) -> None:
        """Forget imported modules, so that the next import reads them again, as in a new process."""
        for name, module in [*sys.modules.items()]:
            if str(self.folder) in str(getattr(module, "__file__", None) or getattr(module, "__path__", "")):
                del sys.modules[name]


def code_of(where: str) -> dict[str, object]:
    """Return the parts of a fingerprint that stand for a user's code: that of a filter, "module:function"."""
    with tempfile.TemporaryDirectory() as folder:
        write_shard(Path(folder, "in", "a.parquet"), 1)
        plan = raysp.plan(a_pipeline(f"{folder}/in/*.parquet", f"{folder}/out", keep=[raysp.Keep(where=where)]))
    return {name.removeprefix("code."): value for name, value in plan.parts.items() if name.startswith("code.")}
